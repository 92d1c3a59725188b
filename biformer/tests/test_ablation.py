"""The ablation trains every variant; window and full attention are the extremes of the routing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from biformer import BiLevelRoutingAttention, create_model, variants
from biformer.attention import FullAttention
from support.ablation import parameters, run_ablation

SCRIPT = Path(__file__).parents[1] / "ablation.py"


def test_every_variant_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"depths": (1, 1, 1, 1), "dims": (32, 32, 32, 32)}
    for name in ("biformer_tiny", "biformer_stl"):
        monkeypatch.setitem(variants._VARIANTS, name, variants._VARIANTS[name] | small)
    for name in ("prediction_sheet", "routing_sheet"):
        monkeypatch.setattr(f"biformer.pictures.{name}", lambda *_: None)
    flags = ("--image-size", 32, "--num-regions", 2, "--batch-size", 8, "--workers", 0)
    found = run_ablation(SCRIPT, tmp_path, *flags, "--max-steps", 2)
    sizes = parameters(found)
    assert len({sizes[name] for name in ("released", "top_k_1", "top_k_4", "full", "window", "regions")}) == 1
    assert sizes["no_lepe"] == sizes["released"] - 4 * (25 * 32 + 32)
    adds = {name: values["multiply-adds (M)"] for name, values in found.items()}
    assert adds["window"] < adds["top_k_1"] < adds["full"]  # routing itself needs a few operations


def test_window_attention_sees_its_own_region_only() -> None:
    torch.manual_seed(0)
    window = BiLevelRoutingAttention(16, 2, 2, 0, lepe_kernel=0)
    x = torch.randn(2, 8, 8, 16, requires_grad=True)
    window(x)[:, :4, 4:].sum().backward()
    assert x.grad is not None
    assert x.grad[:, :4, 4:].abs().min() > 0
    x.grad[:, :4, 4:] = 0
    assert x.grad.abs().max() == 0


def test_all_regions_are_full_attention() -> None:
    torch.manual_seed(0)
    full, x = BiLevelRoutingAttention(16, 2, 2, 4, lepe_kernel=0), torch.randn(2, 8, 8, 16)
    whole = BiLevelRoutingAttention(16, 2, 1, 0, lepe_kernel=0)
    whole.load_state_dict(full.state_dict())
    torch.testing.assert_close(full(x), whole(x))


def test_without_local_terms() -> None:
    model = create_model(depths=(1, 1, 1, 1), dims=(32, 32, 32, 32), num_regions=1, lepe=False, num_classes=3)
    assert not [name for name, _ in model.named_parameters() if "lepe" in name]
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(ValueError, match="odd, or 0 for none"):
        FullAttention(16, lepe_kernel=2)
