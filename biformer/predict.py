"""Name the class of a picture or of a folder of pictures, as CSV.

    python biformer/predict.py --checkpoint runs/biformer_demo/model --input photos --output labels.csv
    python biformer/predict.py --checkpoint biformer_small.pth --input photo.jpg --output label.csv --routing r.png

One line per picture: file, then class and probability of the `--top` likeliest. Class names come
from the model folder; released files have ImageNet's. `--routing` draws which regions a query
attends to, stage by stage, over the first pictures.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from timm.data import ImageNetInfo
from torch import Tensor
from tqdm.auto import tqdm

from biformer.augmentation import check_image_size, evaluation_transform
from biformer.checkpoints import load_model
from biformer.data import UnreadablePicture, list_pictures, reading, relative
from biformer.model import BiFormer
from biformer.pictures import routing_figure
from common import config
from common.config import Fraction, Positive
from common.environment import choose_device
from common.errors import UserError, command
from common.figures import save
from common.files import atomic_path, printable
from common.images import read_rgb


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of this script."""

    checkpoint: Path
    """A run's folder or its model folder, the authors' released file, or a name of docs/weights.md."""
    input: Path
    """A picture, or a folder whose pictures are taken at any depth."""
    output: Path
    """The CSV file."""
    existing: Literal["refuse", "skip", "replace"] = "refuse"
    """What to do where an output exists: refuse to start, skip everything (it is finished), or replace it."""
    top: Positive[int] = 3
    """How many classes to name per picture."""
    image_size: Positive[int] | None = None
    """Side of the crop in pixels; by default what the model was trained for."""
    routing: Path | None = None
    """PNG of the regions that --query attends to, for the first --routing-pictures pictures."""
    routing_pictures: Positive[int] = 4
    """How many pictures that shows."""
    query: tuple[Fraction[float], Fraction[float]] = (0.45, 0.5)
    """Place of the query: shares of height and width, in [0, 1)."""
    strict: bool = False
    """Refuse pictures that cannot be read, instead of leaving them out and counting them."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint that holds both."""
    batch_size: Positive[int] = 32
    """Pictures per forward pass."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:1."""


@command
def main() -> None:
    """Classify everything that can be read; say how much could not."""
    options = config.parse(PredictConfig, __doc__)
    if check(options):
        print(f"{options.output}: exists already, nothing to do")
        return
    device = choose_device(options.device)
    files = list_pictures(options.input, outside=options.output)
    model = load_model(options.checkpoint, ema=options.ema).float().to(device)
    names = class_names(model)
    size = options.image_size or model.image_size
    check_image_size(size, model)
    transform = evaluation_transform(size, model.crop_pct)
    lines: list[list[str]] = []
    shown: list[tuple[str, Tensor]] = []
    unreadable: list[str] = []
    top = min(options.top, len(names))
    with tqdm(total=len(files), unit="picture", desc="classifying") as bar:
        for start in range(0, len(files), options.batch_size):
            batch = []
            for file in files[start : start + options.batch_size]:
                try:
                    with reading(file):
                        batch.append((relative(file, options.input), transform(read_rgb(file))))
                except UnreadablePicture as error:
                    if options.strict:
                        raise UserError(f"{error}; remove it, or leave out --strict to skip it") from None
                    unreadable.append(str(error))
                    tqdm.write(f"error: {error}")
                bar.update()
            if not batch:
                continue
            with torch.inference_mode():
                shares = model(torch.stack([image for _, image in batch]).to(device)).float().softmax(dim=1).cpu()
            for (name, _), share in zip(batch, shares, strict=True):
                best = share.topk(top)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                lines.append([name, *(cell for i, value in pairs for cell in (names[i], f"{value:.4f}"))])
            shown += batch[: options.routing_pictures - len(shown)]
    if not lines:
        raise UserError(f"{options.input}: none of {len(files)} pictures could be read, the first: {unreadable[0]}")
    write_csv(options.output, lines, top)
    if options.routing is not None:
        images = torch.stack([image for _, image in shown]).to(device)
        save(routing_figure(model, images, [options.query] * len(shown), [name for name, _ in shown]), options.routing)
    left_out = f", {len(unreadable)} could not be read and are left out" if unreadable else ""
    print(f"{len(lines)} of {len(files)} pictures classified{left_out}; see {options.output}")


def check(options: PredictConfig) -> bool:
    """Refuse flags that cannot be met, before anything is loaded; whether everything is there and may stay."""
    wanted = [path for path in (options.output, options.routing) if path is not None]
    there = [printable(path) for path in wanted if path.exists()]
    if options.existing == "skip" and len(there) == len(wanted):
        return True
    if there and options.existing == "refuse":
        raise UserError(
            f"{', '.join(there)}: exists already; add --existing skip or --existing replace, or choose another name"
        )
    if options.top < 1 or options.routing_pictures < 1 or options.batch_size < 1:
        raise UserError("--top, --routing-pictures and --batch-size must be at least 1")
    if not all(0 <= share < 1 for share in options.query):
        raise UserError(f"--query {options.query[0]} {options.query[1]}: expected shares of height and width in [0, 1)")
    return False


def class_names(model: BiFormer) -> list[str]:
    """Readable names of the model's classes: its own, ImageNet's for 1,000 unnamed ones, else their numbers."""
    info = ImageNetInfo("imagenet-1k")
    if model.class_names is None and model.num_classes == 1000:
        return [info.index_to_description(i) for i in range(1000)]
    if model.class_names is not None and model.class_names == info.label_names():
        return [info.index_to_description(i) for i in range(1000)]
    return model.class_names or [f"class {i}" for i in range(model.num_classes)]


def write_csv(path: Path, lines: list[list[str]], top: int) -> None:
    """Write file, class, probability, class 2, probability 2 and so on."""
    further = [f"{name} {i}" for i in range(2, top + 1) for name in ("class", "probability")]
    titles = ["file", "class", "probability", *further]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([titles, *lines])


if __name__ == "__main__":
    main()
