"""An explanation as data, words, pictures, pages and files."""

from . import facts, files, headline, html
from .explanation import Explanation

for name, function in {  # the modules above need `Explanation`, so it cannot import them
    "words": property(facts.words),
    "headline": property(
        lambda explanation: str(headline.headline(explanation.path, explanation.answer))
    ),
    "save": files.save,
    "load": staticmethod(files.load),
    "_repr_html_": html.notebook_html,
}.items():
    setattr(Explanation, name, function)
