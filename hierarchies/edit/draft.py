"""What the edits share: finding nodes, refusing impossible edits, and the tree during an edit."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, count

from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import MAX_NAME, HierarchyError, Node, check_word, nfc, short

from ..naming import relist_leaves
from .record import Edit, EditError


def refuse(wrong: object, problem: str) -> None:
    """Raise EditError with what is the problem, if something is wrong."""
    if wrong:
        raise EditError(problem)


class Named:
    """A hierarchy, and what messages call its nodes."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy

    def label(self, node: int) -> str:
        """Return the node's name in quotes; with its id where another node has the same name."""
        name = self.hierarchy.names[node]
        repeated = self.hierarchy.names.count(name) > 1
        return f"{short(name)} ({short(self.hierarchy.ids[node])})" if repeated else short(name)

    def labels(self, nodes: Sequence[int], limit: int = 5) -> str:
        """Return ``'cat', 'dog' and 3 more``."""
        rest = f" and {len(nodes) - limit} more" if len(nodes) > limit else ""
        return ", ".join(self.label(node) for node in nodes[:limit]) + rest

    def located(self, node: int) -> str:
        """Return ``'owl' from 'bird'``; not for the root."""
        return f"{self.label(node)} from {self.label(self.hierarchy.parents[node])}"


class Draft(Named):
    """The nodes of a hierarchy while an edit changes them; `finish` validates the result."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__(hierarchy)
        self.nodes = {node.id: node for node in hierarchy.nodes}
        self.removed: list[str] = []
        self.remarks: list[str] = []

    def find(self, node: str) -> int:
        """Return the index of the node with this id or unambiguous name. Raises EditError."""
        if not isinstance(node, str) or len(node) > MAX_NAME:
            raise EditError(f"Expected the id or the name of a node, got {short(node)}.")
        try:
            return self.hierarchy.index(node)
        except HierarchyError as error:
            raise EditError(str(error)) from None

    def find_all(self, nodes: Sequence[str]) -> list[int]:
        """Return indices in tree order, which is independent of the order given. Raises EditError."""
        if isinstance(nodes, str) or not isinstance(nodes, Iterable):
            raise EditError(f"Expected a list of nodes, got {short(nodes)}.")
        indices = [self.find(node) for node in nodes]
        repeated = sorted(node for node, times in Counter(indices).items() if times > 1)
        refuse(repeated, f"{self.labels(repeated)} is named twice; name each node once.")
        return sorted(indices)

    def need_group(self, node: int, remedy: str) -> None:
        """Refuse a class where a group is needed. Raises EditError."""
        problem = f"{self.label(node)} is a class, which holds no others; {remedy}."
        refuse(not self.hierarchy.children[node], problem)

    def refuse_root(self, node: int, done: str, remedy: str = "") -> None:
        """Refuse the root where a node with a parent is needed. Raises EditError."""
        refuse(node == 0, f"{self.label(node)} is the root, which holds every class, and cannot be {done}; "
               f"{remedy or 'choose a node inside it'}.")  # fmt: skip

    def refuse_nested(self, one: int, two: int, done: str) -> None:
        """Refuse two nodes if one holds the other. Raises EditError."""
        refuse(one == two, f"{self.label(one)} cannot be {done} with itself; name two nodes.")
        for outer, inner in ((one, two), (two, one)):
            refuse(outer in self.hierarchy.path_to(inner),
                   f"{self.label(outer)} holds {self.label(inner)}, so the two cannot be {done}; choose two "
                   "nodes so that neither is inside the other.")  # fmt: skip

    def shared_parent(self, nodes: Sequence[int]) -> int:
        """Return the group that directly holds all `nodes`. Raises EditError."""
        for node in nodes:
            self.refuse_root(node, "put into a group")
        parents: dict[int, int] = {}
        for node in nodes:
            parents.setdefault(self.hierarchy.parents[node], node)
        shown = ", ".join(self.located(node) for node in list(parents.values())[:3])
        shown += ", …" * (len(parents) > 3)
        refuse(len(parents) > 1,
               f"The nodes are in {len(parents)} different groups ({shown}); move them into one first.")  # fmt: skip
        return next(iter(parents))

    def children(self, node: str) -> list[str]:
        """Return the ids of the children as they are now."""
        return [child.id for child in self.nodes.values() if child.parent == node]

    def put(self, node: str, parent: str | None) -> None:
        """Make `node` a child of `parent`."""
        self.nodes[node] = self.nodes[node]._replace(parent=parent)

    def name(self, node: str, name: str) -> None:
        """Give a node a name; the WordNet id of the old one goes."""
        self.nodes[node] = self.nodes[node]._replace(name=nfc(name), wnid=None)

    def create(self, name: str, parent: str, members: Sequence[int]) -> str:
        """Make a group in `parent` that takes `members`; returns its id."""
        # "bird/", "bird/2", …: neither an id nor a name yet, so it finds one node.
        name, taken = nfc(name), {*self.hierarchy.ids, *self.hierarchy.names}
        stem = f"{name[: MAX_NAME - 20]}/"
        ids = chain([stem], (f"{stem}{number}" for number in count(2)))
        created = next(node_id for node_id in ids if node_id not in taken)
        self.nodes[created] = Node(created, parent, name)
        for member in members:
            self.put(self.hierarchy.ids[member], created)
        return created

    def dissolve(self, node: str, into: str | None = None) -> None:
        """Remove a group; its children go `into` another one, or to its parent."""
        for child in self.children(node):
            self.put(child, into or self.nodes[node].parent)
        del self.nodes[node]
        self.removed.append(node)

    def collapse(self, node: str) -> None:
        """Remove a group with one child left, which takes its place; the root stays, its child goes."""
        children = self.children(node)
        if len(children) > 1:
            return
        root = self.nodes[node].parent is None
        name, child = short(self.nodes[node].name), short(self.nodes[children[0]].name)
        if root:
            self.remarks.append(f"{child} then held everything: its children went to {name}")
        else:
            self.remarks.append(f"{name} had one child left, {child}, which took its place")
        self.dissolve(children[0] if root else node)

    def finish(
        self, kind: str, nodes: Sequence[int], text: str, **fields: str | None
    ) -> tuple[Hierarchy, Edit]:
        """Return the new hierarchy and its record with `fields`: to, name, wnid, created.

        Raises EditError: the result would be no hierarchy.
        """
        old = self.hierarchy
        try:
            new = Hierarchy(tuple(self.nodes.values()), old.classes)
            if self._relist(new):
                new = Hierarchy(tuple(self.nodes.values()), old.classes)
        except HierarchyError as error:
            raise EditError(str(error)) from None
        ids, summary = tuple(old.ids[node] for node in nodes), "; ".join([text, *self.remarks])
        record = Edit(kind, ids, summary, old.hash, new.hash, **fields, removed=tuple(self.removed))
        return new, record

    def _relist(self, new: Hierarchy) -> bool:
        """Rename the groups that are named after their classes, and hold other classes now."""
        old, remarks = self.hierarchy, len(self.remarks)
        before = {node.id: index for index, node in enumerate(old.nodes)}
        for index, node in enumerate(new.nodes):
            was = before.get(node.id)
            if was is None or not new.children[index] or ", " not in node.name:
                continue  # a name that lists classes has a comma
            if node.name != old.names[was]:
                continue  # given by this very edit
            new_name = relist_leaves(node.name, _held(old, was), _held(new, index))
            if new_name not in (None, node.name):
                self.nodes[node.id] = node._replace(name=new_name)
                self.remarks.append(f"{short(node.name)} is called {short(new_name)} now")
        return len(self.remarks) > remarks


def _held(hierarchy: Hierarchy, node: int) -> list[str]:
    """The classes below a node, in class order."""
    return [hierarchy.classes[index] for index in sorted(hierarchy.classes_under(node))]


def check_name(name: str) -> None:
    """Refuse a name that no group can have. Raises EditError."""
    try:
        check_word(name, "The new name")
    except HierarchyError as error:
        raise EditError(str(error)) from None
