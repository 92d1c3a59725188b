"""FFTformer: frequency-domain transformer for image deblurring (CVPR 2023, arXiv 2211.12250)."""

from fftformer.attention import FSAS
from fftformer.checkpoints import convert_released, export_released, load_model
from fftformer.feed_forward import DFFN
from fftformer.model import FFTformer, create_model, list_models

__all__ = [
    "DFFN",
    "FSAS",
    "FFTformer",
    "convert_released",
    "create_model",
    "export_released",
    "list_models",
    "load_model",
]
