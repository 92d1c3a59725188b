"""FFTformer: frequency-domain transformer for image deblurring (CVPR 2023, arXiv 2211.12250)."""

from typing import TYPE_CHECKING

from common.lazy import lazy

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

__getattr__, __dir__ = lazy(
    __name__,
    {
        "attention": ("FSAS",),
        "blocks": ("DFFNBlock", "FSASBlock"),
        "checkpoints": ("convert_released", "export_released", "load_model"),
        "feed_forward": ("DFFN",),
        "model": ("FFTformer", "create_model", "list_models"),
    },
)
