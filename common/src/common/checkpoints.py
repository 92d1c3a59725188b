"""Weights in and out: published folders, foreign files, and nothing that runs code from a file.

A published folder holds `model.safetensors` and `config.json`. Files of other origin go through
`read_tensors`, which loads tensors only: a file that carries code is refused by name.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.errors import UserError
from common.files import atomic_path, write_json

_WRAPPERS = ("state_dict", "params_ema", "params", "model")
_PREFIXES = ("module.", "_orig_mod.")


class Pretrained(PyTorchModelHubMixin):
    """Mixin that gives a network `save_pretrained` and `from_pretrained` on a folder.

    The hub's mixin records the constructor's JSON-able arguments and can fetch folders from the
    hub; here saving is atomic per file and loading is strict, and both name what is wrong.
    """

    def save_pretrained(self, folder: str | Path, **hub: Any) -> None:  # type: ignore[override]
        """Write `config.json` and `model.safetensors`; a kill in between leaves the former weights.

        Raises:
            UserError: the disk is full.
        """
        assert isinstance(self, nn.Module)
        folder = Path(folder)
        arguments: Any = self._hub_mixin_config or {}
        write_json(folder / "config.json", {"architecture": type(self).__name__, **arguments})
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        try:
            with atomic_path(folder / "model.safetensors") as temporary:
                save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # how a full disk is reported
            raise UserError(f"{folder / 'model.safetensors'}: could not be written ({error})") from None
        if hub.get("push_to_hub"):
            self.push_to_hub(**{key: value for key, value in hub.items() if key != "push_to_hub"})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **hub: Any) -> Self:  # type: ignore[override]
        """Build the network from a local folder, or from "owner/name" on the hub.

        Raises:
            UserError: the folder lacks a file, is damaged, or holds another model.
        """
        path = Path(folder)
        if not path.is_dir():
            if path.is_absolute() or str(folder).count("/") != 1 or path.parent.exists():
                raise UserError(f"{folder}: no such folder; expected one with model.safetensors and config.json")
            return super().from_pretrained(str(folder), strict=True, **hub)
        config = _read_config(path)
        found = config.pop("architecture", cls.__name__)
        if found != cls.__name__:
            raise UserError(f"{folder}: holds a {found}, expected a {cls.__name__}; use that project's script")
        try:
            model = cls(**config)
        except TypeError as error:
            raise UserError(f"{path / 'config.json'}: does not describe a {cls.__name__} ({error})") from None
        assert isinstance(model, nn.Module)
        load_strictly(model, read_tensors(path / "model.safetensors"), str(folder))
        return model.eval()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a foreign file: safetensors, or a torch file of plain tensors.

    Unwraps `state_dict`, `params_ema`, `params` or `model`, and strips the prefixes that
    DistributedDataParallel and torch.compile put before names. Loads weights only.

    Returns:
        name → tensor on CPU.

    Raises:
        UserError: the file is missing, damaged, holds no tensors, or carries code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint (.safetensors, .pth or .pt)")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|function) ([\w.]+)", str(error))
        raise UserError(
            f"{path}: refused, because it would run code to load ({found[1] if found else 'unknown content'}); "
            "expected a file of plain tensors: ask its author for the state_dict or for safetensors"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged or not a checkpoint ({str(error).splitlines()[0][:200]})") from None
    while isinstance(content, dict) and (key := next((k for k in _WRAPPERS if isinstance(content.get(k), dict)), None)):
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds a {type(content).__name__} instead of named tensors")
    tensors = {_stripped(str(name)): value for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content):
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        raise UserError(f"{path}: holds entries that are no tensors ({_listed(others)}) beside {len(tensors)} tensors")
    return tensors


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load `tensors` into `model`; every name and shape must fit.

    Raises:
        UserError: one sentence with the missing, unexpected and misshapen names.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = [
        f"{len(names)} {what} ({_listed(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(f"{source}: does not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(dict(tensors))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: has no config.json; expected a folder written by save_pretrained") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None


def _stripped(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def _listed(names: list[str], at_most: int = 4) -> str:
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")
