"""Tensors out of any torch file, without importing or calling anything that the file names.

Training checkpoints hold more than tensors: arguments, optimisers, NumPy numbers, whole modules. Loading them
the usual way imports and calls whatever they name, and the safe way refuses them. Here the pickle is replayed
with stand-ins: every class and function it names becomes an empty object that takes any arguments and does
nothing, except the few that describe tensors, whose place our own functions take.

Reads the zip archives of torch 1.6 and later, the format before, and plain pickles.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class StandIn:
    """Takes the place of every object of a class that the file names; keeps its state, does nothing.

    Attributes:
        state: what the pickle would have given the object, usually its attributes.
    """

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """Ignore constructor arguments that a pickle passes to `__new__`."""
        self = super().__new__(cls)
        self.state = None
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

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

    def add(self, value: Any) -> None:
        """Ignore a set's item."""


def read_inert(path: Path) -> Any:
    """Read a torch file or a pickle.

    Returns:
        what it holds: dicts, lists, numbers and tensors (on CPU) as they are, a `StandIn` for all else.

    Raises:
        Exception: of almost any kind, when the file is damaged.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                return _ZipReader(archive).load()
        file.seek(0)
        return _read_stream(file)


def module_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a pickled module, named as its `state_dict` would name them; nothing for other values."""
    if not (isinstance(value, StandIn) and isinstance(value.state, Mapping) and "_parameters" in value.state):
        return
    for kind in ("_parameters", "_buffers"):
        for name, tensor in value.state.get(kind, {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, child in value.state.get("_modules", {}).items():
        yield from module_tensors(child, f"{prefix}{name}.")


class _Reader(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """A function of ours for what describes tensors, a stand-in for all else."""
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("collections", "defaultdict"): lambda *_: defaultdict(None),
            ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_of_type,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
            ("torch.storage", "_load_from_bytes"): lambda data: _read_stream(io.BytesIO(data)),
        }
        if name in _DTYPES and module in ("torch", "torch.storage"):
            return name
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return known.get((module, name)) or type(name, (StandIn,), {"__module__": module})


class _ZipReader(_Reader):
    """The pickle of a zip archive; a storage is a file of the archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        super().__init__(io.BytesIO(archive.read(pickled)))
        self._archive, self._folder = archive, pickled.removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        order = f"{self._folder}byteorder"
        if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
            raise ValueError("written on a machine of another byte order")

    def persistent_load(self, identifier: Any) -> Tensor:
        """The storage that `("storage", type, key, location, elements)` names, as a flat tensor."""
        kind, storage, key, _, _ = identifier
        if kind != "storage" or storage not in _DTYPES:
            raise ValueError(f"unknown storage {identifier!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            dtype = _DTYPES[storage]
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


class _StreamReader(_Reader):
    """The pickle of the format before torch 1.6; the storages' bytes follow it."""

    def __init__(self, file: BinaryIO, storages: dict[str, Tensor]) -> None:
        super().__init__(file)
        self._storages = storages

    def persistent_load(self, identifier: tuple[Any, ...]) -> Any:
        """A storage that is filled later, or a part of it, as a flat tensor; the class of a `("module", ...)`."""
        kind, *rest = [part.decode() if isinstance(part, bytes) else part for part in identifier]
        if kind == "module":
            return rest[0]
        storage, key, _, elements, view = rest
        if key not in self._storages:
            self._storages[key] = torch.empty(int(elements), dtype=_DTYPES[storage])
        whole = self._storages[key]
        return whole if view is None else whole[view[1] : view[1] + view[2]]


def _read_stream(file: BinaryIO) -> Any:
    """A file of torch before 1.6 (five pickles and the storages), or a plain pickle."""
    storages: dict[str, Tensor] = {}
    content = _StreamReader(file, storages).load()
    if content != _LEGACY_MAGIC:
        return content
    for _ in ("protocol", "machine"):
        _Reader(file).load()
    content = _StreamReader(file, storages).load()
    for key in _Reader(file).load():
        values = storages[key.decode() if isinstance(key, bytes) else key]
        elements = int.from_bytes(file.read(8), sys.byteorder)
        data = bytearray(file.read(elements * values.element_size()))
        if elements != len(values) or len(data) != values.nbytes:
            raise EOFError(f"storage {key} is cut off")
        if data:
            values.copy_(torch.frombuffer(data, dtype=values.dtype))
    return content


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _rebuild_tensor_of_type(
    storage: Tensor, offset: int, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: torch.dtype, *_: Any
) -> Tensor:
    return storage.view(dtype).as_strided(tuple(size), tuple(stride), offset)
