"""Read lines of text: paths, tables with or without a header, indented outlines, and YAML."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

from nbdt.errors import listed
from nbdt.tree.building import child_id, collapse_chains, nodes_from_paths
from nbdt.tree.nodes import WNID, HierarchyError, Node, check_size, check_word, short

from .class_order import FormatError
from .ranks import MISSING, edge_columns, rank_columns

PATHS, CELLS = ("/", ">", "\\", "::"), ("\t", ",", ";", "|")  # separators
IF_HEADER = "remove it if it is a header"

Nodes = tuple[list[Node], list[str]]
Rows = list[tuple[int, list[str]]]  # the number of the line, and its parts

_ARROW = re.compile(r"[-=]?>|[→»›]")
_YAML_LINE = re.compile(
    r"""(?P<indent>[ -]*)(?P<name>'[^']*'|"[^"]*"|[^-\s:'"&*!|>{\[][^:]*)"""
    r"(:(\s+(~|null|\{\}|\[(?P<items>[^\[\]{}]*)\]))?)?"
)
_BRANCH = re.compile(r"[\s│├└─|`*•+-]*")  # what outlines and `tree` draw before a name


def separator(text: str, marks: Sequence[str] = (*CELLS, *PATHS)) -> str | None:
    """Return the separator that most lines contain, None without any; of equals the first of `marks`.

    No name may contain a tab, so a tab between words separates.
    """
    check_size(text.count('"') // 2, "quoted names")
    lines = [line.strip() for line in re.sub(r'"[^"\n]*"', "", _ARROW.sub(">", text)).split("\n")]
    if "\t" in marks and any("\t" in line for line in lines):
        return "\t"
    times = {mark: sum(mark in line for line in lines) for mark in marks}
    best = max(times, key=times.__getitem__)
    return best if times[best] else None


def is_outline(text: str) -> bool:
    """Return whether lines are indented, and most of them hold no separator."""
    lines = [line for line in text.split("\n") if line.strip()]
    indented = sum(bool(_BRANCH.match(line)[0]) for line in lines)  # type: ignore[index]
    mark = separator(text)
    separated = sum(mark in line.strip(" \t|│") for line in lines) if mark else 0
    return 2 * separated < len(lines) and indented > 0


def read_outline(text: str, notes: list[str]) -> Nodes:
    """Read one name a line, each indented deeper than the group that it is in."""
    found: list[tuple[int, int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        before = _BRANCH.match(line.expandtabs())
        name = line.expandtabs()[before.end() if before else 0 :].strip()
        if name:
            found.append((number, before.end() if before else 0, name))
    return _indented(found, notes)


def read_yaml(text: str, notes: list[str]) -> Nodes:
    """Read YAML as people write it: a name a line, ``group:`` and ``group: [a, b]``; values are text.

    Raises FormatError: other YAML, such as values of keys, aliases or several documents.
    """
    found: list[tuple[int, int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        bare = "" if line.lstrip().startswith("#") else line.split(" #")[0].rstrip()
        if not bare or (bare == "---" and not found):
            continue
        match = _YAML_LINE.fullmatch(bare)
        if match is None:
            raise FormatError(
                f"Line {number}, {short(bare.strip())}, is YAML that is not read; write a name, 'group:' "
                "or 'group: [a, b]'."
            )
        indent = match.end("indent")
        items = filter(None, map(str.strip, (match["items"] or "").split(",")))
        found.append((number, indent, _unquoted(match["name"])))
        found += [(number, indent + 1, _unquoted(item)) for item in items]
    return _indented(found, notes)


def _unquoted(name: str) -> str:
    quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    return name[1:-1] if quoted else name.strip()


def _indented(found: list[tuple[int, int, str]], notes: list[str]) -> Nodes:
    """Return the tree of (number of the line, indentation, name)."""
    rows: Rows = []
    above: list[tuple[int, str]] = []
    parts = 0
    for (number, indent, name), after in pairwise([*found, (0, -1, "")]):
        while above and above[-1][0] >= indent:
            above.pop()
        if after[1] > indent:
            above.append((indent, name))
        else:
            parts += len(above)
            check_size(parts, "names in its paths")
            rows.append((number, [*(word for _, word in above), name]))
    return from_rows(rows, notes)


def read_table(text: str, notes: list[str], marks: Sequence[str]) -> Nodes:
    """Read one class a line, from the outermost group to the class; see `rank_columns` for headers.

    Rows may differ in length, and under a header a rank may be missing.

    Raises FormatError: a line that cannot be read; the message has its number.
    """
    mark = separator(text, marks) or marks[0]
    check_size(text.count(mark) + text.count("\n"), "names in its paths")
    rows = _cells(text, mark) if mark in CELLS else _paths(text, mark)
    if mark == "|":  # a table in Markdown has a mark at both ends, and a line of dashes
        bare = [(n, row[not row[0] : len(row) - (not row[-1])]) for n, row in rows]
        rows = [(n, row) for n, row in bare if not all(set(cell) <= set("-: ") for cell in row)]
    if comments := [number for number, row in rows if row[0].startswith("# ")]:
        notes.append(f"lines left out as comments: {listed(comments)}")
        rows = [(number, row) for number, row in rows if not row[0].startswith("# ")]
    if len(rows) > 2 and (edge := edge_columns(rows[0][1])):
        return _edges(rows, edge, notes)
    if len(rows) > 2 and (columns := rank_columns(rows[0][1])):
        return _ranked(rows, columns, notes)
    if mark in CELLS:  # rows end where their last name is
        rows = [(n, row[: max(i for i, cell in enumerate(row, 1) if cell)]) for n, row in rows]
    if rows and all(len(row) == 1 and WNID.fullmatch(row[0]) for _, row in rows):
        raise FormatError(
            "This is a list of WordNet ids, which contains no hierarchy. Pass it as wnids=…, with "
            "the graph-….json that it belongs to."
        )
    if mark in PATHS:
        _refuse_other_marks(rows, mark)
    first, others = rows[0][1] if rows else [], [row for _, row in rows[1:]]
    if len(others) > 1 and len(first) > 1 and {*first}.isdisjoint(chain(*others)):
        notes.append(f"line {rows[0][0]} shares no name with the others: {IF_HEADER}")
    return from_rows(rows, notes)


def _refuse_other_marks(rows: Rows, mark: str) -> None:
    """Refuse a path with another separator than the rest. Raises FormatError."""
    for number, row in rows:
        other = next((m for m in ("/", ">", "\\", "|", ";") if len(row) == 1 and m in row[0]), None)
        if other and any(len(more) > 1 for _, more in rows):
            raise FormatError(
                f"Line {number}, {short(row[0])}, holds {other!r} where others hold {mark!r}; use one of them."
            )


def _edges(rows: Rows, columns: Sequence[int], notes: list[str]) -> Nodes:
    """Read a table of nodes with a parent each; `columns` are those of id, parent and name."""
    (first, header), *rest = rows
    notes.append(f"line {first} is a header; columns: {', '.join(header[c] for c in columns)}")
    for number, row in rest:
        if len(row) != len(header):
            raise FormatError(f"Line {number} has {len(row)} cells; the header has {len(header)}.")
    found = from_parents((row[columns[0]], row[columns[1]], row[columns[2]]) for _, row in rest)
    return without_chains(found, notes)


def _paths(text: str, mark: str) -> Rows:
    lines = enumerate((_ARROW.sub(">", text) if mark == ">" else text).split("\n"), start=1)
    stripped = ((number, line.strip()) for number, line in lines)
    # "/animal/cat" begins at the root.
    return [
        (number, [part.strip() for part in line.removeprefix(mark).removesuffix(mark).split(mark)])
        for number, line in stripped
        if line
    ]


def _cells(text: str, mark: str) -> Rows:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True, strict=True
    )
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise FormatError(f"Line {reader.line_num} is no CSV: {error}.") from None
    return [(number, row) for number, row in rows if any(row)]


def _ranked(rows: Rows, columns: Sequence[int], notes: list[str]) -> Nodes:
    """Read a table under a header; `columns` lead from the root to the class."""
    (first, header), *rest = rows
    notes.append(f"line {first} is a header; levels: {', '.join(header[c] for c in columns)}")
    if unused := [cell for place, cell in enumerate(header) if place not in columns]:
        notes.append(f"columns left out: {listed(unused)}")
    found: Rows = []
    seen: set[tuple[str, ...]] = set()
    gaps = 0
    for number, row in rest:
        if len(row) > len(header):
            raise FormatError(f"Line {number} has {len(row)} cells; the header has {len(header)}.")
        cells = [row[place] if place < len(row) else "" for place in columns]
        named = [cell for cell in cells if cell.casefold() not in MISSING]
        if not named:
            raise FormatError(f"Line {number} names no {' or '.join(header[c] for c in columns)}.")
        gaps += len(named) < len(cells)
        if tuple(named) not in seen:
            seen.add(tuple(named))
            found.append((number, named))
    groups = {name for _, row in found for name in row[:-1]}
    if bare := [f"line {n}, {row[-1]}" for n, row in found if row[-1] in groups]:
        notes.append(f"lines left out, whose last name is a group on other lines: {listed(bare)}")
        found = [(number, row) for number, row in found if row[-1] not in groups]
    if gaps:
        notes.append(f"{gaps:,} of {len(rest):,} lines lack a level")
    if len(seen) < len(rest):
        notes.append(f"{len(rest) - len(seen):,} lines repeat an earlier one")
    return without_chains(from_rows(found, notes), notes)


def without_chains(found: Nodes, notes: list[str]) -> Nodes:
    """Remove groups with a single child, which are common in this format and decide nothing."""
    nodes, order = found
    kept = collapse_chains(nodes)
    if len(kept) < len(nodes):
        notes.append(f"groups with a single child, which decide nothing: {len(nodes) - len(kept)}")
    return kept, order


def from_rows(rows: Rows, notes: list[str]) -> Nodes:
    """Return the tree of numbered rows of names. Raises FormatError, with the number of the line."""
    if not rows:
        raise FormatError("The file is empty; expected a line for each class.")
    checked: set[str] = set()
    line_of: dict[str, int] = {}
    for number, row in rows:
        if not row:
            raise FormatError(f"Line {number} names no class; remove it.")
        for part in row:
            if part not in checked:
                _check_part(part, number, row)
                checked.add(part)
        if row[-1] in line_of:
            raise FormatError(
                f"Line {number}: the class {short(row[-1])} is on line {line_of[row[-1]]} already; "
                "class names are unique: qualify them, as in 'crane (bird)' and 'crane (machine)'."
            )
        line_of[row[-1]] = number
    flat = sum(len(row) == 1 for _, row in rows)
    if 0 < flat < len(rows):
        notes.append(f"{flat:,} of {len(rows):,} lines name no group")
    try:
        return nodes_from_paths([row for _, row in rows])
    except HierarchyError as error:
        raise FormatError(f"{_lines_of_group(rows)}{error}") from None


def _lines_of_group(rows: Rows) -> str:
    """Return the lines of the first class that is also a group, as the start of a message."""
    line_of = {tuple(row): number for number, row in rows}
    for number, row in rows:
        for length in range(1, min(len(row), 100)):
            if (other := line_of.get(tuple(row[:length]))) is not None:
                return f"Lines {other} and {number}: "
    return ""


def _check_part(part: str, number: int, row: Sequence[str]) -> None:
    try:
        check_word(part, f"Line {number}: a name")
    except HierarchyError as error:
        where = f" The line is {short(' / '.join(row))}." if not part.strip() else ""
        raise FormatError(f"{error}{where}") from None


def from_parents(rows: Iterable[tuple[Any, Any, Any]]) -> Nodes:
    """Return the tree of (id, parent's id, name); a parent that is no row is a group."""
    parent: dict[str, str | None] = {}
    name: dict[str, str] = {}
    for key, above, called in rows:
        if not isinstance(key, str | int) or not isinstance(called, str):
            raise FormatError(
                f"Expected a category with a name, got {short(key)}, {short(called)}."
            )
        if str(key) in name:
            raise FormatError(f"The category {short(key)} is listed twice; remove one.")
        missing = not isinstance(above, str | int) or str(above).casefold() in MISSING
        alone = missing or above == key
        parent[str(key)], name[str(key)] = None if alone else str(above), called
    for above in [*parent.values()]:
        if above is not None and above not in name:
            parent[above], name[above] = None, above
    members: dict[str | None, list[str]] = {}
    for key, above in parent.items():
        members.setdefault(above, []).append(key)
    top = "/" if len(members.get(None, ())) > 1 else None
    order = members.get(None, [])[:]
    for key in order:  # grows while it is read
        order += members.get(key, ())
    ids: dict[str | None, str | None] = {None: top}
    taken: set[str] = set()
    for key in dict.fromkeys([*order, *parent]):  # what no root reaches is a cycle, refused later
        group = child_id(ids.get(parent[key]), name[key])  # its path, as in nested groups
        group += f"{key}/" if group in taken else ""  # names of groups may repeat
        taken.add(group)
        ids[key] = group if key in members else name[key]
    nodes = [Node("/", None, "root")] * (top is not None)
    nodes += [Node(str(ids[key]), ids[above], name[key]) for key, above in parent.items()]
    return nodes, [name[key] for key in parent if key not in members]
