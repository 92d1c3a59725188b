"""Make one table and one figure of the results of all demos.

    python ci/demo_summary.py                         reads runs/<paper>_demo, writes runs/demo.md and runs/demo.png
    python ci/demo_summary.py --failed fftformer      this demo has just failed

The table names demos that failed or have not run; the exit status is then 1.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from common.config import parse
from common.errors import UserError, command
from common.figures import save
from common.files import atomic_path
from common.results import Row, markdown, read_rows
from projects import PROJECTS

# The sheet has three rows. Its width, the gaps in a row and the height of the titles are in inches.
ROWS, WIDTH, GAP, TITLES = 3, 16, 0.2, 0.9


@dataclass(frozen=True)
class Demo:
    """The files with a demo's numbers and image, and how they relate to the paper.

    Attributes:
        paper: the project.
        folder: folder of the task in the run's folder, for a project with several tasks.
        title: name in the table and the sheet.
        job: what the network does, for the image's title.
        rows: file of result rows in the run's folder.
        metrics: names of the metrics to show.
        picture: a figure of the run, of which the upper `part` (0 to 1) is shown.
        published: the paper's value of the first metric with its data; empty if none was accessible.
        differs: differences between the demo and the paper's experiment.
    """

    paper: str
    folder: str
    title: str
    job: str
    rows: str
    metrics: tuple[str, ...]
    picture: str
    part: float
    published: str
    differs: str


def find_demos() -> dict[str, Demo]:
    """Return folder below `runs` → demo, from the projects' `pyproject.toml` files."""
    return {
        (Path(f"{paper}_demo") / demo["folder"]).as_posix(): Demo(
            **{**demo, "metrics": tuple(demo["metrics"])}, paper=paper
        )
        for paper, settings in PROJECTS.items()
        for demo in settings["demos"]
    }


DEMOS = find_demos()


@dataclass(frozen=True, kw_only=True)
class SummaryConfig:
    """Flags of this script."""

    runs: Path = Path("runs")
    """Folder that contains <paper>_demo; demo.md and demo.png are written to it."""
    failed: tuple[str, ...] = ()
    """Projects whose demos have just failed; the older results in their folders are not shown."""


@command
def main() -> None:
    """Read the results, print and write the summary."""
    options = parse(SummaryConfig, __doc__)
    lines: list[list[str]] = []
    titles: dict[str, str] = {}
    missing: list[str] = []
    for name, demo in DEMOS.items():
        paper = demo.paper
        try:
            if paper in options.failed:
                raise UserError(f"the demo of {paper} failed; nox -s demo-{paper} repeats it")
            found = numbers(demo, options.runs / name)
        except UserError as problem:
            missing.append(f"{problem}")
            lines.append([demo.title, "**no result**", *[""] * 4])
            continue
        _, metric, measured, baseline = found[0]
        beside = f" ({baseline})" if baseline else ""
        titles[name] = f"{demo.title}\n{demo.job}\n{metric} {measured}{beside}"
        for i, cells in enumerate(found):
            lines.append([demo.title if i == 0 else "", *cells, demo.published if i == 0 else ""])
    table = markdown(["paper", "data", "metric", "measured", "baseline", "published, on what"], lines)
    differs = [f"- {demo.title}: {demo.differs}" for demo in DEMOS.values()]
    text = "\n".join([table, "", "What differs from the published experiments:", "", *differs])
    if missing:
        text += "\n\n" + "\n".join(missing)
    sheet = contact_sheet(options.runs, titles, options.runs / "demo.png")
    with atomic_path(options.runs / "demo.md") as temporary:
        temporary.write_text(f"# The demos\n\n{text}\n\n![images](demo.png)\n", encoding="utf-8")
    print(f"\n{text}\n\ntable: {options.runs / 'demo.md'}; figure: {sheet}")
    sys.exit(1 if missing else 0)


def numbers(demo: Demo, folder: Path) -> list[list[str]]:
    """Return data, metric, measured value and baseline, one line per metric.

    Raises:
        UserError: the demo's rows are missing.
    """
    rows = read_rows(folder / demo.rows)
    lines: list[list[str]] = []
    for metric in demo.metrics:
        ours, *others = [row for row in rows if row.metric == metric and row.split == rows[0].split]
        baseline = f"{value(others[0])} {others[0].preset}" if others else chance(folder, metric)
        lines.append([ours.dataset if not lines else "", metric, value(ours), baseline])
    return lines


def value(row: Row) -> str:
    """Return the value as text, with its standard deviation over seeds."""
    digits = 2 if abs(row.value) >= 10 else 4
    return f"{row.value:.{digits}f}" + (f" ± {row.std:.2f}" if row.std is not None else "")


def chance(folder: Path, metric: str) -> str:
    """Return a baseline without a network: the most frequent class, or guessing."""
    if metric == "OA":
        scores = json.loads(next(folder.glob("seed_*/scores.json")).read_text(encoding="utf-8"))
        pixels = np.array(scores["confusion"]).sum(axis=1)
        return f"{100 * pixels.max() / pixels.sum():.2f} largest class"
    if metric == "top-1":
        model = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        return f"{100 / len(model['class_names']):.2f} guessing"
    return "0 guessing" if metric == "kappa" else ""


def contact_sheet(runs: Path, titles: dict[str, str], path: Path) -> Path:
    """Draw one image per demo, in rows of one width; the images of a row have the same height."""
    pictures = {name: picture(runs / name, demo, name in titles) for name, demo in DEMOS.items()}
    names = list(DEMOS)
    shapes = {name: image.shape[1] / image.shape[0] for name, image in pictures.items()}
    # Break the rows where their widths, at equal height, differ least.
    breaks = [(0, *inner, len(names)) for inner in combinations(range(1, len(names)), ROWS - 1)]
    divided = [[names[start:end] for start, end in pairwise(ends)] for ends in breaks]
    rows = min(divided, key=lambda rows: sum(sum(shapes[name] for name in row) ** 2 for row in rows))
    heights = [(WIDTH - GAP * (len(row) - 1)) / sum(shapes[name] for name in row) for row in rows]
    whole = top = sum(heights) + TITLES * len(rows)
    figure = Figure(figsize=(WIDTH, whole), dpi=100)
    for row, height in zip(rows, heights, strict=True):
        top -= TITLES + height
        left = 0.0
        for name in row:
            width = height * shapes[name]
            axis = figure.add_axes((left / WIDTH, top / whole, width / WIDTH, height / whole))
            axis.imshow(pictures[name], interpolation="antialiased", aspect="auto")
            axis.set_title(titles.get(name, f"{DEMOS[name].title}\nthe demo has no result"), fontsize=13)
            axis.axis("off")
            left += width + GAP
    return save(figure, path)


def picture(folder: Path, demo: Demo, finished: bool) -> np.ndarray:
    """Return the upper part of the demo's figure, `(H, W, 3)`; white if there is none."""
    if not finished or not (folder / demo.picture).exists():
        return np.full((100, 400, 3), 255, dtype=np.uint8)
    with Image.open(folder / demo.picture) as image:
        return np.asarray(image.convert("RGB").crop((0, 0, image.width, round(demo.part * image.height))))


if __name__ == "__main__":
    main()
