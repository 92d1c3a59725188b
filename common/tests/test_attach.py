"""A block behind a layer of any network: the same numbers at the start, the same names, and it learns."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from common.attach import attach, detach, gains
from support.blocks import BlockContract


class Bare(nn.Module):
    """x + gain · conv(x)."""

    def __init__(self, channels: int, *, gain: float | None = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.channels = channels
        self.gain = None if gain is None else nn.Parameter(torch.full((channels,), gain))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected (B, {self.channels}, H, W), got {tuple(x.shape)}")
        y = self.conv(x).to(x.dtype)
        return y if self.gain is None else x + self.gain.to(x.dtype).view(-1, 1, 1) * y


class TestBare(BlockContract):
    block = staticmethod(Bare)

    def bare(self, block: nn.Module, x: Tensor) -> Tensor:
        return block.conv(x)


def plain() -> tuple[nn.Module, str, int]:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 3)), nn.Flatten(), nn.LazyLinear(4)
    )
    network(torch.zeros(1, 3, 32, 32))
    return network, "1", 12


def of_torchvision() -> tuple[nn.Module, str, int]:
    models = pytest.importorskip("torchvision.models")
    return models.resnet18(weights=None, num_classes=4), "layer3.1", 256


def of_timm() -> tuple[nn.Module, str, int]:
    timm = pytest.importorskip("timm")
    return timm.create_model("convnext_atto", num_classes=4), "stages.2", 160


@pytest.fixture(params=[plain, of_torchvision, of_timm], ids=["plain", "torchvision", "timm"])
def network(request):
    torch.manual_seed(0)
    found, layer, channels = request.param()
    return found.eval(), layer, channels


def test_nothing_changes_at_the_start_and_weights_load(network) -> None:
    model, layer, channels = network
    x, trained = torch.randn(2, 3, 32, 32), copy.deepcopy(model.state_dict())
    before = model(x)
    block = attach(model, layer, Bare(channels))
    assert torch.equal(model(x), before)
    assert set(trained) < set(model.state_dict())
    assert {name for name in model.state_dict() if name not in trained} == {
        f"{layer}.attached.{name}" for name in block.state_dict()
    }
    missing = model.load_state_dict(trained, strict=False)
    assert not missing.unexpected_keys and all(".attached." in name for name in missing.missing_keys)
    assert gains(model) == {layer: 0.0}


def test_the_gain_moves_and_the_copy_has_it(network) -> None:
    model, layer, channels = network
    attach(model, layer, Bare(channels))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(2, 3, 32, 32)
    before = model(x)
    model(x).square().sum().backward()
    optimizer.step()
    assert gains(model)[layer] > 0
    for one in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(one(x), model(x))
        assert not torch.equal(one(x), before)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), atol=1e-5, rtol=1e-4)


def test_detached_it_is_gone(network) -> None:
    model, layer, channels = network
    names, x = set(model.state_dict()), torch.randn(1, 3, 32, 32)
    before = model(x)
    nn.init.ones_(attach(model, layer, Bare(channels)).gain)
    assert not torch.equal(model(x), before)
    detach(model, layer)
    assert torch.equal(model(x), before) and set(model.state_dict()) == names
    with pytest.raises(ValueError, match="has no block behind"):
        detach(model, layer)


def test_wrong_places_are_one_sentence() -> None:
    model, layer, channels = plain()
    with pytest.raises(ValueError, match=r"no layer '1\.2' in Sequential; similar names: .*1\.1"):
        attach(model, "1.2", Bare(channels))
    with pytest.raises(ValueError, match="no layer ''"):
        attach(model, "", Bare(channels))
    attach(model, layer, Bare(channels))
    with pytest.raises(ValueError, match="1 has a block already"):
        attach(model, layer, Bare(channels))
    detach(model, layer)
    attach(model, layer, Bare(5))
    with pytest.raises(ValueError, match=r"expected \(B, 5, H, W\), got \(1, 12, 28, 28\)"):
        model(torch.zeros(1, 3, 32, 32))
    detach(model, layer)
    attach(model, "2", Bare(channels))
    with pytest.raises(TypeError, match=r"2 returns \(1, 9408\); a block needs a layer that returns a map"):
        model(torch.zeros(1, 3, 32, 32))
