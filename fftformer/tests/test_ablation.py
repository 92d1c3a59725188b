"""The ablation trains every variant, and the compared parts compute what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from fftformer import DFFN, create_model, model
from fftformer.attention import WindowAttention
from support.ablation import parameters, run_ablation

SCRIPT = Path(__file__).parents[1] / "ablation.py"
SMALL = {"dim": 8, "num_blocks": (1, 1, 1), "num_refinement_blocks": 1}


def test_every_variant_trains(pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model._VARIANTS, "fftformer", SMALL)
    flags = ("--preset", "gopro_released", "--data-root", pairs_folder, "--crop", 32, "--batch-size", 2, "--workers", 0)
    sizes = parameters(run_ablation(SCRIPT, tmp_path, *flags, "--max-steps", 2, "--validation-pictures", 1))
    assert sizes["conjugate"] == sizes["released"]
    assert sizes["none"] < sizes["window"] < sizes["released"] < sizes["symmetric"]
    # Without spectra, every inner channel of a feed-forward network has 40 parameters less.
    networks = [m for m in create_model(**SMALL).modules() if isinstance(m, DFFN)]
    assert sizes["released"] - sizes["plain"] == 40 * sum(len(m.dwconv.weight) for m in networks)


def test_without_spectra_a_feed_forward_is_one_whose_matrix_is_all_ones() -> None:
    torch.manual_seed(0)
    plain, ones, x = DFFN(4, spectral=False).double(), DFFN(4).double(), torch.randn(2, 4, 16, 8).double()
    ones.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(plain(x), ones(x))
    norm, x = torch.nn.LayerNorm(4).double(), x.permute(0, 2, 3, 1)
    torch.testing.assert_close(plain.channels_last(x, norm), ones.channels_last(x, norm))


def test_windows_attend_to_themselves() -> None:
    """The result of one window equals attention on this window alone."""
    torch.manual_seed(0)
    attention, norm = WindowAttention(32), torch.nn.LayerNorm(32)
    x = torch.randn(1, 16, 24, 32)
    window = x[0, 8:, 8:16].reshape(64, 32)
    q, k, v = attention.qkv(norm(window)).chunk(3, dim=1)
    heads = [(p.unflatten(1, (attention.heads, -1)).transpose(0, 1)) for p in (q, k, v)]
    mixed = F.softmax(heads[0] @ heads[1].transpose(1, 2) / heads[0].shape[-1] ** 0.5, dim=-1) @ heads[2]
    expected = window + attention.project_out(mixed.transpose(0, 1).flatten(1))
    torch.testing.assert_close(attention.channels_last(x, norm)[0, 8:, 8:16].reshape(64, 32), expected)


@pytest.mark.parametrize(
    "keywords", [{"attention": "window"}, {"attention": "none"}, {"encoder_attention": True}, {"spectral": False}]
)
def test_every_parameter_of_a_variant_learns(keywords: dict, tmp_path: Path) -> None:
    network = create_model(**SMALL, **keywords)
    network(torch.rand(1, 3, 32, 32)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    network.save_pretrained(tmp_path)
    again, x = type(network).from_pretrained(tmp_path), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again(x), network.eval()(x))


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="attention must be one of fsas, window, none"):
        create_model(attention="full")
