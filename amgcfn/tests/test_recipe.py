"""The published recipe in plain PyTorch: the trainer exports the same weights to the bit."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from accelerate.utils import set_seed
from torch.nn import functional as F

from amgcfn import AMGCFN, build_graph
from common.hyperspectral.classification.splits import per_class_split
from common.hyperspectral.classification.transforms import fit_pca
from conftest import same, weights


def test_the_loop_by_hand_exports_the_same_weights(train, tiny_config, tiny_scene, tmp_path):
    # Random labels are learnt by heart, so the validation loss is smallest long before the training loss is.
    # Strong decay, so that leaving it out shows within a few epochs.
    labels = np.where(tiny_scene.labels > 0, np.random.default_rng(5).integers(1, 4, tiny_scene.labels.shape), 0)
    np.save(tmp_path / "random.npy", labels)
    config = replace(tiny_config, epochs=20, validate_every=3, learning_rate=0.01, weight_decay=0.1)
    exported = weights(train(config, labels=str(tmp_path / "random.npy")) / "seed_1" / "model")

    set_seed(1)
    split = per_class_split(labels, ratio=0.05, validation=0.1, seed=1)
    graph = build_graph(tiny_scene.cube, fit_pca(tiny_scene.cube, 3, pixels=split.train), pixels_per_superpixel=40)
    arguments = torch.from_numpy(tiny_scene.cube).float(), *graph.tensors()
    classes = torch.from_numpy(labels.reshape(-1) - 1)
    train_pixels, validation_pixels = torch.from_numpy(split.train), torch.from_numpy(split.validation)
    model = AMGCFN(bands=5, num_classes=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    states, losses = {}, {}
    for epoch in range(1, 21):
        model.train()
        fused, convolution, graph_only = (one[train_pixels] for one in model(*arguments))
        target = classes[train_pixels]
        loss = sum(F.cross_entropy(one, target, reduction="sum") for one in (fused, convolution, graph_only))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % 3 == 0 or epoch == 20:
            with torch.no_grad():
                logits = model.eval()(*arguments)[0]
            losses[epoch] = tuple(
                F.cross_entropy(logits[pixels], classes[pixels]).item() for pixels in (validation_pixels, train_pixels)
            )
            states[epoch] = copy.deepcopy(model.state_dict())
    best = min(losses, key=lambda epoch: losses[epoch][0])
    by_training = min(losses, key=lambda epoch: losses[epoch][1])
    assert 3 < best < 20 and best != by_training, losses  # else this test would see less
    assert same(exported, states[best])
