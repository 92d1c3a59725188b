"""LSGA-ViT: light self-Gaussian attention for hyperspectral classification (IEEE TIM 2023)."""

from typing import TYPE_CHECKING

from common.lazy import lazy

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

__getattr__, __dir__ = lazy(
    __name__,
    {
        "attention": ("LSGAttention",),
        "checkpoints": ("convert_released", "load_model"),
        "fast.prediction": ("predict_pixels",),
        "model": ("LSGAViT", "create_model", "list_models"),
        "tokenizer": ("SpectralSpatialTokenizer",),
        "windows": ("SceneWindows",),
    },
)
