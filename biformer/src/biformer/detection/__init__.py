"""Detection and instance segmentation: RetinaNet and Mask R-CNN on BiFormer, on COCO's layout."""

from biformer.detection.model import Detector, load_detector

__all__ = ["Detector", "load_detector"]
