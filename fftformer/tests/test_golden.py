"""Outputs, input gradients and the gradient norm of every parameter equal those of the released network."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from fftformer import DFFN, FSAS, FFTformer, convert_released, export_released
from fftformer.fast import strips
from support.reference import ReferenceCase

GOLDEN = Path(__file__).parent / "golden"


def published_parameters(model: FFTformer) -> dict[str, nn.Parameter]:
    """Our parameters under the published names."""
    names = dict(zip(model.state_dict(), export_released(model), strict=True))
    return {names[name]: parameter for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "way"), [("fftformer_tiny", "whole"), ("fftformer_tiny", "strips"), ("fftformer_gopro", "strips")]
)
def test_network_equals_the_release(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "worthwhile", lambda *_: way == "strips")
    case = ReferenceCase.load(GOLDEN / f"{name}.npz")
    constructor = case.meta["constructor"]
    model = FFTformer(
        dim=constructor["dim"],
        num_blocks=constructor["num_blocks"][:3],  # the release ignores a fourth number
        num_refinement_blocks=constructor["num_refinement_blocks"],
        ffn_expansion=constructor["ffn_expansion_factor"],
    ).double()
    model.load_state_dict(convert_released(case.state_dict))
    assert sum(parameter.numel() for parameter in model.parameters()) == case.meta["parameters"]
    inputs = case.inputs
    case.check([model(inputs["x"])], inputs, published_parameters(model), output_tolerance=1e-4)


@pytest.mark.parametrize("way", ["strips", "whole"])
@pytest.mark.parametrize("part", ["fsas", "dffn"])
def test_part_equals_the_release(part: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "worthwhile", lambda *_: way == "strips")
    case = ReferenceCase.load(GOLDEN / f"fftformer_{part}.npz")
    dim = case.meta["constructor"]["dim"]
    module = (FSAS(dim) if part == "fsas" else DFFN(dim, 3.0)).double()
    published = {name: name.replace("norm.", "norm.body.") for name in module.state_dict()}
    weights = case.state_dict
    module.load_state_dict({ours: weights[name] for ours, name in published.items()})
    inputs = case.inputs
    parameters = {published[name]: parameter for name, parameter in module.named_parameters()}
    case.check([module(inputs["x"])], inputs, parameters, output_tolerance=1e-4)
