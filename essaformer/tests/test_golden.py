"""The released network's numbers: outputs, input gradients and the gradient norm of every parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from essaformer import ESSAformer, ESSAttention, convert_released
from essaformer.checkpoints import published_to_ours
from support.reference import ReferenceCase

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["essaformer_x2", "essaformer_x3", "essaformer_x4", "essaformer_chikusei_x4"])
def test_network_equals_the_release(name: str) -> None:
    case = ReferenceCase.load(GOLDEN / f"{name}.npz")
    constructor = case.meta["constructor"]
    model = ESSAformer(constructor["inch"], constructor["dim"], constructor["upscale"]).double().eval()
    model.load_state_dict(convert_released(case.state_dict))
    assert sum(parameter.numel() for parameter in model.parameters()) == case.meta["parameters"]
    inputs, ours = case.inputs, dict(model.named_parameters())
    parameters = {name: ours[published_to_ours(name)] for name in case.state_dict}
    case.check([model(inputs["x"])], inputs, parameters)


def test_attention_equals_the_release() -> None:
    case = ReferenceCase.load(GOLDEN / "essa_attention.npz")
    module = ESSAttention(case.meta["constructor"]["dim"]).double()
    published = {
        "qkv.weight": "lnqkv.weight",
        "qkv.bias": "lnqkv.bias",
        "out.weight": "ln.weight",
        "out.bias": "ln.bias",
    }
    weights = case.state_dict
    module.load_state_dict({ours: weights[name] for ours, name in published.items()})
    inputs = case.inputs
    case.check([module(inputs["x"])], inputs, {published[name]: p for name, p in module.named_parameters()})
