"""The ablation trains every variant; the branches alone add up to the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import QUICK
from hcanet.attention import CAFM
from hcanet.model import create_model
from support.ablation import parameters, run_ablation

SCRIPT = Path(__file__).parents[1] / "ablation.py"


def test_every_variant_trains(scene: Path, tmp_path: Path) -> None:
    sizes = parameters(run_ablation(SCRIPT, tmp_path, "--cube", scene, *QUICK, "--max-steps", 2))
    assert sizes["released"] == sizes["pixel"] > sizes["local"] == sizes["local_pixel"]
    assert sizes["global"] < sizes["released"]


@pytest.mark.parametrize("local_mix", ["released", "pixel"])
@pytest.mark.parametrize("type_", [torch.float32, torch.bfloat16])  # the fast form, and the plain one
def test_the_branches_add_up(local_mix: str, type_: torch.dtype) -> None:
    torch.manual_seed(0)
    whole = CAFM(8, 2, local_mix=local_mix).to(type_)
    x, parts = torch.randn(2, 8, 6, 10, dtype=type_), []
    for alone in (CAFM(8, 2, local_mix="none"), CAFM(8, 2, local_mix=local_mix, attention=False)):
        alone.load_state_dict({name: whole.state_dict()[name] for name in alone.state_dict()})
        parts.append(alone.to(type_)(x))
    torch.testing.assert_close(parts[0] + parts[1], whole(x), rtol=2e-2 if type_ == torch.bfloat16 else 1e-5, atol=2e-5)


def test_plain_feed_forward_has_msfns_pointwise_weights() -> None:
    msfn, plain = (create_model("hcanet_light", dim=32, feed_forward=kind) for kind in ("msfn", "plain"))
    depthwise = sum(p.numel() for name, p in msfn.named_parameters() if "ffn.dwconv" in name)
    assert sum(p.numel() for p in msfn.parameters()) - depthwise == sum(p.numel() for p in plain.parameters())
    with pytest.raises(ValueError, match="feed_forward must be one of msfn, plain"):
        create_model(feed_forward="mlp")
    with pytest.raises(ValueError, match="no branch is left"):
        create_model(local_mix="none", attention=False)
