"""Outputs, input gradients and the gradient norm of every parameter equal those of the released networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from biformer import BiLevelRoutingAttention, convert_released, create_model, export_released
from biformer.checkpoints import published_names
from support.reference import ReferenceCase

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["biformer_tiny", "biformer_small", "biformer_base", "biformer_stl"])
def test_network_equals_the_release(name: str) -> None:
    case = ReferenceCase.load(GOLDEN / f"{name}.npz")
    with torch.device("meta"):
        model = create_model(name).double()
    model = model.to_empty(device="cpu").eval()
    weights = case.state_dict
    model.load_state_dict(convert_released(weights))
    assert export_released(model).keys() == weights.keys()
    assert sum(parameter.numel() for parameter in model.parameters()) == case.meta["parameters"]
    inputs = case.inputs
    names = published_names(model)
    parameters = {names[ours]: parameter for ours, parameter in model.named_parameters()}
    case.check([model(inputs["x"])], inputs, parameters)


@pytest.mark.parametrize("name", ["attention", "attention_padded"])
def test_attention_equals_the_release(name: str) -> None:
    case = ReferenceCase.load(GOLDEN / f"biformer_{name}.npz")
    options = case.meta["constructor"]
    attention = BiLevelRoutingAttention(
        options["dim"], options["num_heads"], options["n_win"], options["topk"], auto_pad=name.endswith("padded")
    ).double()
    published = {ours: ours.replace("qkv.", "qkv.qkv.").replace("out.", "wo.") for ours in attention.state_dict()}
    weights = case.state_dict
    attention.load_state_dict({ours: weights[theirs] for ours, theirs in published.items()})
    inputs = case.inputs
    parameters = {published[ours]: parameter for ours, parameter in attention.named_parameters()}
    case.check([attention(inputs["x"])], inputs, parameters)
