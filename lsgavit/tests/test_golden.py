"""The parts and the network against what the authors' release computes, forward and gradients, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsgavit import LSGAttention, LSGAViT, convert_released, literal
from lsgavit.checkpoints import published_names, released_configuration
from support.reference import ReferenceCase

GOLDEN = Path(__file__).parent / "golden"


def build(case: ReferenceCase) -> LSGAViT:
    """Ours with the case's seeded weights, float64, in evaluation mode."""
    model = LSGAViT(**released_configuration(case.state_dict, "case")).double().eval()
    model.load_state_dict(convert_released(case.state_dict))
    return model


@pytest.mark.parametrize("form", ["fast", "literal"])
@pytest.mark.parametrize("name", ["lsgavit_indian_pines", "lsgavit_hierarchical"])
def test_network(name: str, form: str) -> None:
    case = ReferenceCase.load(GOLDEN / f"{name}.npz")
    model, inputs = build(case), case.inputs
    assert sum(p.numel() for p in model.parameters()) == case.meta["parameters"]
    output = literal.lsgavit(model, inputs["x"]) if form == "literal" else model(inputs["x"])
    parameters = dict(model.named_parameters())
    published = {theirs: parameters[ours] for theirs, ours in published_names(model).items() if ours in parameters}
    case.check([output], inputs, published)


@pytest.mark.parametrize("form", ["fast", "literal"])
def test_attention(form: str) -> None:
    case = ReferenceCase.load(GOLDEN / "lsgavit_attention.npz")
    arguments = case.meta["constructor"]
    attention = LSGAttention(arguments["dim"], arguments["num_heads"], tuple(arguments["att_inputsize"])).double()
    names = {
        "token_wA": "mix_tokens",
        "token_wV": "mix_channels",
        "qkv.weight": "qkv.weight",
        "qkv.bias": "qkv.bias",
        "proj.weight": "out.weight",
        "proj.bias": "out.bias",
    }
    weights = {ours: case.state_dict[theirs] for theirs, ours in names.items()}
    attention.load_state_dict({k: v[0] if k.startswith("mix") else v for k, v in weights.items()})
    inputs = case.inputs
    output = literal.attention(attention, inputs["x"]) if form == "literal" else attention(inputs["x"])
    assert sum(p.numel() for p in attention.parameters()) == case.meta["parameters"]
    parameters = dict(attention.named_parameters())
    case.check([output], inputs, {theirs: parameters[ours] for theirs, ours in names.items()})
