"""One preset per published experiment, presets for small data, and the demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from common.config import AnyNumber, BelowOne, LoaderConfig, Positive
from common.hyperspectral.scene import BandAxis
from essaformer.scaling import Rule


@dataclass(frozen=True, kw_only=True)
class Config(LoaderConfig):
    """Configuration of a training of ESSAformer."""

    model: str = "essaformer"
    """Variant: essaformer (released form) or essaformer_small (global residual, no dropout)."""
    dim: Positive[int] | None = None
    """Channels inside the network; by default the variant's."""
    dropout: BelowOne[float] | None = None
    """Share of channels dropped in training; by default the variant's."""
    global_residual: bool | None = None
    """Add the bicubically enlarged input to the output; by default as the variant does."""
    order: int = 1
    """Order of the attention's Taylor series: 1 as released, 0 or 2."""
    network: tuple[str, ...] = ()
    """Keywords of the class ESSAformer as KEY=VALUE; they replace values of other flags."""
    weights: Path | None = None
    """Start from the network in this model folder or released file."""
    dataset: str = "chikusei"
    """chikusei, pavia_centre, cave, harvard, abu, jasper_ridge, pavia_crop, muufl or demo."""
    cube: str | None = None
    """FILE[:KEY] of your own scene instead of a data set: MATLAB, NumPy, ENVI or GeoTIFF."""
    band_axis: BandAxis | None = None
    """Axis of the bands of --cube: first or last."""
    no_data: AnyNumber[float] | None = None
    """Value of pixels without data in --cube; by default as its file declares. NaN always means no data."""
    test_scene: str | None = None
    """The test scene of abu, by default abu-airport-1. The other four are for training, except the last third of the
    last one, which is for validation."""
    scale: Positive[int] = 4
    """Factor of the super-resolution: 2, 3, 4 or 8."""
    scaling: Rule = "maximum"
    """Divide a scene by its maximum, by a percentile of its values, or by a constant."""
    scaling_value: float = 0.0
    """The percentile or the constant."""
    crop: Positive[int] = 64
    """Side of the high-resolution training patches in pixels."""
    stride: Positive[int] = 32
    """Distance between training patches in pixels; 1: a patch at every position."""
    learning_rate: float = 1e-4
    """Adam's learning rate at the start."""
    schedule: Literal["step", "cosine"] = "step"
    """step: times 0.1 after three quarters of the updates (published: epoch 30 of 40). cosine: a short rise,
    then a fall to zero."""
    epochs: Positive[int] = 40
    """Passes over the patches, if --iterations is 0."""
    iterations: int = 0
    """Optimiser updates of the whole schedule; replaces --epochs if above 0."""
    spatial_tv: float = 1e-3
    """Weight of the total variation in space."""
    spectral_tv: float = 1e-3
    """Weight of the total variation along the spectrum."""
    gradient_checkpointing: bool = False
    """Recompute encoder steps in the backward pass: less memory, about a third more time."""
    validate_every: int = 2_000
    """Optimiser updates between two validations on the validation regions; 0: one at the end only."""


def demo() -> Config:
    """A synthetic scene, ×2, a narrow network, half a minute on two CPU cores.

    accelerate launch essaformer/train.py
    Expected: about 43 dB on the test region, bicubic 41.3 dB.
    """
    return replace(
        small("demo", 2, iterations=400), dim=32, crop=32, stride=4, learning_rate=1e-3, validate_every=200,
        save_every=100,
    )  # fmt: skip


def sspsr(dataset: str, scale: int) -> Config:
    """The `sspsr` recipe: Adam 1e-4, 40 epochs, batch 32, L1 with total variation, the released form."""
    crop = 16 * scale if scale > 2 else 64
    return Config(dataset=dataset, scale=scale, crop=crop, stride=crop // 2, batch_size=32)


def chikusei_x4() -> Config:
    """Chikusei ×4, the released network of width 256 and the `sspsr` recipe: patches of 64, stride 32.

    accelerate launch --num_processes 1 essaformer/train.py --preset chikusei_x4 --data-root DIR --mixed-precision bf16
    One patch of 64 × 64 takes about 0.25 GiB beyond the weights in float32 on a CPU; if a batch of 32 does not
    fit, use --batch-size 8 --gradient-accumulation 4. Expected: not measured here.
    """
    return sspsr("chikusei", 4)


def chikusei_x8() -> Config:
    """Chikusei ×8: patches of 128, stride 64. Expected: not measured here."""
    return sspsr("chikusei", 8)


def pavia_centre_x4() -> Config:
    """Pavia Centre ×4, divided by 8,000. Expected: not measured here."""
    return replace(sspsr("pavia_centre", 4), scaling="constant", scaling_value=8_000)


def cave_x4() -> Config:
    """CAVE ×4, divided by 65,535. Expected: not measured here."""
    return replace(sspsr("cave", 4), scaling="constant", scaling_value=65_535)


def cave_x8() -> Config:
    """CAVE ×8, divided by 65,535. Expected: not measured here."""
    return replace(sspsr("cave", 8), scaling="constant", scaling_value=65_535)


def harvard_x4() -> Config:
    """Harvard ×4, each scene divided by its maximum. Expected: not measured here."""
    return sspsr("harvard", 4)


def small(dataset: str, scale: int, iterations: int = 300) -> Config:
    """Small data: width 64, global residual from zero, no dropout, L1, Adam 4e-4 with cosine, 99.9 percentile."""
    return Config(
        model="essaformer_small", dataset=dataset, scale=scale, scaling="percentile", scaling_value=99.9,
        crop=48, stride=1, batch_size=8, workers=1, learning_rate=4e-4, schedule="cosine",
        iterations=iterations, spatial_tv=0.0, spectral_tv=0.0, validate_every=250, save_every=250,
    )  # fmt: skip


def abu_x2() -> Config:
    """Four ABU scenes ×2, tested on the fifth.

    accelerate launch essaformer/train.py --preset abu_x2 --data-root DIR --test-scene abu-airport-1
    About 13 minutes on one CPU thread. Expected: 43.1 dB, bicubic 41.7 dB (measured).
    """
    return small("abu", 2, iterations=1_000)


def abu_x4() -> Config:
    """Four ABU scenes ×4, tested on the fifth. Expected: 37.6 dB, bicubic 37.4 dB (measured)."""
    return small("abu", 4, iterations=400)


def abu_released_x2() -> Config:
    """The released form (dropout, no residual) on four ABU scenes ×2; they are too few for it.

    Expected: 35.2 dB, bicubic 41.7 dB (measured).
    """
    return replace(abu_x2(), model="essaformer", dim=64, iterations=300)


def abu_released_x4() -> Config:
    """The released form on four ABU scenes ×4. Expected: 33.3 dB, bicubic 37.4 dB (measured)."""
    return replace(abu_x4(), model="essaformer", dim=64, iterations=300)


def jasper_ridge_x2() -> Config:
    """Jasper Ridge ×2: upper 60 % to train and validate, lower 40 % to test.

    Expected: 32.6 dB, bicubic 30.8 dB (measured).
    """
    return small("jasper_ridge", 2)


def jasper_ridge_x4() -> Config:
    """Jasper Ridge ×4. Expected: 26.9 dB, bicubic 25.4 dB (measured)."""
    return small("jasper_ridge", 4)


def pavia_crop_x2() -> Config:
    """The Pavia Centre crop of ABU ×2: upper 60 % to train and validate, lower 40 % to test.

    Expected: 33.0 dB, bicubic 30.4 dB (measured).
    """
    return small("pavia_crop", 2)


def muufl_x2() -> Config:
    """The MUUFL Gulfport crop ×2: upper 60 % to train and validate, lower 40 % to test.

    Expected: 32.1 dB, bicubic 31.4 dB (measured).
    """
    return small("muufl", 2)


PRESETS: dict[str, Callable[[], Config]] = {
    preset.__name__: preset
    for preset in (
        demo, chikusei_x4, chikusei_x8, pavia_centre_x4, cave_x4, cave_x8, harvard_x4, abu_x2, abu_x4,
        abu_released_x2, abu_released_x4, jasper_ridge_x2, jasper_ridge_x4, pavia_crop_x2, muufl_x2,
    )
}  # fmt: skip
