"""One preset per published experiment, two small real data sets, and the demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from biformer.model import CROP_SHARE
from common.config import BatchSize, BelowOne, Fraction, LoaderConfig, Positive, Workers

SPLITS = Path(__file__).parent / "splits"


@dataclass(frozen=True, kw_only=True)
class Config(LoaderConfig):
    """Flags of the training. A step is one optimiser update."""

    model: str = "biformer_small"
    """Variant: biformer_tiny, biformer_small, biformer_base or biformer_stl."""
    num_regions: Positive[int] = 7
    """Regions along each side of a map; 7 as released, fewer for small images."""
    network: tuple[str, ...] = ()
    """Further keywords of the network as KEY=VALUE; the class BiFormer explains them."""
    weights: Path | None = None
    """Start from these weights: a model folder or the authors' released file. For other classes the classifier is
    new."""
    dataset: str = ""
    """A name of timm's dataset factory (torch/cifar100, hfds/owner/name); empty for class folders and zips."""
    split_file: Path | None = None
    """JSON file with the names of the training and validation images, for a data set without splits."""
    holdout: Fraction[float] = 0.0
    """Share of every class for validation, for a data set without splits and without a split file."""
    strict: bool = False
    """Refuse images that cannot be read, instead of skipping and counting them."""
    upright: bool = True
    """Turn images by their EXIF orientation. The release does not, so the ImageNet presets do not either."""
    image_size: Positive[int] = 224
    """Side of the images in pixels, in training and evaluation."""
    crop_pct: Positive[float] = CROP_SHARE
    """Share of the resized image's side that evaluation keeps."""
    epochs: Positive[int] = 300
    """Passes over the training images, with the warm-up."""
    cooldown_epochs: int = 10
    """Further passes with the final learning rate."""
    warmup_epochs: int = 5
    """Passes at the start with a linearly rising learning rate."""
    learning_rate: float = 5e-4
    """Learning rate for 512 images per update; it is scaled linearly to the actual global batch size."""
    final_learning_rate: float = 1e-5
    """Learning rate at the end of the cosine; it is not scaled."""
    warmup_learning_rate: float = 1e-6
    """Learning rate of the first update; it is not scaled."""
    weight_decay: float = 0.05
    """Weight decay of AdamW; norms and biases have none."""
    layer_decay: Positive[float] | None = None
    """Factor by which the learning rate falls with each block from the classifier to the stem, for fine-tuning."""
    clip: Positive[float] | None = None
    """Largest global norm of the gradient."""
    drop_path: Fraction[float] = 0.15
    """Stochastic depth of the last block."""
    mixup: float = 0.8
    """Alpha of mixup; 0 is off."""
    cutmix: float = 1.0
    """Alpha of CutMix; 0 is off."""
    mixing: Fraction[float] = 1.0
    """Probability that a batch is mixed; half of the mixed batches get CutMix, the others mixup."""
    smoothing: Fraction[float] = 0.1
    """Label smoothing."""
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    """timm's augmentation string; empty is off."""
    colour_jitter: float = 0.4
    """Strength of changes of brightness, contrast and saturation; timm uses it only if --auto-augment is empty."""
    erasing: Fraction[float] = 0.25
    """Probability that a rectangle of an image is replaced by noise."""
    crop_area: Positive[float] = 0.08
    """Smallest share of an image's area in a training crop."""
    crop_ratio: Positive[float] = 0.75
    """Smallest aspect ratio of a training crop; the largest is its inverse."""
    flip: Fraction[float] = 0.5
    """Probability of a horizontal flip."""
    repeats: Positive[int] = 3
    """How often an epoch uses an image, with different augmentation, in one global batch; 1 is off."""
    ema: BelowOne[float] = 0.99996
    """Decay of the averaged weights, exported to model_ema; 0 is off. The released weights are not averaged."""
    grad_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""
    validate_epochs: int = 1
    """Number of epochs between two validations."""
    batch_size: BatchSize[int] = 128
    workers: Workers[int] = 8
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
    """Fine-tuning of ImageNet weights on your own class folders: 30 epochs, layer-wise learning rates.

    accelerate launch biformer/train.py --preset finetune --data-root DIR --weights biformer_small.pth
    The paper does not fine-tune classifiers; these are usual values, not published ones.
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
    """3,000 training and 1,000 test images of CIFAR-10 at 32 pixels, from scratch; tiny model with 2 x 2 regions.

    accelerate launch biformer/train.py --preset cifar10_subset --data-root DIR
    Expected: 54 % top-1 (measured), after half an hour on one CPU thread.
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
    """372 photographs of ten garments at 64 pixels, from scratch; a fixed stratified 70/30 split; tiny model.

    accelerate launch biformer/train.py --preset clothing_small --data-root DIR
    Expected: 73 to 75 % top-1 (measured), after ten minutes on one CPU thread.
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
    """Crops of twelve photographs and textures that scikit-image installs, one class each; a minute on two CPU cores.

    accelerate launch biformer/train.py
    Expected: about 80 % top-1 on other parts of the twelve images; guessing reaches 8 %.
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
    """Values of the three small data sets: few pixels and regions, learning rates for some hundred updates."""
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
