"""An Ultralytics YOLO with a block, trained by Ultralytics' own trainer; the installed package stays as it is.

    YOLO("yolo11n.pt").train(trainer=TrainerWithBlock, data="coco8.yaml", epochs=1)

Ultralytics is AGPL-3.0; docs/blocks.md says what that means.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer

from biformer.blocks import BRABlock
from common.attach import attach


class TrainerWithBlock(DetectionTrainer):
    """Puts a block behind the last layer of the backbone of YOLO11n, once the pretrained weights are in."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """The network to train."""
        model = super().get_model(cfg, weights, verbose)
        attach(model, "model.10", BRABlock(256))
        return model
