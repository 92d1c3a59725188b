"""The ablation trains every variant; less attention and fewer refinements are parts of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from essaformer import ESSAttention, create_model
from support.ablation import parameters, run_ablation

SCRIPT = Path(__file__).parents[1] / "ablation.py"


def test_every_variant_trains(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.random.default_rng(0).random((160, 32, 5), dtype=np.float32))
    flags = ("--preset", "jasper_ridge_x2", "--cube", tmp_path / "cube.npy", "--dim", 8, "--crop", 12)
    small = ("--batch-size", 2, "--workers", 0, "--iterations", 2, "--validate-every", 0)
    sizes = parameters(run_ablation(SCRIPT, tmp_path / "runs", *flags, *small))
    assert sizes["order_2"] == sizes["two"] == sizes["released"] > sizes["order_0"] > sizes["none"]
    assert sizes["released"] > sizes["one"]


def test_order_zero_is_the_values_projection() -> None:
    torch.manual_seed(0)
    first, zero, x = ESSAttention(8), ESSAttention(8, order=0), torch.randn(2, 9, 8)
    zero.qkv.weight.data, zero.qkv.bias.data = first.qkv.weight.data[16:], first.qkv.bias.data[16:]
    zero.out.load_state_dict(first.out.state_dict())
    # Constant spectra attend to nothing.
    with torch.no_grad():
        first.qkv.weight[:16], first.qkv.bias[:16] = 0.0, 1.0
    torch.testing.assert_close(zero(x), first(x))


@pytest.mark.parametrize("keywords", [{"order": None}, {"order": 0}, {"refinements": 1}, {"refinements": 2}])
def test_every_parameter_of_a_variant_learns(keywords: dict, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("essaformer", bands=3, dim=8, scale=2, dropout=0.0, **keywords)
    model(torch.rand(1, 3, 6, 5)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.save_pretrained(tmp_path)
    again, x = type(model).from_pretrained(tmp_path), torch.rand(1, 3, 6, 5)
    torch.testing.assert_close(again(x), model.eval()(x))


def test_refinements_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="refinements must be at least 1"):
        create_model(refinements=0)
