"""LSGA-ViT: light self-Gaussian attention for hyperspectral classification (IEEE TIM 2023)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsgavit.attention import LSGAttention
    from lsgavit.checkpoints import convert_released, load_model
    from lsgavit.fast.prediction import predict_pixels
    from lsgavit.model import LSGAViT, create_model, list_models
    from lsgavit.tokenizer import SpectralSpatialTokenizer
    from lsgavit.windows import SceneWindows

__all__ = [
    "LSGAViT",
    "LSGAttention",
    "SceneWindows",
    "SpectralSpatialTokenizer",
    "convert_released",
    "create_model",
    "list_models",
    "load_model",
    "predict_pixels",
]

_MODULES = {
    "LSGAViT": "model",
    "LSGAttention": "attention",
    "SceneWindows": "windows",
    "SpectralSpatialTokenizer": "tokenizer",
    "convert_released": "checkpoints",
    "create_model": "model",
    "list_models": "model",
    "load_model": "checkpoints",
    "predict_pixels": "fast.prediction",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `lsgavit.blocks` then needs no more than torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lsgavit' has no attribute {name!r}")
    value = getattr(import_module(f"lsgavit.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
