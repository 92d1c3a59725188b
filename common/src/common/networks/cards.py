"""A model card (`README.md`) in every exported model folder: what it is, data, scores, command, commit, licence.

The run writes the card when it exports, and again with the scores when it ends. It never overwrites an edited card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from common.files import atomic_path
from common.results import Row, table, write_rows

_MARK = "\n<!-- Written by the run, which leaves an edited card alone. sha256 of the text above: {} -->\n"


def publish(folder: Path, rows: Sequence[Row]) -> None:
    """Write a run's `results.json`, and put its rows into the cards of all its model folders (also those per seed)."""
    write_rows(folder / "results.json", rows)
    for pattern in ("model*/model.safetensors", "seed_*/model*/model.safetensors"):
        for weights in folder.glob(pattern):
            write_card(weights.parent, rows)


def write_card(model: Path, rows: Sequence[Row] = ()) -> None:
    """Write the card of a model folder in a run's folder, unless somebody has edited it.

    Args:
        model: the folder with `config.json` and `model.safetensors`; the run's `config.json` is one folder above.
        rows: the run's rows; the card shows those of this folder's weights (`_ema` for `model_ema`).
    """
    path = model / "README.md"
    if path.exists():
        there = path.read_text(encoding="utf-8", errors="replace")
        if there != _marked(there.rpartition(_MARK.partition("{")[0])[0]):
            return
    run = json.loads((model.parent / "config.json").read_text(encoding="utf-8"))
    preset = run["config"]["preset"] + model.name.removeprefix("model")
    text = _text(model, run, [row for row in rows if row.preset == preset])
    with atomic_path(path) as temporary:
        temporary.write_text(_marked(text), encoding="utf-8", errors="backslashreplace")


def _text(model: Path, run: dict[str, Any], rows: Sequence[Row]) -> str:
    paper, _, task = run["paper"].partition("_")
    program = f"fullpaper-{paper} {task}".strip()
    try:
        summary = metadata.metadata(f"fullpaper-{paper}")["Summary"]
    except metadata.PackageNotFoundError:  # a checkout on Python's path
        summary = f"A network of the project {paper}."
    architecture = json.loads((model / "config.json").read_text(encoding="utf-8")).get("architecture", paper)
    flags = run["config"]
    given = flags.get("data_root") or flags.get("cube")
    data = ", ".join(dict.fromkeys(row.dataset for row in rows)) or (Path(given).name if given else "the demo's own")
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    scores = f"Not measured by the run; `{program} evaluate --checkpoint FOLDER` does."
    if rows:
        scores = "\n".join([table(rows), "", *dict.fromkeys(f"- {row.metric}: {row.definition}" for row in rows)])
    return f"""\
---
tags: [{paper}]
---

# {architecture}, preset {flags["preset"]}

{summary} `--checkpoint` of `{program} predict` and `{program} evaluate` takes this folder, or its name on the hub.

- data: {data}
- command: `{run["command"]}`
- commit: {run["commit"] or "unknown"}
- versions: {versions}; {run["device"]}
- licence: MIT for the code. The data set has its own licence, which can restrict the use of these weights.

## Scores

{scores}
"""


def _marked(text: str) -> str:
    """The text with our mark, which tells whether somebody has edited it."""
    return text + _MARK.format(hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest())
