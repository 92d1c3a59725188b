"""LSGA-ViT: light self-Gaussian attention for hyperspectral image classification."""

from lsgavit.attention import LSGAttention
from lsgavit.checkpoints import convert_released, load_model
from lsgavit.model import LSGAViT
from lsgavit.tokenizer import SpectralSpatialTokenizer

__all__ = [
    "LSGAViT",
    "LSGAttention",
    "SpectralSpatialTokenizer",
    "convert_released",
    "load_model",
]
