"""Tensors out of a torch file that holds a pickled module, without running anything from it.

ESSAformer's authors saved the whole network with `torch.save({"model": network, ...})`. Loading
that the usual way imports and calls whatever the file names. Here the pickle is replayed with stand-ins:
every class and function it names becomes an empty object that takes any arguments and does nothing, except
the few that describe tensors, whose place our own functions take. No name of the file is ever imported.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class StandIn:
    """Takes the place of every object of a class that the file names; keeps its state, does nothing.

    Attributes:
        state: what the pickle would have given the object, usually its attributes.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """Ignore constructor arguments that a pickle passes to `__new__`."""
        self = super().__new__(cls)
        self.state = None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        """Objects called in turn give another stand-in."""
        return StandIn()

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Ignore a list's item."""

    def extend(self, values: Any) -> None:
        """Ignore a list's items."""


def read_module(path: Path) -> dict[str, Tensor] | None:
    """Read the tensors of the module in a torch file.

    Args:
        path: a file written by torch 1.6 or later, that is, a zip archive.

    Returns:
        dotted name → tensor on CPU, as the module's `state_dict` would give; None when the file is no such
        archive or holds no module at its top, or under `model`, `net`, `network` or `state_dict`.

    Raises:
        UserError: the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":  # an archive without its end
                raise UserError(f"{path}: damaged or not a checkpoint (a truncated archive); copy it again")
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
            content = _Reader(archive, pickled).load()
    except Exception as error:  # a broken pickle raises almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: damaged or not a checkpoint ({reason})") from None
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content.get(key) for key in ("model", "net", "network", "state_dict")]
    module = next((candidate for candidate in candidates if _is_module(candidate)), None)
    return None if module is None else dict(_tensors(module, ""))


class _Reader(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def __init__(self, archive: zipfile.ZipFile, pickled: str) -> None:
        super().__init__(io.BytesIO(archive.read(pickled)))
        self._archive, self._folder = archive, pickled.removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A function of ours for what describes tensors, a stand-in for all else."""
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if module == "torch" and name in _DTYPES:
            return name
        return known.get((module, name)) or type(name, (StandIn,), {"__module__": module})

    def persistent_load(self, identifier: Any) -> Tensor:
        """The storage that `("storage", type, key, location, elements)` names, as a flat tensor."""
        kind, storage, key, _, _ = identifier
        if kind != "storage" or storage not in _DTYPES:
            raise ValueError(f"unknown storage {identifier!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=_DTYPES[storage]) if data else torch.empty(0)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset).clone()


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _is_module(value: Any) -> bool:
    return isinstance(value, StandIn) and isinstance(value.state, Mapping) and "_parameters" in value.state


def _tensors(module: StandIn, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for kind in ("_parameters", "_buffers"):
        for name, value in module.state.get(kind, {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in module.state.get("_modules", {}).items():
        if _is_module(child):
            yield from _tensors(child, f"{prefix}{name}.")
