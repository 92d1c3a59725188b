"""The files that a scene is written to, and that none of them is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.errors import UserError
from common.hyperspectral import envi

FORMATS = (".hdr", ".img", ".dat", ".tif", ".tiff", ".mat", ".npy", ".npz")
"""Suffixes of the formats that are written; the first three are ENVI's."""


def output_files(path: Path) -> list[Path]:
    """The files that may be written for an output: ENVI's header and binary; a list of wavelengths beside others.

    Raises:
        UserError: a suffix that is not written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: unknown kind of file; expected one ending in {', '.join(FORMATS)}")
    if suffix in FORMATS[:3]:
        return [path.with_suffix(".hdr"), path.with_suffix(".img") if suffix == ".hdr" else path]
    return [path] if suffix in (".mat", ".npz") else [path, path.with_name(f"{path.stem}.wavelengths.txt")]


def refuse_inputs(outputs: Iterable[Path], references: Iterable[str]) -> None:
    """Refuse to write over a file that is read.

    Args:
        outputs: the files that will be written.
        references: `FILE[:KEY]` of the scenes that are read.

    Raises:
        UserError: naming the file.
    """
    for reference in references:
        path = Path(reference) if Path(reference).is_file() else Path(reference.rpartition(":")[0])
        header = envi.find_header(path)
        read = {path.resolve(), (header or path).resolve()}
        if header is not None and header == path:
            read.add(envi.read_layout(header).binary.resolve())
        for output in outputs:
            if output.resolve() in read:
                raise UserError(f"{output}: would replace a file of the input; choose another --output")
