"""Write the tables of the READMEs and of docs/weights.md, or check that they agree with the stored rows.

    python ci/tables.py            write
    python ci/tables.py --check    change nothing; name the files that differ and exit with an error

In a README a table is between two comments, of which the first names files with rows:

    <!-- rows: results/demo.json results/levin09.json -->
    <!-- end of rows -->

The front page has one row of every project, chosen by `[tool.fullpaper.headline]`. docs/weights.md lists the weights in
the projects' `released.toml`. For comparison, results/<data set>.csv has all rows of a data set: of papers, their
ablations, baselines and rivals.

Such a comment must name every file in results/. Every row must have command, seeds (unless it scores the authors'
weights), commit, versions and device.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from pathlib import Path

from common.download import released
from common.errors import UserError, command
from common.results import SPREAD, Row, markdown, read_rows
from common.results import digits as places
from projects import PROJECTS

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- rows: (?P<files>[^>]*?) -->\n).*?(<!-- end of rows -->)", re.DOTALL)
WEIGHTS = re.compile(r"(<!-- weights -->\n).*?(<!-- end of weights -->)", re.DOTALL)
HEADLINES = re.compile(r"(<!-- headlines -->\n).*?(<!-- end of headlines -->)", re.DOTALL)
LONGEST_SPLIT = 45
COLUMNS = {
    "dataset": "data set", "split": "split", "metric": "metric", "paper": "project", "preset": "method or preset",
    "value": "value", "std": "standard deviation", "seeds": "seeds", "published": "published", "source": "source",
    "definition": "definition", "command": "command", "commit": "commit", "device": "device",
}  # fmt: skip
"""Field of a row → column of the CSV files."""
PROVENANCE = ("command", "seeds", "commit", "versions", "device")


@command
def main() -> None:
    """Write or check all READMEs and CSV files."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        raise UserError(f"unknown argument {' '.join(sys.argv[1:])}; there is only --check")
    wanted: dict[Path, str] = {}
    for page in sorted([*ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("docs/*.md")]):
        text = filled(page.read_text(encoding="utf-8"), page.parent)
        wanted[page] = WEIGHTS.sub(lambda block: block[1] + weights() + block[2], text)
    front = ROOT / "README.md"
    wanted[front] = HEADLINES.sub(lambda block: block[1] + headlines() + block[2], front.read_text(encoding="utf-8"))
    wanted |= comparisons()
    stale = []
    for path in sorted({*wanted, *ROOT.glob("results/*.csv")}):
        if path.exists() and path.read_text(encoding="utf-8") == wanted.get(path):
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        if check:
            continue
        if path in wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:  # there are no more rows of this data set
            path.unlink()
        print(f"{'written' if path in wanted else 'removed'}: {stale[-1]}")
    if check and stale:
        raise UserError(f"{', '.join(stale)}: the tables differ from the stored rows; run nox -s tables")


def filled(text: str, folder: Path) -> str:
    """Return a README's text with its tables made from the rows below `folder`.

    Raises:
        UserError: no table names a file of rows, or a row lacks its provenance.
    """
    named = {folder / name for block in BLOCK.finditer(text) for name in block["files"].split()}
    if forgotten := sorted(path.name for path in set(folder.glob("results/*.json")) - named):
        raise UserError(f"{folder}: no table of the README names {', '.join(forgotten)}; add a rows comment")
    presets = presets_of(folder)

    def table_of(block: re.Match[str]) -> str:
        return block[1] + tables(read_all(folder, block["files"]), presets, guests=not presets) + block[3]

    return BLOCK.sub(table_of, text)


def read_all(folder: Path, files: str) -> list[Row]:
    """Read the rows of several files.

    Raises:
        UserError: a row lacks part of its provenance, or was measured on a modified checkout.
    """
    rows = []
    for name in files.split():
        for row in read_rows(folder / name):
            needed = [part for part in PROVENANCE if part != "seeds" or row.preset != "released"]
            if missing := [part for part in needed if not getattr(row, part)]:
                raise UserError(f"{folder / name}: {row.metric} lacks {', '.join(missing)}; measure it again")
            if "+" in (row.commit or ""):
                raise UserError(f"{folder / name}: {row.metric} was measured on a modified checkout; measure it again")
            rows.append(row)
    return rows


def comparisons() -> dict[Path, str]:
    """Return results/<data set>.csv → its text: a line per row, sorted by split and metric."""
    by_dataset: dict[str, list[Row]] = {}
    for path in sorted([*ROOT.glob("*/results/*.json"), *ROOT.glob("*/*/results/*.json")]):
        for row in read_rows(path):
            by_dataset.setdefault(row.dataset, []).append(row)
    found = {}
    for dataset, rows in by_dataset.items():
        name = re.sub(r"\W+", "_", dataset.lower().translate({ord("×"): "x", ord("σ"): "sigma"}))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS.values())
        for row in sorted(rows, key=lambda row: (row.split, row.metric)):
            cells = (getattr(row, field) for field in COLUMNS)
            writer.writerow(" ".join(map(str, cell)) if isinstance(cell, list) else cell for cell in cells)
        found[ROOT / "results" / f"{name}.csv"] = text.getvalue()
    return found


def headlines() -> str:
    """Return a table with a line per project: its job, one measured row with a baseline, and the published value."""
    lines = []
    for name, settings in PROJECTS.items():
        chosen = settings["headline"]
        rows = read_all(ROOT / name, chosen["rows"])
        own, other = (
            next((row for row in rows if (row.preset, row.metric) == (preset, chosen["metric"])), None)
            for preset in (chosen["preset"], chosen.get("baseline"))
        )
        if own is None:
            raise UserError(
                f"{name}: the headline names {chosen['preset']}, {chosen['metric']}, which was not measured"
            )
        found = f"**{value(own, 1)}**" + (f" ({other.preset} {value(other, 1)})" if other else "")
        here = f"{own.metric}: {found}"
        lines.append([f"[`{name}`]({name}/README.md)", chosen["job"], chosen["data"], here, own.device or "",
                      chosen["published"]])  # fmt: skip
    return markdown(["project", "job", "trained and scored on", "measured here", "device", "published"], lines) + "\n"


def weights() -> str:
    """Return a table with a line per released checkpoint: name, content, address and licence."""
    lines = []
    for name, entry in released(ROOT.glob("*/src/*/released.toml")).items():
        place = f"[address]({entry.get('url') or entry['place']})"
        check = f"fetched by name; {entry['size']:,} bytes, git id `{entry['git_blob']}`" if "url" in entry else ""
        lines.append([f"`{name}`", entry["what"], place, entry.get("licence", ""), check or entry["note"]])
    return markdown(["name", "what", "where", "licence", ""], lines) + "\n"


def tables(rows: Sequence[Row], presets: set[str], *, guests: bool = False) -> str:
    """Return a table with a column per metric, followed by the exact splits and metrics.

    Args:
        presets: names of the project's presets; other rows are baselines, which come first.
        guests: the page compares papers, so a paper's row gets the paper's name.

    Raises:
        UserError: there are two rows for one cell.
    """
    if guests:
        rows = [as_guest(row) for row in rows]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    digits = {name: places(row.value for row in rows if row.metric == name) for name in metrics}
    lines, notes = [], []
    for dataset, split in dict.fromkeys((row.dataset, short(row.split)) for row in rows):
        here = [row for row in rows if (row.dataset, short(row.split)) == (dataset, split)]
        methods = sorted(dict.fromkeys(row.preset for row in here), key=lambda name: is_ours(name, presets))
        block: list[list[str]] = []
        for method in methods:
            chosen: dict[str, Row] = {}
            for row in here:
                if row.preset == method and not isclose(
                    row.value, chosen.setdefault(row.metric, row).value, rel_tol=1e-4
                ):
                    raise UserError(
                        f"{dataset}, {split}, {method}: two rows for {row.metric}; name only one of the files"
                    )
            beside: dict[str | None, dict[str, Row]] = {}
            for row in chosen.values():
                if row.published is not None:
                    beside.setdefault(row.source, {})[row.metric] = row
            name = f"**{called(method, dataset)}**" if is_ours(method, presets) else method
            cells = [value(chosen.get(metric), digits[metric]) for metric in metrics]
            above = [
                [f"{s}", *(published(b.get(metric), digits[metric]) for metric in metrics)] for s, b in beside.items()
            ]
            below = [
                ["*difference*", *(difference(b.get(metric), digits[metric]) for metric in metrics)]
                for b in beside.values()
            ]
            block += [*above, [name, *cells], *below]
        lines += [[*([dataset, split] if i == 0 else ["", ""]), *cells] for i, cells in enumerate(block)]
        details = dict.fromkeys(rest(row.split) for row in here if rest(row.split))
        for detail in details:
            of = dict.fromkeys(row.preset for row in here if rest(row.split) == detail)
            named = [f", {method}" for method in of if is_ours(method, presets) or method.startswith("**")]
            notes.append(f"- {dataset}, {split}{''.join(named) if len(details) > 1 else ''}: {detail}")
    notes += definitions(rows)
    notes += [f"- ±: {SPREAD}" for row in rows if row.std is not None]
    table = markdown(["data set", "split", "", *metrics], lines)
    folded = ["<details><summary>Splits and metrics, exactly</summary>", "", *dict.fromkeys(notes), "", "</details>"]
    return "\n".join([table, "", *folded]) + "\n"


def definitions(rows: Sequence[Row]) -> list[str]:
    """Return a line per metric and definition; it names the data sets if those of the definitions differ."""
    found: dict[str, dict[str, dict[str, None]]] = {}  # metric → definition → data sets
    for row in rows:
        of_metric = found.setdefault(row.metric, {})
        of_metric.setdefault(row.definition.removesuffix(f"; {SPREAD}"), {})[row.dataset] = None
    lines = []
    for metric, by_definition in found.items():
        several = len({tuple(datasets) for datasets in by_definition.values()}) > 1
        for definition, datasets in by_definition.items():
            lines.append(f"- {metric}{''.join(f', {name}' for name in datasets if several)}: {definition}")
    return lines


def as_guest(row: Row) -> Row:
    """Return a row for a page of another project: named after its paper, without the published value."""
    if row.paper not in PROJECTS:
        return row
    name = f"**[{row.paper}](../{row.paper}/README.md)**"
    return replace(row, preset=name, split=row.split.removeprefix("test; "), published=None, source=None)


def presets_of(folder: Path) -> set[str]:
    """Return the names of a project's presets, read from its source."""
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("src/*/presets.py"))
    return set(re.findall(r"^def ([a-z]\w*)\(", text, re.MULTILINE))


def is_ours(method: str, presets: set[str]) -> bool:
    """Return whether a row's `preset` is one of the project's, for raw or averaged weights, and not a baseline."""
    return method.removesuffix("_ema") in presets


def called(method: str, dataset: str) -> str:
    """Return the name of a trained network, with its preset if this adds something to the data set's name."""
    preset = method.removesuffix("_ema")
    words = set(re.split(r"\W+|_", dataset.lower().replace("×", "x")))
    named = "ours" if set(preset.split("_")) <= words else f"ours, preset {preset}"
    return f"{named}, averaged weights" if method.endswith("_ema") else named


def short(split: str) -> str:
    """Return a split's name, without its numbers if these would widen the table."""
    return split if len(split) <= LONGEST_SPLIT else split.partition(", ")[0]


def rest(split: str) -> str:
    """Return the part that `short` leaves out."""
    return split.removeprefix(short(split)).removeprefix(", ")


def value(row: Row | None, digits: int) -> str:
    """Return the measured value as text, with its standard deviation over seeds."""
    if row is None:
        return ""
    return f"{row.value:,.{digits}f}" + ("" if row.std is None else f" ± {row.std:.{digits}f}")


def published(row: Row | None, digits: int) -> str:
    """Return the published value as text, with the same number of digits."""
    return "" if row is None or row.published is None else f"{row.published:.{digits}f}"


def difference(row: Row | None, digits: int) -> str:
    """Return measured minus published as text."""
    return "" if row is None or row.published is None else f"{row.value - row.published:+.{digits}f}"


if __name__ == "__main__":
    main()
