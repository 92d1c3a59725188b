"""Write the tables of the READMEs from the measured rows, or check that they say what the rows say.

    python ci/tables.py            write
    python ci/tables.py --check    change nothing; exit with 1 and name what differs

A README holds a table between two comments, the first of which names the row files beside it:

    <!-- rows: results/demo.json results/levin09.json -->
    <!-- end of rows -->

Every file in results/ must stand in such a comment, and every row must carry the command, seeds
(unless it scores the authors' weights), commit, versions and device that it was measured with.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import UserError, command
from common.results import Row, markdown, read_rows

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- rows: (?P<files>[^>]*?) -->\n).*?(<!-- end of rows -->)", re.DOTALL)
PROVENANCE = ("command", "seeds", "commit", "versions", "device")


@command
def main() -> None:
    """Go through the READMEs."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        raise UserError(f"unknown argument {' '.join(sys.argv[1:])}; there is only --check")
    stale = []
    for readme in sorted(ROOT.glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        if (new := filled(text, readme.parent)) != text:
            stale.append(readme.relative_to(ROOT).as_posix())
            if not check:
                readme.write_text(new, encoding="utf-8")
                print(f"written: {stale[-1]}")
    if check and stale:
        raise UserError(f"{', '.join(stale)}: the tables are not what the rows say; run nox -s tables")


def filled(text: str, folder: Path) -> str:
    """A README's text with its tables as the rows below `folder` have them.

    Raises:
        UserError: a file of rows that no table names, or a row without its provenance.
    """
    named = {folder / name for block in BLOCK.finditer(text) for name in block["files"].split()}
    if forgotten := sorted(path.name for path in set(folder.glob("results/*.json")) - named):
        raise UserError(f"{folder}: no table of the README names {', '.join(forgotten)}; add a rows comment")
    return BLOCK.sub(lambda block: block[1] + tables(read_all(folder, block["files"])) + block[3], text)


def read_all(folder: Path, files: str) -> list[Row]:
    """Rows of several files, each with its provenance.

    Raises:
        UserError: a row lacks something, or was measured on a modified checkout.
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


def tables(rows: Sequence[Row]) -> str:
    """One table with a column per metric, then the definitions of the metrics."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    lines = []
    for dataset, split, method in dict.fromkeys((row.dataset, row.split, row.preset) for row in rows):
        chosen = {row.metric: row for row in rows if (row.dataset, row.split, row.preset) == (dataset, split, method)}
        lines.append([dataset, split, method, *(value(chosen.get(metric)) for metric in metrics)])
        sources = dict.fromkeys(row.source for row in chosen.values() if row.published is not None)
        for source in sources:
            beside = {m: row for m, row in chosen.items() if row.published is not None and row.source == source}
            lines.append(["", "", f"*{source}*", *(published(beside.get(metric)) for metric in metrics)])
            lines.append(["", "", "*difference*", *(difference(beside.get(metric)) for metric in metrics)])
    definitions = dict.fromkeys((row.metric, row.definition) for row in rows)
    table = markdown(["data set", "split", "preset or baseline", *metrics], lines)
    return "\n".join([table, "", *bullets(definitions)]) + "\n"


def bullets(definitions: Iterable[tuple[str, str]]) -> list[str]:
    """One line per metric and definition."""
    return [f"- {metric}: {definition}" for metric, definition in definitions]


def value(row: Row | None) -> str:
    """What was measured, with its spread over seeds."""
    if row is None:
        return ""
    return number(row, row.value) + ("" if row.std is None else f" ± {number(row, row.std)}")


def published(row: Row | None) -> str:
    """What stands elsewhere, in as many digits."""
    return "" if row is None or row.published is None else number(row, row.published)


def difference(row: Row | None) -> str:
    """Measured minus published."""
    return "" if row is None or row.published is None else f"{row.value - row.published:+.{digits(row)}f}"


def number(row: Row, of: float) -> str:
    """In the row's number of digits."""
    return f"{of:.{digits(row)}f}"


def digits(row: Row) -> int:
    """Two for percentages and decibels, four for what is below ten."""
    return 2 if abs(row.value) >= 10 else 4


if __name__ == "__main__":
    main()
