"""Semantic segmentation with BiFormer: the ADE20K table of the paper."""

from biformer.segmentation.heads import SemanticFPNHead, UPerNetHead
from biformer.segmentation.inference import Protocol, predict_labels
from biformer.segmentation.model import Segmenter, load_segmenter

__all__ = ["Protocol", "Segmenter", "SemanticFPNHead", "UPerNetHead", "load_segmenter", "predict_labels"]
