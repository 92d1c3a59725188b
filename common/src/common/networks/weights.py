"""Reading and writing weights: model folders and files of other trainers, without executing code from them.

A published folder holds `model.safetensors` and `config.json`. Files of other origin are read by
`read_tensors`, which takes only their tensors and neither imports nor calls anything that they name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.download import weights
from common.errors import UserError
from common.files import atomic_path, write_json
from common.networks.foreign import StandIn, module_tensors, read_inert

WEIGHTS = "model.safetensors"
_WRAPPERS = ("state_dict", "params_ema", "params", "model", "net", "network")
# Modules that wrap others: DistributedDataParallel at the top, the rest around any module.
_WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class Pretrained(PyTorchModelHubMixin):
    """Mixin that gives a network `save_pretrained` and `from_pretrained` on a folder.

    The hub's mixin records those arguments of the constructor that JSON can store, and can fetch folders from the
    hub. Here saving is atomic per file and loading is strict, and errors say what is wrong.
    """

    def save_pretrained(self, folder: str | Path, **hub: Any) -> None:  # type: ignore[override]
        """Write `config.json` and `model.safetensors`; if it is killed in between, the earlier weights remain.

        Args:
            hub: `push_to_hub=True` and the keywords of the mixin's `push_to_hub`.

        Raises:
            OSError: the disk is full.
        """
        assert isinstance(self, nn.Module)
        folder = Path(folder)
        arguments: Any = self._hub_mixin_config or {}
        write_json(folder / "config.json", {"architecture": type(self).__name__, **arguments})
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        if hub.pop("push_to_hub", False):
            self.push_to_hub(**hub)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **keywords: Any) -> Self:  # type: ignore[override]
        """Build the network from a local folder, or from "owner/name" on the hub.

        Args:
            folder: with `model.safetensors` and `config.json`.
            keywords: of the constructor; they replace the recorded ones, and the weights must still fit.
                For the hub also `revision`, `token` and `cache_dir`.

        Raises:
            UserError: the folder lacks a file, is damaged, or holds another model.
        """
        path = Path(folder)
        hub = {name: keywords.pop(name) for name in ("revision", "token", "cache_dir") if name in keywords}
        if not path.is_dir():
            if not _is_hub_name(str(folder)):
                raise UserError(f"{folder}: no such folder; expected one with model.safetensors and config.json")
            path = from_hub(str(folder), **hub)
        config = _read_config(path)
        found = config.pop("architecture", cls.__name__)
        if found != cls.__name__:
            raise UserError(f"{folder}: holds a {found}, expected a {cls.__name__}; use that project's script")
        try:
            model = cls(**config | keywords)
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{path / 'config.json'}: does not describe a {cls.__name__} ({error})") from None
        assert isinstance(model, nn.Module)
        load_strictly(model, read_tensors(path / WEIGHTS), str(folder))
        return model.eval()


N = TypeVar("N", bound=Pretrained)


def read_tensors(path: str | Path, keys: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file of any origin; the content tells the format, not the suffix.

    Finds tensors at the top level, under a usual key (`state_dict`, `model`, ...), or in a pickled module, and strips
    the prefixes that DistributedDataParallel and torch.compile add to names. Executes nothing from the file.

    Args:
        keys: take the tensors under one of these keys instead, the preferred first.

    Returns:
        name → tensor on CPU.

    Raises:
        UserError: the file is missing or damaged, or holds no named tensors or none of `keys`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint (.safetensors, .pth or .pt)")
    try:
        content: Any = load_file(path) if _is_safetensors(path) else read_inert(path)
    except Exception as error:  # a broken pickle raises almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: damaged or not a checkpoint ({reason}); copy it again") from None
    if keys:
        content = next((content[k] for k in keys if isinstance(content, dict) and _holds_tensors(content.get(k))), None)
        if content is None:
            raise UserError(f"{path}: holds no {' or '.join(keys)}, which was asked for")
    while isinstance(content, dict) and (key := next((k for k in _WRAPPERS if _holds_tensors(content.get(k))), None)):
        content = content[key]
    content = dict(module_tensors(content)) or content
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds a {type(content).__name__} instead of named tensors")
    tensors = {_stripped(str(name)): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content):
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        raise UserError(f"{path}: holds entries that are no tensors ({_listed(others)}) beside {len(tensors)} tensors")
    return tensors


def locate(checkpoint: str | Path) -> Path:
    """Return the model folder or the file that a `--checkpoint` means.

    Args:
        checkpoint: a run's folder, its exported model folder or the `model.safetensors` in it, the authors'
            released file, the name of released weights, or "owner/name" on the hub. The last two are fetched once.

    Raises:
        UserError: nothing of that name exists, or it cannot be fetched.
    """
    path = Path(checkpoint)
    if path.is_dir():
        exported = path / "model"
        return exported if (exported / WEIGHTS).is_file() and not (path / WEIGHTS).is_file() else path
    if path.is_file():
        return path.parent if path.name == WEIGHTS and (path.parent / "config.json").is_file() else path
    return from_hub(str(checkpoint)) if _is_hub_name(str(checkpoint)) else weights(str(checkpoint))


def beside(checkpoint: Path) -> Path:
    """Return the default folder for results of a located checkpoint: the one around it; for the hub, `runs/NAME`."""
    cached = checkpoint.parent.name == "snapshots"
    return Path("runs") / checkpoint.parents[1].name if cached else checkpoint.parent


def from_hub(name: str, **options: Any) -> Path:
    """Return the model folder "owner/name" of the Hugging Face hub, fetched once into the hub's own cache.

    Args:
        options: of `huggingface_hub.snapshot_download`.

    Raises:
        UserError: the hub has no such model, or cannot be reached and the cache does not hold it.
    """
    try:
        return Path(snapshot_download(name, **options))
    except Exception as error:  # the client's own errors, and those of the HTTP library below it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{name}: no such folder here, and the Hugging Face hub gives no model of this name ({reason}); "
            "correct the name, or fetch the folder by hand and name that"
        ) from None


def load_network(checkpoint: str | Path, network: type[N], from_released: Callable[[dict[str, Tensor], str], N]) -> N:
    """Return the network of a checkpoint, in evaluation mode on CPU, in the file's floating type.

    Args:
        checkpoint: see `locate`.
        network: the class of the project.
        from_released: builds the network from the authors' tensors; the second argument names them in errors.

    Raises:
        UserError: the checkpoint does not exist, is damaged, or belongs to another network.
    """
    path = locate(checkpoint)
    if not path.is_file():
        return network.from_pretrained(path)
    model = from_released(read_tensors(path), str(path))
    assert isinstance(model, nn.Module)
    return model.eval()


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load `tensors` into `model`; every name and shape must fit.

    Raises:
        UserError: names are missing, unexpected or of another shape, or tensors hold NaN or infinity; lists the names.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    untyped = [  # such as integers of a quantised file, which would be taken as they are
        f"{name} {str(tensors[name].dtype).removeprefix('torch.')}"
        for name, value in expected.items()
        if name in tensors and value.is_floating_point() and not tensors[name].is_floating_point()
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen, "of no float type": untyped}
    if problems := [f"{len(names)} {what} ({_listed(names)})" for what, names in found.items() if names]:
        raise UserError(f"{source}: does not fit {type(model).__name__}: {'; '.join(problems)}")
    broken = [name for name in expected if not torch.isfinite(tensors[name]).all()]
    if broken:
        raise UserError(
            f"{source}: {len(broken)} tensors hold NaN or infinity ({_listed(broken)}), so its training diverged; "
            "take an earlier checkpoint"
        )
    model.load_state_dict(dict(tensors))


def finite(values: Tensor) -> Tensor:
    """Return a network's output unchanged.

    Raises:
        UserError: it contains NaN or infinity.
    """
    if not torch.isfinite(values).all():
        raise UserError(
            "the network returned infinite or undefined values; use --mixed-precision no, or other weights or input"
        )
    return values


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: has no config.json; expected a folder written by save_pretrained") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds a {type(config).__name__}, expected the network's arguments by name")
    return config


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins with eight bytes (the header's length) and the header, a JSON object."""
    with path.open("rb") as file:
        return path.suffix.lower() == ".safetensors" or file.read(9)[8:] == b"{"


def _is_hub_name(text: str) -> bool:
    return text.count("/") == 1 and not text.startswith("/") and not Path(text).parent.exists()


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (dict, StandIn))


def _stripped(name: str) -> str:
    before = ""
    while before != name:
        before, name = name, _WRAPPED.sub(r"\1", name).removeprefix("module.")
    return name


def _listed(names: list[str], at_most: int = 4) -> str:
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")
