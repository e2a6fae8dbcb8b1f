"""An evaluation for people: tables in the terminal, and a picture."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ..show.picture import bars, saved
from ..show.tables import name_cell, plain_console, table

BEFORE, AFTER = "#9aa5b1", "#2166ac"
CURVES = (AFTER, "#b35806", "#7b3294", "#1b7837", "#555555")
EASIER, HARDER = "#2166ac", "#d6282d"  # distinct in all common colour blindness
SHOWN = 8


def show(record: dict[str, Any]) -> None:
    """Print the most important of an evaluation, the content of evaluation.json."""
    console = plain_console()
    if "groups" in record:
        console.print(_group_table(record["groups"]))
    if "before" not in record:  # no photograph has a class as its label
        return
    console.print(_accuracy_table(record))
    if missing := record["classes_without_images"]:
        console.print(f"{missing} of {record['classes']} classes have no photograph here.")
    if "changes" not in record:
        if record["answers"]["targets"]:
            console.print(_target_table(record["answers"]))
        console.print(_rule_table(record["answers"]))
        for line in _answer_lines(record["answers"]):
            console.print(line)
        console.print(_hardest_table(record["before"]["nodes"]))
        return
    if record["rule"] == "marginal":
        console.print(
            "Under the marginal rule a tree changes paths and hard answers, never soft ones."
        )
    changes = record["changes"]
    counts = [f"{count} {verdict}" for verdict, count in changes["verdicts"].items() if count]
    console.print(f"{len(changes['images']):,} photographs changed: {', '.join(counts) or 'none'}.")
    if changed := _most_changed(record):
        console.print(_node_table(changed))
    images = [row for row in changes["images"] if row["verdict"] != "other path"]
    if images:
        console.print(_image_table(images))


def _accuracy_table(record: dict[str, Any]) -> Table:
    before, images = record["before"]["quality"], f"{record['images']:,} photographs"
    if "groups" in record:
        images += " that have a class as their label"
    if "after" in record:
        pairs = [
            (kind, before[kind]["accuracy"], values["accuracy"])
            for kind, values in record["after"]["quality"].items()
        ]
        rows = ((kind, f"{a:.2%}", f"{b:.2%}", f"{100 * (b - a):+.2f}") for kind, a, b in pairs)
        return table(f"right answers on {images}", ("", "before", "after", "change"), rows)
    columns = ("", "right", "distance", "of mistakes", "calibration error")
    forms = {"accuracy": ".2%", "distance": ".3f", "severity": ".2f", "calibration_error": ".2%"}
    rows = (
        (kind, *(f"{values[key]:{form}}" if key in values else "" for key, form in forms.items()))
        for kind, values in before.items()
    )
    note = "distance: levels up the tree until an answer is right"
    return table(f"answers on {images}", columns, rows, note)


def _group_table(groups: dict[str, Any]) -> Table:
    title = f"answers on {groups['images']:,} photographs that have a group as their label"
    rows = [(kind, f"{groups[kind]:.2%}", "") for kind in ("flat", "soft", "hard")]
    rows += [
        (_asked(row), f"{row['right']:.2%}", f"{row['information']:.1%}")
        for row in groups["targets"]
    ]
    note = "right: in the group; for an answer that stops above a class also at or above it"
    return table(title, ("", "right", "information"), rows, note)


def _asked(row: dict[str, Any]) -> str:
    return f"asked for {100 * row['target']:g} %"


def _target_table(answers: dict[str, Any]) -> Table:
    kinds = ("information", "classes", "groups", "root")
    rows = []
    for row in answers["targets"]:
        low, high = (f"{100 * end:.1f}" for end in row["interval"])
        right = (f"{row['right']:.2%}", f"{low} to {high}")
        rows.append((f"{100 * row['target']:g} %", *right, *(f"{row[kind]:.1%}" for kind in kinds)))
    source = answers["calibration"]
    note = f"thresholds: {source['images']:,} images each, from {source['source']}"
    columns = ("asked for", "right", "95 % interval", *kinds)
    return table("answers that stop where they are unsure", columns, rows, note)


def _rule_table(answers: dict[str, Any]) -> Table:
    rows = (
        (rule, f"{100 * row['area']:.2f}", f"{row['average_precision']:.4f}")
        for rule, row in answers["rules"].items()
    )
    note = "area under errors against information: 0 is best"
    return table("where an answer stops", ("by", "area × 100", "average precision"), rows, note)


def _answer_lines(answers: dict[str, Any]) -> Iterator[str]:
    """Yield what else was measured, a line for each."""
    if not answers["targets"]:
        yield "Too few photographs to calibrate answers: the model has no reference set."
    elif shared := answers["calibration"]["shared"]:
        yield f"{shared:,} of the photographs are in the model's reference set; none calibrates itself."
    levels = (f"{row['depth']}: {row['calibration_error']:.1%}" for row in answers["levels"])
    yield f"calibration error by depth: {', '.join(levels)}"
    for kind, row in answers["lists"].items():
        distances = " / ".join(f"{row[f'distance_at_{k}']:.3f}" for k in (1, 5, 20))
        which = "likeliest first" if kind == "plain" else "better mistakes"
        yield f"{which}: distance of the first 1 / 5 / 20 {distances}; in the first 5 {row['top5']:.2%}"
    if unknown := answers.get("unknown"):
        line = f"unknown: {unknown['images']:,} photographs, AUROC {unknown['auroc']:.3f}"
        if "flagged" in unknown:
            line += (
                f", {unknown['flagged']:.1%} flagged; of the known {unknown['false_alarms']:.1%}"
            )
        yield line


def _most_changed(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the decisions that make fewer mistakes than before, then those that make more."""
    nodes = record["changes"]["nodes"]
    easier = [node for node in nodes if node["gain"] > 0]
    harder = [node for node in nodes if node["gain"] < 0]
    return [*easier[:SHOWN], *harder[:SHOWN]]


def _node_table(changed: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for node in changed:
        word, colour = ("easier", "blue") if node["gain"] > 0 else ("harder", "red")
        counts = (_mistakes(node["before"]), _mistakes(node["after"]))
        rows.append((name_cell(node["name"]), *counts, Text(word, style=colour)))
    return table("easier and harder decisions", ("decision", "mistakes before", "after", ""), rows)


def _mistakes(node: dict[str, Any] | None) -> str:
    return "" if node is None else f"{node['mistakes']} of {node['images']}"


def _hardest_table(nodes: Sequence[dict[str, Any]]) -> Table:
    rows = (
        (name_cell(node["name"]), _mistakes(node), f"{node['accuracy']:.1%}")
        for node in sorted(nodes, key=lambda node: -node["mistakes"])[:SHOWN] if node["mistakes"]
    )  # fmt: skip
    return table("decisions with the most mistakes", ("decision", "mistakes", "right"), rows)


def _image_table(changed: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for row in changed[:SHOWN]:
        kind = "soft" if row["verdict"] == "other soft answer" else "hard"
        names = (row["file"].replace("!", "/").rpartition("/")[2], row["label"])
        answers = (row[when][kind] for when in ("before", "after"))
        rows.append((*map(name_cell, (*names, *answers)), row["verdict"]))
    title = f"{min(SHOWN, len(changed))} of {len(changed):,} photographs with another answer"
    return table(title, ("photograph", "class", "before", "after", ""), rows)


def picture(record: dict[str, Any]) -> bytes:
    """Draw a PNG file of an evaluation, the content of evaluation.json."""
    from matplotlib.figure import Figure

    if "changes" not in record:
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        _curves(figure.subplots(), record["answers"])
        return saved(figure)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    _accuracies(left, record)
    _changes(right, _most_changed(record))
    return saved(figure)


def _curves(axes: Any, answers: dict[str, Any]) -> None:
    for colour, (rule, values) in zip(CURVES, answers["rules"].items(), strict=True):
        kept, wrong = zip(*values["curve"], strict=True)
        label = f"{rule}: {100 * values['area']:.2f}"
        axes.plot([100 * x for x in kept], [100 * y for y in wrong], color=colour, label=label)
    for row in answers["targets"]:
        place = (100 * row["information"], 100 * (1 - row["right"]))
        axes.plot(*place, "o", color=CURVES[0])
        axes.annotate(
            f"{100 * row['target']:g} %",
            place,
            (-4, 6),
            ha="right",
            size=9,
            textcoords="offset points",
        )
    axes.set(xlabel="information kept, %", ylabel="wrong answers, %", title="what caution costs")
    axes.legend(title="area × 100", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _accuracies(axes: Any, record: dict[str, Any]) -> None:
    for place, when, colour in ((-0.2, "before", BEFORE), (0.2, "after", AFTER)):
        values = [100 * values["accuracy"] for values in record[when]["quality"].values()]
        drawn = axes.bar([kind + place for kind in range(3)], values, 0.4, color=colour, label=when)
        axes.bar_label(drawn, fmt="%.1f", padding=2)
    axes.set_xticks(range(3), record["before"]["quality"])
    axes.set(ylim=(0, 125), ylabel="right answers, %", title=f"{record['images']:,} images")
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _changes(axes: Any, changed: Sequence[dict[str, Any]]) -> None:
    axes.set_title("decisions that got easier (blue) or harder (red)")
    if not changed:
        axes.text(0.5, 0.5, "none", ha="center", va="center")
        axes.axis("off")
        return
    ordered = sorted(changed, key=lambda node: -node["gain"])
    gains = [node["gain"] for node in ordered]
    colours = [EASIER if gain > 0 else HARDER for gain in gains]
    names = [node["name"] for node in ordered]
    bars(axes, names, gains, [f"{gain:+d}" for gain in gains], color=colours)
    axes.margins(x=0.15)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("mistakes avoided, in photographs")
