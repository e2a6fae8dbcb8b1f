"""Where trees come from: induced from a classifier, WordNet, other people's files, edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdt.lazy import lazy

if TYPE_CHECKING:
    from . import edit as edit
    from . import formats as formats
    from . import naming as _naming
    from .classifier import from_classifier as from_classifier
    from .edit.difference import Difference as Difference
    from .edit.difference import diff as diff
    from .edit.history import History as History
    from .edit.record import Edit as Edit
    from .edit.record import EditError as EditError
    from .edit.undo import EditStack as EditStack
    from .formats.class_order import FormatError as FormatError
    from .induced import induce as induce
    from .library import open_model as open_model
    from .shipped import available as available
    from .shipped import load as load
    from .wordnet.known import known_senses as known_senses
    from .wordnet.readable import readable as readable
    from .wordnet.senses import senses as senses
    from .wordnet.tree import from_wnids as from_wnids
    from .wordnet.tree import from_wordnet as from_wordnet

    names = _naming.group_names
    rename = _naming.name_groups

_HOME = {
    "Difference": "edit.difference",
    "Edit": "edit.record",
    "EditError": "edit.record",
    "EditStack": "edit.undo",
    "FormatError": "formats.class_order",
    "History": "edit.history",
    "available": "shipped",
    "diff": "edit.difference",
    "edit": "edit",
    "formats": "formats",
    "from_classifier": "classifier",
    "from_wnids": "wordnet.tree",
    "from_wordnet": "wordnet.tree",
    "induce": "induced",
    "known_senses": "wordnet.known",
    "load": "shipped",
    "names": "naming:group_names",
    "open_model": "library",
    "readable": "wordnet.readable",
    "rename": "naming:name_groups",
    "senses": "wordnet.senses",
}
__all__ = sorted(_HOME)
__getattr__ = lazy(__name__, _HOME)
