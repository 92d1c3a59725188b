"""One preset per published experiment, two small real data sets, and the demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from biformer.model import CROP_SHARE
from common.config import BelowOne, Fraction, LoaderConfig, Positive

SPLITS = Path(__file__).parent / "splits"


@dataclass(frozen=True, kw_only=True)
class Config(LoaderConfig):
    """What training BiFormer depends on. A step is one optimiser update."""

    model: str = "biformer_small"
    """Variant: biformer_tiny, biformer_small, biformer_base or biformer_stl."""
    num_regions: Positive[int] = 7
    """Regions along each side of a map; 7 as released, fewer for small images."""
    network: tuple[str, ...] = ()
    """Keywords of the network as KEY=VALUE, on top of what the other flags say; BiFormer explains them."""
    weights: Path | None = None
    """Start from these weights: a model folder or the authors' released file. Another number of
    classes gets a new classifier."""
    dataset: str = ""
    """A name of timm's dataset factory (torch/cifar100, hfds/owner/name); empty for class folders and zips."""
    split_file: Path | None = None
    """Names of the training and validation images, for a data set that comes in one piece."""
    holdout: Fraction[float] = 0.0
    """Share of every class held out for validation where there is neither a split nor a split file."""
    strict: bool = False
    """Refuse images that cannot be read, instead of skipping and counting them."""
    upright: bool = True
    """Turn images as their EXIF orientation says. The release does not, so ImageNet's presets leave them."""
    image_size: Positive[int] = 224
    """Side of the images in pixels, in training and evaluation."""
    crop_pct: Positive[float] = CROP_SHARE
    """Share of the resized image's side that evaluation keeps."""
    epochs: Positive[int] = 300
    """Passes over the training images, warm-up included."""
    cooldown_epochs: int = 10
    """Further passes at the final learning rate."""
    warmup_epochs: int = 5
    """Passes with a linearly rising learning rate."""
    learning_rate: float = 5e-4
    """For 512 images per update; scaled linearly by the true global batch."""
    final_learning_rate: float = 1e-5
    """At the end of the cosine; not scaled."""
    warmup_learning_rate: float = 1e-6
    """At the first update; not scaled."""
    weight_decay: float = 0.05
    """AdamW's; none on norms and biases."""
    layer_decay: Positive[float] | None = None
    """Factor of the learning rate per block from the classifier down, for fine-tuning."""
    clip: Positive[float] | None = None
    """Largest global norm of the gradient."""
    drop_path: Fraction[float] = 0.15
    """Stochastic depth of the last block."""
    mixup: float = 0.8
    """Alpha of mixup; 0 is off."""
    cutmix: float = 1.0
    """Alpha of CutMix; 0 is off."""
    mixing: Fraction[float] = 1.0
    """Probability that a batch is mixed at all; of mixed batches half get CutMix."""
    smoothing: Fraction[float] = 0.1
    """Label smoothing."""
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    """timm's augmentation string; empty is off."""
    colour_jitter: float = 0.4
    """Strength of brightness, contrast and saturation changes; timm applies it without --auto-augment only."""
    erasing: Fraction[float] = 0.25
    """Probability that a rectangle is replaced by noise."""
    crop_area: Positive[float] = 0.08
    """Smallest share of an image's area in a training crop."""
    crop_ratio: Positive[float] = 0.75
    """Smallest aspect ratio of a training crop; the largest is its inverse."""
    flip: Fraction[float] = 0.5
    """Probability of a horizontal flip."""
    repeats: Positive[int] = 3
    """How often an epoch repeats an image, with other augmentation, in one global batch; 1 is off."""
    ema: BelowOne[float] = 0.99996
    """Decay of the averaged weights, exported to model_ema; 0 is off. The released weights are the raw ones."""
    grad_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""
    validate_epochs: int = 1
    """Epochs between two validations."""
    batch_size: Positive[int] = 128
    workers: int = 8
    save_every: int = 2500
    log_every: int = 50


def imagenet_small() -> Config:
    """ImageNet-1K, small model: 300 epochs, global batch 1,024.

    accelerate launch --num_processes 8 biformer/train.py --preset imagenet_small --data-root DIR
    Expected: 83.8 % top-1 (published; not yet measured here).
    """
    return Config(upright=False)


def imagenet_tiny() -> Config:
    """ImageNet-1K, tiny model. Its drop path of 0.1 is unconfirmed.

    accelerate launch --num_processes 8 biformer/train.py --preset imagenet_tiny --data-root DIR
    Expected: 81.4 % top-1 (published; not yet measured here).
    """
    return Config(model="biformer_tiny", drop_path=0.1, upright=False)


def imagenet_base() -> Config:
    """ImageNet-1K, base model. Its drop path of 0.4 is unconfirmed.

    accelerate launch --num_processes 8 biformer/train.py --preset imagenet_base --data-root DIR
    Expected: 84.3 % top-1 (published; not yet measured here).
    """
    return Config(model="biformer_base", drop_path=0.4, upright=False)


def imagenet_stl() -> Config:
    """ImageNet-1K, the model in Swin-T's layout, as in the paper's ablations.

    accelerate launch --num_processes 8 biformer/train.py --preset imagenet_stl --data-root DIR
    Expected: 82.7 % top-1 (published; not yet measured here).
    """
    return Config(model="biformer_stl", drop_path=0.1, upright=False)


def finetune() -> Config:
    """Your own class folders from ImageNet weights: 30 epochs, layer-wise learning rates.

    accelerate launch biformer/train.py --preset finetune --data-root DIR --weights biformer_small.pth
    The paper fine-tunes no classifier; these are usual numbers, not published ones.
    """
    return Config(
        epochs=30,
        cooldown_epochs=0,
        warmup_epochs=3,
        learning_rate=2.5e-4,
        final_learning_rate=1e-6,
        layer_decay=0.85,
        clip=5.0,
        mixup=0.0,
        mixing=0.5,
        repeats=1,
        ema=0.999,
        batch_size=64,
        save_every=500,
        log_every=10,
    )


def cifar10_subset() -> Config:
    """3,000 training and 1,000 test images of CIFAR-10, from scratch, tiny model in 2 x 2 regions of 32 pixels.

    accelerate launch biformer/train.py --preset cifar10_subset --data-root DIR
    """
    return replace(
        _small(),
        epochs=35,
        batch_size=50,
        image_size=32,
        num_regions=2,
        crop_pct=1.0,
        crop_area=0.4,
        auto_augment="rand-m5-mstd0.5-inc1",
        validate_epochs=5,
    )


def clothing_small() -> Config:
    """372 photographs of ten garments, a fixed stratified 70/30 split of them, from scratch, at 64 pixels, tiny model.

    accelerate launch biformer/train.py --preset clothing_small --data-root DIR
    """
    return replace(
        _small(),
        split_file=SPLITS / "clothing_small.json",
        epochs=110,
        batch_size=32,
        crop_area=0.3,
        auto_augment="rand-m5-mstd0.5-inc1",
        validate_epochs=10,
    )


def demo() -> Config:
    """Crops of photographs and textures that scikit-image installs, one class each, a minute on two CPU cores.

    accelerate launch biformer/train.py
    Expected: about 80 % top-1 on other parts of the twelve images, where guessing gives 8 %.
    """
    return replace(
        _small(),
        image_size=48,
        num_regions=3,
        epochs=6,
        batch_size=24,
        mixup=0.0,
        cutmix=0.0,
        crop_area=0.4,
        ema=0.95,
        validate_epochs=3,
    )


def _small() -> Config:
    """What the three small data sets share: few pixels and regions, learning rates for some hundred updates."""
    return Config(
        model="biformer_tiny",
        num_regions=4,
        image_size=64,
        warmup_epochs=2,
        cooldown_epochs=0,
        learning_rate=1e-2,
        final_learning_rate=1e-5,
        clip=5.0,
        drop_path=0.05,
        mixup=0.2,
        mixing=0.5,
        auto_augment="",
        erasing=0.0,
        repeats=1,
        ema=0.99,
        workers=1,
        save_every=200,
        log_every=10,
    )


PRESETS: dict[str, Callable[[], Config]] = {
    preset.__name__: preset
    for preset in (
        demo,
        imagenet_tiny,
        imagenet_small,
        imagenet_base,
        imagenet_stl,
        finetune,
        cifar10_subset,
        clothing_small,
    )
}
