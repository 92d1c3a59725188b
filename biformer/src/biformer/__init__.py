"""BiFormer: vision transformer with bi-level routing attention (CVPR 2023, arXiv 2303.08810)."""

from biformer.attention import BiLevelRoutingAttention, FullAttention
from biformer.checkpoints import convert_released, export_released, load_model
from biformer.model import BiFormer
from biformer.variants import create_model, list_models

__all__ = [
    "BiFormer",
    "BiLevelRoutingAttention",
    "FullAttention",
    "convert_released",
    "create_model",
    "export_released",
    "list_models",
    "load_model",
]
