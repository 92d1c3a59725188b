"""The device that a flag names."""

from __future__ import annotations

import pytest
import torch

from common.environment import choose_device
from common.errors import UserError


@pytest.mark.parametrize("text", ["gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "CUDA", "", "mps", "cuda:²"])
def test_other_names_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=f"--device {text}: no such device; expected auto, cpu, cuda or cuda:N"):
        choose_device(text)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for text in ("cuda", "cuda:0", "cuda:9"):
        with pytest.raises(UserError, match=f"--device {text}: this machine has no usable GPU"):
            choose_device(text)


def test_with_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"--device cuda:9: this machine has 2 GPU\(s\)"):
        choose_device("cuda:9")
