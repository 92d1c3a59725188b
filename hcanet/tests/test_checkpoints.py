"""Files in the published form: strict about names and full shapes, and errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from hcanet import HCANet, convert_released, load_model
from hcanet.literal import inflated
from support.reference import ReferenceCase

CASE = ReferenceCase.load(Path(__file__).parent / "golden" / "hcanet_small.npz")
pytestmark = pytest.mark.filterwarnings("ignore:a network of width")


@pytest.fixture
def released() -> dict[str, Tensor]:
    return {name: value.float() for name, value in CASE.state_dict.items()}


@pytest.mark.parametrize("form", ["trainer", "parallel", "tensors"])
def test_every_form_of_a_released_file_loads(form: str, released: dict[str, Tensor], tmp_path: Path) -> None:
    content = {
        "trainer": {"net": released, "optimizer": {"state": {}, "param_groups": []}, "scheduler": {}, "epoch": 3},
        "parallel": {f"module.{name}": value for name, value in released.items()},
        "tensors": released,
    }[form]
    torch.save(content, tmp_path / "released.pth")
    model = load_model(tmp_path / "released.pth")
    assert not model.training and (model.bands, model.dim) == (31, 16)
    expected = convert_released(released)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    model.save_pretrained(tmp_path / "model")
    x = torch.rand(1, 31, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model")(x), model(x))


def test_one_error_names_all_that_is_wrong(released: dict[str, Tensor]) -> None:
    del released["encoder_level1.0.attn.fc.bias"]
    released["extra.weight"] = torch.zeros(2)
    # The middle slice alone is not the published shape.
    released["output.weight"] = released["output.weight"][:, :, 1]
    with pytest.raises(UserError) as caught:
        convert_released(released)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("encoder_level1.0.attn.fc.bias", "extra.weight", "output.weight (31, 32, 3, 3)"):
        assert name in message


@pytest.mark.parametrize("first", [torch.zeros(4), torch.zeros(16, 31, 3, 3)])
def test_another_models_file_is_refused(first: Tensor, tmp_path: Path) -> None:
    torch.save({"patch_embed.proj.weight": first}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: holds another model"):
        load_model(tmp_path / "other.pth")


def test_missing_and_truncated_files_are_named(released: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("none.pth", "none"):
        with pytest.raises(UserError, match=f"{name}: no such"):
            load_model(tmp_path / name)
    torch.save(released, tmp_path / "half.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "half.pth").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"half\.pth: "):
        load_model(tmp_path / "half.pth")


@pytest.mark.parametrize("expansion", [2.66, 1.0, 2.0, 1.37])
@pytest.mark.parametrize("heads", [(1, 2, 4), (2, 2, 8)])
def test_sizes_are_read_from_the_tensors(expansion: float, heads: tuple[int, ...]) -> None:
    model = HCANet(
        6,
        8,
        num_blocks=(1, 2, 1),
        num_refinement_blocks=2,
        heads=heads,
        ffn_expansion=expansion,
        norm="BiasFree",
        bias=True,
    )
    converted = convert_released(inflated(model.state_dict()))
    assert all(torch.equal(value, converted[name]) for name, value in model.state_dict().items())
