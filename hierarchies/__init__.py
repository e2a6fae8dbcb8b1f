"""Where trees come from: induced from a classifier, WordNet, other people's files, edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from . import edit as edit
    from . import formats as formats
    from .classifier import from_classifier as from_classifier
    from .difference import Difference as Difference
    from .difference import diff as diff
    from .edit import Edit as Edit
    from .edit import EditError as EditError
    from .edit import EditStack as EditStack
    from .formats import FormatError as FormatError
    from .history import History as History
    from .induced import induce as induce
    from .library import available as available
    from .library import load as load
    from .model_source import open_model as open_model
    from .naming import names as names
    from .naming import rename as rename
    from .word_senses import from_wordnet as from_wordnet
    from .word_senses import senses as senses
    from .wordnet_tree import from_wnids as from_wnids

_HOME = {
    "Difference": "difference",
    "Edit": "edit",
    "EditError": "edit",
    "EditStack": "edit",
    "FormatError": "formats",
    "History": "history",
    "available": "library",
    "diff": "difference",
    "edit": "edit",
    "formats": "formats",
    "from_classifier": "classifier",
    "from_wnids": "wordnet_tree",
    "from_wordnet": "word_senses",
    "induce": "induced",
    "load": "library",
    "names": "naming",
    "open_model": "model_source",
    "rename": "naming",
    "senses": "word_senses",
}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
