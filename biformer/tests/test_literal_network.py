"""The literal network, which is the reference for speed, computes the same as ours."""

import pytest
import torch

from biformer import create_model, literal_network


@pytest.mark.parametrize("name", ["biformer_tiny", "biformer_stl"])
def test_literal_and_ours_agree_with_their_gradients(name):
    torch.manual_seed(0)
    model = create_model(name, depths=(1, 1, 1, 1), num_regions=2, top_k=(1, 2, 3), num_classes=10).double().eval()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    gradients = []
    for network in (model, lambda x: literal_network.biformer(model, x)):
        model.zero_grad()
        logits = network(image)
        logits.square().sum().backward()
        gradients.append([logits, *(parameter.grad for parameter in model.parameters())])
    for ours, literal in zip(*gradients, strict=True):
        assert (ours - literal).abs().max() <= 1e-9 * (literal.abs().max() + 1e-6)
