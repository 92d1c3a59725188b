"""HCANet: hyperspectral image denoising by convolution and channel attention (GRSL 2024, arXiv 2403.10067)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hcanet.attention import CAFM
    from hcanet.checkpoints import convert_released, load_model
    from hcanet.feedforward import MSFN
    from hcanet.model import HCANet, create_model, list_models

__all__ = ["CAFM", "MSFN", "HCANet", "convert_released", "create_model", "list_models", "load_model"]

# Loaded when asked for, so that a block of this package brings nothing but torch.
_HOME = {
    "CAFM": "attention", "MSFN": "feedforward", "HCANet": "model", "create_model": "model", "list_models": "model",
    "convert_released": "checkpoints", "load_model": "checkpoints",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
