"""FFTformer: frequency-domain transformer for image deblurring (CVPR 2023, arXiv 2211.12250)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fftformer.attention import FSAS
    from fftformer.blocks import DFFNBlock, FSASBlock
    from fftformer.checkpoints import convert_released, export_released, load_model
    from fftformer.feed_forward import DFFN
    from fftformer.model import FFTformer, create_model, list_models

__all__ = [
    "DFFN",
    "FSAS",
    "DFFNBlock",
    "FFTformer",
    "FSASBlock",
    "convert_released",
    "create_model",
    "export_released",
    "list_models",
    "load_model",
]

_HOMES = {
    "attention": ("FSAS",),
    "blocks": ("FSASBlock", "DFFNBlock"),
    "checkpoints": ("convert_released", "export_released", "load_model"),
    "feed_forward": ("DFFN",),
    "model": ("FFTformer", "create_model", "list_models"),
}


def __getattr__(name: str) -> Any:
    """Load a part when it is first asked for, so that one module costs no more than itself."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
