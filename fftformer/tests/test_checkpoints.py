"""Loading and exporting weights in the authors' form, and errors for other files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UserError
from fftformer import FFTformer, convert_released, create_model, export_released, load_model
from support.reference import ReferenceCase


@pytest.fixture
def model() -> FFTformer:
    torch.manual_seed(0)
    model = FFTformer(dim=8, num_blocks=(1, 2, 1), num_refinement_blocks=2, ffn_expansion=2.66)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_export_has_the_published_names_and_converts_back() -> None:
    case = ReferenceCase.load(Path(__file__).parent / "golden" / "fftformer_tiny.npz")
    published = case.state_dict
    model = create_model("fftformer_tiny").double()
    model.load_state_dict(convert_released(published))
    exported = export_released(model)
    assert set(exported) == set(published)
    assert all(torch.equal(exported[name], value) for name, value in published.items())


@pytest.mark.parametrize("form", ["plain", "params", "data_parallel", "safetensors", "folder"])
def test_every_form_of_a_checkpoint_loads(model: FFTformer, form: str, tmp_path: Path) -> None:
    path, released = tmp_path / "deblur.pth", export_released(model)
    if form == "plain":
        torch.save(released, path)
    elif form == "params":
        torch.save({"params": released}, path)
    elif form == "data_parallel":
        torch.save({f"module.{name}": value for name, value in released.items()}, path)
    elif form == "safetensors":
        path = tmp_path / "deblur.safetensors"
        save_file(released, path)
    else:
        path = tmp_path / "model"
        model.save_pretrained(path)
    loaded = load_model(path)
    assert not loaded.training
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == {
        name: p.requires_grad for name, p in model.named_parameters()
    }
    x = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_spandrel_reads_the_export(tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel", reason="spandrel is not installed")
    # spandrel computes the expansion from the first level, where 2.66 · 8 is not a whole number.
    model = FFTformer(dim=8, num_blocks=(1, 2, 1), num_refinement_blocks=2, ffn_expansion=2.5).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(export_released(model), tmp_path / "deblur.pth")
    theirs = spandrel.ModelLoader().load_from_file(tmp_path / "deblur.pth")
    assert theirs.architecture.id == "FFTformer"
    x = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        ours, expected = model(x), theirs.model(x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_the_paper_variant_has_no_released_form() -> None:
    with pytest.raises(ValueError, match="conjugate=True has no released form"):
        export_released(FFTformer(8, (1, 1, 1), 1, conjugate=True))


def test_one_error_names_all_that_is_wrong(model: FFTformer) -> None:
    released = export_released(model)
    del released["fuse1.conv2.bias"]
    released["fuse3.conv.weight"] = torch.zeros(2)
    released["output.weight"] = torch.zeros(1, 8, 3, 3)
    with pytest.raises(UserError) as caught:
        convert_released(released)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("fuse1.conv2.bias", "fuse3.conv.weight", "output.weight (1, 8, 3, 3) instead of (3, 8, 3, 3)"):
        assert name in message


@pytest.mark.parametrize(
    "tensors",
    [
        {"conv.weight": torch.zeros(3, 3)},
        {"patch_embed.proj.weight": torch.zeros(4)},
        {"patch_embed.proj.weight": torch.zeros(48, 3, 3, 3)},
    ],
)
def test_another_models_file_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: holds another model"):
        load_model(tmp_path / "other.pth")


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("none.pth", "none"):
        with pytest.raises(UserError, match=f"{name}: no such"):
            load_model(tmp_path / name)
