"""HCANet: hyperspectral image denoising by convolution and channel attention (GRSL 2024, arXiv 2403.10067)."""

from typing import TYPE_CHECKING

from common.lazy import lazy

if TYPE_CHECKING:
    from hcanet.attention import CAFM
    from hcanet.checkpoints import convert_released, load_model
    from hcanet.feedforward import MSFN
    from hcanet.model import HCANet, create_model, list_models

__all__ = ["CAFM", "MSFN", "HCANet", "convert_released", "create_model", "list_models", "load_model"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "attention": ("CAFM",),
        "checkpoints": ("convert_released", "load_model"),
        "feedforward": ("MSFN",),
        "model": ("HCANet", "create_model", "list_models"),
    },
)
