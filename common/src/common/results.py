"""Result rows: one measured number each, with everything needed to measure it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common import environment
from common.errors import UserError
from common.files import write_json

SPREAD = "mean ± standard deviation over seeds (population, divided by n)"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured value beside the published one.

    Attributes:
        split: which samples were scored, for example "test" or "random 10 %".
        definition: exactly which metric: averaging, window, data range.
        std: over `seeds`, when there are several.
        published: the paper's value, None where the paper gives none; `source` says where it stands.
        command, commit, versions, device: filled by `measured`.
    """

    paper: str
    preset: str
    dataset: str
    split: str
    metric: str
    definition: str
    value: float
    std: float | None = None
    seeds: list[int] = field(default_factory=list)
    published: float | None = None
    source: str | None = None
    command: str = ""
    commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""


def measured(rows: Iterable[Row], device: torch.device | str) -> list[Row]:
    """Return the rows with this process's command, commit, versions and device."""
    provenance = environment.provenance(device)
    return [dataclasses.replace(row, **provenance) for row in rows]


def write_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list, atomically; a field without a value is left out."""
    write_json(path, [{k: v for k, v in dataclasses.asdict(row).items() if v not in (None, [], {})} for row in rows])


def read_rows(path: str | Path) -> list[Row]:
    """Read rows written by `write_rows`.

    Raises:
        UserError: the file is missing or does not hold result rows.
    """
    try:
        return [Row(**row) for row in json.loads(Path(path).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected result rows") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: does not hold result rows ({error})") from None


def table(rows: Sequence[Row], extra: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a Markdown table: measured beside published, with their difference.

    Args:
        extra: further columns by title, one cell per row.
    """
    extra = extra or {}
    titles = ["data set", "split", "metric", "measured", "published", "difference", *extra]
    cells = []
    for i, row in enumerate(rows):
        spread = "" if row.std is None else f" ± {row.std:.2f}"
        digits = 2 if abs(row.value) >= 10 else 4
        published = "" if row.published is None else f"{row.published:.{digits}f}"
        difference = "" if row.published is None else f"{row.value - row.published:+.{digits}f}"
        more = [column[i] for column in extra.values()]
        measured_value = f"{row.value:.{digits}f}{spread}"
        cells.append([row.dataset, row.split, row.metric, measured_value, published, difference, *more])
    return markdown(titles, cells)


def digits(values: Iterable[float]) -> int:
    """Decimal places of a column: none for thousands, two for percentages and decibels, four below ten."""
    largest = max(map(abs, values))
    return 0 if largest >= 1000 else 2 if largest >= 10 else 4


def markdown(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table."""
    widths = [max(len(line[i]) for line in [titles, *cells]) for i in range(len(titles))]
    lines = [titles, ["-" * width for width in widths], *cells]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)
