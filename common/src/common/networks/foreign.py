"""Read the tensors of any torch file without importing or calling anything that the file names.

Training checkpoints hold more than tensors: arguments, optimisers, NumPy numbers, whole modules. `torch.load` imports
and calls everything that they name, and with `weights_only` it refuses them. Here torch reads the file with our own
unpickler: every class and function that the file names becomes an empty object that accepts any arguments and does
nothing, except the few functions of torch that make tensors.

It reads the zip archives of torch 1.6 and later, the older formats, and plain pickles.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor, _utils


class StandIn:
    """Replaces every object whose class the file names; it keeps the object's state and does nothing.

    Attributes:
        state: what the pickle gives the object, usually a dict of its attributes.
    """

    state: Any = None
    dump_patches = False  # torch asks the modules of old files for it

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        """A call returns another stand-in."""
        return StandIn()

    def _ignore(self, *_: Any) -> None: ...

    append = extend = add = __setitem__ = _ignore  # items of a list, a set or a dict


def read_inert(path: Path) -> Any:
    """Read a torch file or a pickle.

    Returns:
        its content: dicts, lists, numbers and tensors (on the CPU) as they are, a `StandIn` for everything else.

    Raises:
        Exception: the file is damaged; the error can have almost any type.
    """
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # old files hold the source of modules
        return _read(file)


def module_tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a pickled module under the names of its `state_dict`; nothing for other values."""
    if not (isinstance(value, StandIn) and isinstance(value.state, Mapping) and "_parameters" in value.state):
        return
    for kind in ("_parameters", "_buffers"):
        for name, tensor in value.state.get(kind, {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, child in value.state.get("_modules", {}).items():
        yield from module_tensors(child, f"{prefix}{name}.")


class _Unpickler(pickle.Unpickler):
    """Unpickler that imports nothing from the file; torch reads the storages."""

    def find_class(self, module: str, name: str) -> Any:
        """The functions of torch that make tensors; a stand-in for every other name."""
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        return _KNOWN.get((module, name)) or type(name, (StandIn,), {"__module__": module})


def _read(file: BinaryIO) -> Any:
    if is_zipfile(file):
        with ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ValueError("it holds a TorchScript program")  # for which torch would run its own loader
    else:
        file.seek(0)
        content = _load(file)
        if content != torch.serialization.MAGIC_NUMBER:
            return content
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_PICKLE)


def _load(file: BinaryIO, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE: Any = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=_load)
_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda *_: defaultdict(None),
    ("torch._utils", "_rebuild_tensor"): _utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _utils._rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch.storage", "_load_from_bytes"): lambda data: _read(io.BytesIO(data)),
}
