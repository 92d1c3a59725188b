"""ESSAformer: hyperspectral super-resolution by spectral-correlation attention (ICCV 2023, arXiv 2307.14010)."""

from essaformer.attention import ESSAttention
from essaformer.checkpoints import convert_released, load_model
from essaformer.model import ESSAformer, create_model, list_models
from essaformer.resize import imresize

__all__ = [
    "ESSAformer",
    "ESSAttention",
    "convert_released",
    "create_model",
    "imresize",
    "list_models",
    "load_model",
]
