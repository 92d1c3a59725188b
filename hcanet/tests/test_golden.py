"""The released network's numbers: outputs, input gradients and the gradient norm of every parameter."""

from __future__ import annotations

from pathlib import Path

import pytest

from hcanet import HCANet, convert_released, fast
from hcanet.literal import HCANet3D
from support.reference import ReferenceCase

GOLDEN = Path(__file__).parent / "golden"


def arguments(case: ReferenceCase) -> dict[str, object]:
    """The released constructor's keywords under our names; the fourth entries are never used there."""
    constructor = case.meta["constructor"]
    found = {"bands": constructor.get("inp_channels", 31), "dim": constructor.get("dim", 48)}
    return found | {"num_blocks": constructor.get("num_blocks", [2, 3, 3, 4])[:3]}


@pytest.mark.filterwarnings("ignore:a network of width")
@pytest.mark.parametrize(
    ("name", "form"),
    [("hcanet", "fast"), ("hcanet_small", "fast"), ("hcanet_small", "plain"), ("hcanet_small", "published")],
)
def test_network_equals_the_release(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ReferenceCase.load(GOLDEN / f"{name}.npz")
    if form == "published":
        model = HCANet3D(**arguments(case)).double().eval()
        model.load_state_dict(case.state_dict)
    else:
        model = HCANet(**arguments(case)).double().eval()
        model.load_state_dict(convert_released(case.state_dict))
        assert model.published_parameters() == case.meta["parameters"]
    if form == "plain":
        monkeypatch.setattr(fast, "usable", lambda x: False)
    inputs = case.inputs
    case.check([model(inputs["x"])], inputs, dict(model.named_parameters()))
