"""LSGA-ViT: light self-Gaussian attention for hyperspectral classification (IEEE TGRS 2023)."""

from lsgavit.attention import LSGAttention
from lsgavit.checkpoints import convert_released, load_model
from lsgavit.model import LSGAViT, create_model, list_models
from lsgavit.prediction import predict_pixels
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
