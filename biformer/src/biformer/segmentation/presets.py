"""One preset per published ADE20K experiment, and the demo.

The values are those of the authors' configuration files, which follow UniFormer's and CSWin's. UPerNet's 160,000
updates and its interval of validation are from a base file of mmsegmentation, to which the release refers but which it
does not contain. All four experiments used 8 GPUs. Learning rates are for the global batch size given here and are not
scaled. The small model started from the released ImageNet weights; for the base model this is unconfirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Literal

from biformer.segmentation.model import Head
from common.config import BatchSize, Fraction, LoaderConfig, Positive


@dataclass(frozen=True, kw_only=True)
class Config(LoaderConfig):
    """Flags of the training of a segmentation network. A step is one optimiser update."""

    model: str = "biformer_small"
    """Variant: biformer_tiny, biformer_small, biformer_base or biformer_stl."""
    head: Head = "semantic_fpn"
    """semantic_fpn, or upernet with its auxiliary head."""
    weights: Path | None = None
    """ImageNet weights of the backbone: a model folder of train.py or the authors' released file."""
    num_regions: Positive[int] = 8
    """Regions along each side of a map."""
    head_width: Positive[int] | None = None
    """Channels of the head; by default 128 for semantic_fpn, 512 for upernet."""
    image_size: Positive[int] = 512
    """Side of the training crop and shorter side of resized images, in pixels."""
    size_divisor: Positive[int] = 1
    """In evaluation, resized sides are stretched to multiples of this."""
    scale: tuple[Positive[float], Positive[float]] = (0.5, 2.0)
    """Smallest and largest random factor of the resized image."""
    category_share: Fraction[float] = 0.75
    """Largest share of a training crop that one class should cover; up to ten crops are tried."""
    flip: Fraction[float] = 0.5
    """Probability of mirroring."""
    distort: bool = True
    """Change brightness, contrast, saturation and hue at random."""
    iterations: Positive[int] = 80_000
    """Number of optimiser updates."""
    schedule: Literal["cosine", "poly"] = "cosine"
    """How the learning rate falls: half a cosine, or linearly (poly with power 1)."""
    learning_rate: float = 2e-4
    """Learning rate; it is not scaled by the global batch size."""
    final_share: Fraction[float] = 1e-8
    """Last learning rate of the cosine as a share of the first."""
    warmup_iterations: int = 1000
    """Number of updates at the start during which the learning rate rises linearly."""
    warmup_share: Fraction[float] = 0.1
    """Learning rate of the first update as a share of the full one."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    decay_norms: bool = True
    """Apply weight decay to the backbone's LayerNorms too; biases and BatchNorms always have it, as released."""
    clip: Positive[float] | None = None
    """Largest global norm of the gradient."""
    drop_path: Fraction[float] = 0.15
    """Stochastic depth of the backbone's last block."""
    dropout: Fraction[float] = 0.1
    """Probability of dropping a whole channel before a classifier."""
    freeze_batch_norm: bool = False
    """Keep the statistics of the backbone's BatchNorms; the authors update them, synchronised over the GPUs."""
    grad_checkpointing: bool = False
    """Recompute the backbone's blocks in the backward pass: less memory, a third more time."""
    validate_every: int = 4000
    """Number of updates between two validations."""
    batch_size: BatchSize[int] = 4
    save_every: int = 2000
    log_every: int = 50


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of the update number `step` (from 0), as in mmcv's `CosineAnnealing` and `poly` hooks."""
    progress = step / config.iterations
    share = 1 - progress
    if config.schedule == "cosine":
        share = config.final_share + (1 - config.final_share) * (1 + cos(pi * progress)) / 2
    if step < config.warmup_iterations:
        share *= 1 - (1 - step / config.warmup_iterations) * (1 - config.warmup_share)
    return config.learning_rate * share


def sfpn_small() -> Config:
    """ADE20K, Semantic FPN on the small model: 80,000 updates, global batch 32.

    accelerate launch --num_processes 8 biformer/segmentation/train.py --preset sfpn_small --data-root DIR
    --weights biformer_small.pth --mixed-precision fp16
    Expected: 48.9 mIoU (published; not yet measured here).
    """
    return Config(size_divisor=32)


def sfpn_base() -> Config:
    """ADE20K, Semantic FPN on the base model: 80,000 updates, global batch 32.

    accelerate launch --num_processes 8 biformer/segmentation/train.py --preset sfpn_base --data-root DIR
    --weights biformer_base.pth --mixed-precision fp16
    Expected: 49.9 mIoU (published; not yet measured here).
    """
    return Config(model="biformer_base", size_divisor=32, drop_path=0.3)


def upernet_small() -> Config:
    """ADE20K, UPerNet on the small model: 160,000 updates, global batch 16.

    accelerate launch --num_processes 8 biformer/segmentation/train.py --preset upernet_small --data-root DIR
    --weights biformer_small.pth --mixed-precision fp16
    Expected: 49.8 mIoU, multi-scale 50.8 (published; not yet measured here).
    """
    return _upernet("biformer_small", drop_path=0.3)


def upernet_base() -> Config:
    """ADE20K, UPerNet on the base model: 160,000 updates, global batch 16.

    accelerate launch --num_processes 8 biformer/segmentation/train.py --preset upernet_base --data-root DIR
    --weights biformer_base.pth --mixed-precision fp16
    Expected: 51.0 mIoU, multi-scale 51.7 (published; not yet measured here).
    """
    return _upernet("biformer_base", drop_path=0.4)


def demo() -> Config:
    """Cups, cats and coins pasted on bricks, grass and galaxies, from photographs that scikit-image installs.

    accelerate launch biformer/segmentation/train.py
    Expected: about 90 mIoU on other scenes, after less than a minute of one CPU core.
    """
    return Config(
        model="biformer_tiny",
        num_regions=3,
        head_width=64,
        image_size=96,
        size_divisor=32,
        scale=(0.9, 1.3),
        category_share=1.0,
        distort=False,
        iterations=100,
        learning_rate=1.5e-3,
        warmup_iterations=10,
        clip=5.0,
        drop_path=0.0,
        validate_every=50,
        batch_size=6,
        workers=1,
        save_every=50,
        log_every=10,
    )


def _upernet(model: str, drop_path: float) -> Config:
    """What the two UPerNet experiments share."""
    return Config(
        model=model,
        head="upernet",
        iterations=160_000,
        schedule="poly",
        learning_rate=6e-5,
        warmup_iterations=1500,
        warmup_share=1e-6,
        weight_decay=0.01,
        decay_norms=False,
        drop_path=drop_path,
        batch_size=2,
        validate_every=16_000,
    )


PRESETS: dict[str, Callable[[], Config]] = {
    preset.__name__: preset for preset in (demo, sfpn_small, sfpn_base, upernet_small, upernet_base)
}
