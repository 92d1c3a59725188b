"""One preset per published experiment, and the demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from common.config import BelowOne, LoaderConfig, Positive


@dataclass(frozen=True, kw_only=True)
class Config(LoaderConfig):
    """What training FFTformer depends on."""

    model: str = "fftformer"
    """Variant of the network: fftformer (released, 16.6 M parameters) or fftformer_tiny."""
    conjugate: bool = False
    """Attention as correlation, as in the paper's text; the released code uses convolution."""
    network: tuple[str, ...] = ()
    """Further keywords of the network as KEY=VALUE; the class FFTformer explains them."""
    weights: Path | None = None
    """Start from these weights: a model folder or the authors' released file."""
    layout: str = "auto"
    """Layout of --data-root: auto, gopro, hide, realblur_j, realblur_r, input_target, crops, pairs or levin."""
    crop: Positive[int] = 128
    """Side of the training crops in pixels."""
    saturation_jitter: bool = True
    """Multiply the saturation by 0.8 to 1.2 with probability 1/3, as released (only training images)."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """The release trains with AdamW; the paper names Adam."""
    learning_rate: float = 1e-3
    """Learning rate at the start; it falls to --final-learning-rate by a cosine. Small global batches need less."""
    final_learning_rate: float = 1e-7
    """Learning rate at the end."""
    weight_decay: float = 1e-3
    """Weight decay of the optimiser."""
    betas: tuple[BelowOne[float], BelowOne[float]] = (0.9, 0.9)
    """Decay rates of the optimiser's two moments."""
    iterations: Positive[int] = 300_000
    """Number of optimiser updates."""
    clip: Positive[float] = 0.01
    """Largest global norm of the gradient."""
    frequency_weight: float = 0.1
    """Weight of the L1 loss between spectra; the L1 loss between images has weight 1."""
    ema: BelowOne[float] = 0.0
    """Decay of an average of the weights, which is validated and exported instead of the weights; 0 is off."""
    validate_every: int = 20_000
    """Optimiser updates between two validations on whole images."""
    validation: Literal["test", "held_out"] = "test"
    """What is scored during training. test: images of the test split, as in the release; no weights are selected
    with them. held_out: pairs of the training split that are not used for training; OUTPUT/model_best has the weights
    with the best score on them."""
    validation_pictures: Positive[int] = 20
    """Number of validation images, evenly spread over the split."""


def demo() -> Config:
    """Real photographs with synthetic camera shake, a small network, two minutes on two CPU cores.

    accelerate launch fftformer/train.py
    Expected: 26.2 dB on held-out photographs and shakes; the blurred input has 25.0 dB (results/demo.json).
    """
    return Config(
        model="fftformer_tiny",
        saturation_jitter=False,
        crop=64,
        batch_size=4,
        workers=1,
        iterations=500,
        learning_rate=2e-3,
        clip=1.0,
        ema=0.98,
        save_every=100,
        validate_every=250,
        validation_pictures=6,
    )


def gopro_released() -> Config:
    """GoPro with the authors' released configuration: 300,000 updates, crops of 128, global batch 64.

    accelerate launch --num_processes 8 fftformer/train.py --preset gopro_released --data-root DIR
    Eight GPUs with 8 crops each. On fewer GPUs, keep the global batch of 64 with --gradient-accumulation, or use a
    lower learning rate. The authors report that training collapses with small batches at this learning rate.
    Expected: 34.21 dB on GoPro (published; not yet measured here).
    """
    return Config(save_every=5_000)


def gopro_paper() -> Config:
    """GoPro as in the paper's text: 600,000 updates, crops of 256, Adam.

    accelerate launch --num_processes 8 fftformer/train.py --preset gopro_paper --data-root DIR
    The text does not state a batch size; this preset uses the release's global batch of 64.
    Expected: not measured here.
    """
    return replace(gopro_released(), crop=256, iterations=600_000, optimizer="adam", weight_decay=0.0)


def realblur_j() -> Config:
    """RealBlur-J, starting from the GoPro weights: 300,000 updates, crops of 256, global batch 16.

    accelerate launch --num_processes 8 fftformer/train.py --preset realblur_j --data-root DIR --weights fftformer_gopro
    Expected: 32.62 dB after alignment (published; not yet measured here).
    """
    return replace(gopro_released(), layout="realblur_j", crop=256, batch_size=2, learning_rate=4e-4)


def realblur_r() -> Config:
    """RealBlur-R, starting from the GoPro weights: 300,000 updates, crops of 256, global batch 16.

    accelerate launch --num_processes 8 fftformer/train.py --preset realblur_r --data-root DIR --weights fftformer_gopro
    Expected: 40.11 dB after alignment (published; not yet measured here).
    """
    return replace(realblur_j(), layout="realblur_r")


PRESETS: dict[str, Callable[[], Config]] = {
    preset.__name__: preset for preset in (demo, gopro_released, gopro_paper, realblur_j, realblur_r)
}
