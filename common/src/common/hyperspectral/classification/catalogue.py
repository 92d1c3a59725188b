"""Read published scenes from their files: `load_scene("pavia_university", data_root)`.

Files are looked for in the data root and up to two folders below it, under their published names.
Arrays are read under their published keys, else the only fitting array is used; shapes must be the published ones.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.hyperspectral.classification.published import CATALOGUE, Published, Source
from common.hyperspectral.classification.splits import Split, fixed_split
from common.hyperspectral.labels import remap_labels
from common.hyperspectral.readers import read_array
from common.hyperspectral.scene import Scene, make_scene
from common.hyperspectral.stored import Stored


def load_scene(name: str, data_root: str | Path) -> Scene:
    """Load a published scene.

    Args:
        name: one of `CATALOGUE`.
        data_root: folder that holds the files, or folders with them.

    Raises:
        UserError: the name is unknown, a file is missing (the message says what to put where), or its content is not as
            published.
    """
    entry = find_entry(name)
    cube = _read(name, entry.cube, data_root, (3,))
    labels, codes = load_labels(name, data_root)
    if cube.values.shape not in (entry.shape, (entry.shape[2], *entry.shape[:2])):
        raise UserError(f"{cube.source}: has shape {cube.values.shape}; {entry.title} is published as {entry.shape}")
    # make_scene leaves labels without gaps unchanged; the published codes select the names.
    names = {index: entry.names[code - 1] for index, code in enumerate(codes, start=1)}
    scene = make_scene(
        name, cube.values, labels, names=names, composite_bands=entry.composite_bands, source=cube.source,
        georeference=cube.georeference, band_axis="last" if cube.values.shape == entry.shape else "first",
    )  # fmt: skip
    return replace(scene, codes=codes)


def load_labels(name: str, data_root: str | Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """Load a published ground truth without its cube.

    Returns:
        labels `(H, W)` int64 without gaps, 0 unlabelled, and the published code of each class.

    Raises:
        UserError: as in `load_scene`.
    """
    entry = find_entry(name)
    if entry.labels is None:
        labels, _ = load_fixed_split(name, data_root)
        return remap_labels(labels, name)
    stored = _read(name, entry.labels, data_root, (2,))
    expected = (entry.shape[0] * entry.label_scale, entry.shape[1] * entry.label_scale)
    if stored.values.shape != expected:
        raise UserError(f"{stored.source}: has shape {stored.values.shape}; {entry.title} is published as {expected}")
    values = reduce_labels(stored.values, entry.label_scale)
    found, counts = np.unique(values, return_counts=True)
    values = np.where(np.isin(values, found[counts < entry.minimum_pixels]), 0, values)
    labels, codes = remap_labels(values, stored.source)
    if max(codes) > len(entry.names):
        raise UserError(
            f"{stored.source}: holds class code {max(codes)}; {entry.title} has codes 1 to {len(entry.names)}"
        )
    return labels, codes


def load_fixed_split(name: str, data_root: str | Path) -> tuple[np.ndarray, Split]:
    """Load a published fixed split and the labels that it defines, `(H, W)` in the codes of the ground truth.

    Use these labels instead of the scene's, because some splits follow an older ground truth.

    Raises:
        UserError: the catalogue has no fixed split for the scene; or as in `load_scene`.
    """
    entry = find_entry(name)
    if entry.fixed is None:
        having = ", ".join(key for key, value in CATALOGUE.items() if value.fixed)
        raise UserError(f"{name} has no published fixed split here; {having} have")
    maps = []
    for source in entry.fixed:
        path = find_file(name, source, data_root)
        maps.append(_read_sample_list(path, entry) if path.suffix == ".txt" else read_array(path, (2,)).values)
        if maps[-1].shape != entry.shape[:2]:
            raise UserError(f"{path}: has shape {maps[-1].shape}; {entry.title} is published as {entry.shape[:2]}")
    return fixed_split(*maps, codes=entry.fixed_codes)


def reduce_labels(labels: np.ndarray, scale: int) -> np.ndarray:
    """Reduce labels `(H·scale, W·scale)` to `(H, W)`; a block is unlabelled unless all its pixels agree."""
    rows, columns = labels.shape[0] // scale, labels.shape[1] // scale
    blocks = labels.reshape(rows, scale, columns, scale)
    first = blocks[:, :1, :, :1]
    return np.where((blocks == first).all(axis=(1, 3)), first[:, 0, :, 0], 0)


def find_entry(name: str) -> Published:
    """Return the catalogue's entry of a scene.

    Raises:
        UserError: the name is unknown; the message lists the known names.
    """
    if name not in CATALOGUE:
        raise UserError(f"scene {name!r} is unknown; choose one of {', '.join(CATALOGUE)}, or pass --cube")
    return CATALOGUE[name]


def find_file(name: str, source: Source, data_root: str | Path) -> Path:
    """Return the path of a published file below the data root.

    Raises:
        UserError: the file is missing; the message says where to put it and how to get it.
    """
    root = Path(data_root)
    for pattern in (source.file, f"{name}/{source.file}", f"*/{source.file}", f"*/*/{source.file}"):
        if found := sorted(root.glob(pattern)):
            return found[0]
    get = f"python -m common.download {name} --data-root {root}" if source.url else source.origin
    raise UserError(f"{source.file} of {name} was not found under {root}; put it into {root / name}: {get}")


def _read(name: str, source: Source, data_root: str | Path, ranks: tuple[int, ...]) -> Stored:
    path = find_file(name, source, data_root)
    try:
        return read_array(f"{path}:{source.key}" if source.key else path, ranks)
    except UserError as error:
        if "has no key" not in str(error):
            raise
        return read_array(path, ranks)  # a copy may have another key; accepted if only one array fits


def _read_sample_list(path: Path, entry: Published) -> np.ndarray:
    """Class map `(H, W)` from an ENVI list of regions: their names and sizes, then a line `id x y ...` per pixel.

    Regions come in the order of the classes; x and y count from 1.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    sizes = [int(size) for size in re.findall(r"ROI npts:\s*(\d+)", text)]
    pixels = np.array(re.findall(r"^\s*\d+\s+(\d+)\s+(\d+)\b", text, flags=re.MULTILINE), dtype=np.int64).reshape(-1, 2)
    rows, columns = entry.shape[:2]
    if len(sizes) != len(entry.names) or sum(sizes) != len(pixels):
        raise UserError(
            f"{path}: lists {len(sizes)} regions of {sum(sizes)} pixels and {len(pixels)} pixels; expected "
            f"{len(entry.names)} regions with all their pixels, as exported from ENVI"
        )
    if len(pixels) and (pixels.min() < 1 or (pixels > (columns, rows)).any()):
        raise UserError(f"{path}: holds pixels outside the scene of {rows} rows and {columns} columns")
    labels = np.zeros((rows, columns), dtype=np.int64)
    labels[pixels[:, 1] - 1, pixels[:, 0] - 1] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    return labels


def files_of(entry: Published) -> list[Source]:
    """Return the files of a scene and of its fixed split, each once."""
    sources = [entry.cube, *([entry.labels] if entry.labels else []), *(entry.fixed or ())]
    return list({source.file: source for source in reversed(sources)}.values())[::-1]
