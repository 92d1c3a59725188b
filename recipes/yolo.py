"""Train an Ultralytics YOLO with a block by Ultralytics' own trainer, without changes to the installed package.

    YOLO("yolo11n.pt").train(trainer=TrainerWithBlock, data="coco8.yaml", epochs=1)

Ultralytics has the licence AGPL-3.0; docs/blocks.md explains the consequences.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer

from biformer.blocks import BRABlock
from common.attach import attach


class TrainerWithBlock(DetectionTrainer):
    """Attaches a block behind the last layer of YOLO11n's backbone after the pretrained weights are loaded."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """Return the network to train."""
        model = super().get_model(cfg, weights, verbose)
        attach(model, "model.10", BRABlock(256))
        return model
