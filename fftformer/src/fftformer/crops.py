"""A cache from which training crops are read without decoding whole images.

For one 128x128 crop, two 720x1280 PNGs would be decoded and 98 % of the pixels dropped. Usually such data sets are
cut into overlapping 512x512 PNGs. Then still sixteen times the needed pixels are decoded, some positions are seen
more often than others, and the overlaps are stored twice. Here every image is stored once, as an uncompressed array
that is mapped into memory, and only the rows of the crop are read. Every crop has the same bits as the crop from the
published files.

    OUTPUT/<split>/{blurred,sharp}/NAME.npy     (H, W, 3) uint8 or uint16
    OUTPUT/<split>/crops.json                   written last: the cache is complete and verified
    OUTPUT/<split>/progress.jsonl               one line per finished pair, from which a restart continues
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_path, sha256
from fftformer.data import Pair
from fftformer.images import read_pixels

MANIFEST = "crops.json"
_PROGRESS = "progress.jsonl"


def prepare(pairs: Sequence[Pair], folder: str | Path, *, workers: int) -> Iterator[bool]:
    """Write or complete the cache of one split.

    Files that an interrupted run finished are read and compared with their recorded SHA-256. Files that are missing,
    incomplete or made from other sources are written again.

    Args:
        pairs: from `layouts.find_pairs`.
        folder: OUTPUT/<split>.
        workers: number of processes; 1 uses this process.

    Yields:
        for every finished pair whether it was written now (True) or was already there and intact (False).

    Raises:
        UserError: a source is damaged, or the images of a pair differ in size.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest, progress = folder / MANIFEST, folder / _PROGRESS
    known = {record["name"]: record for record in _records(manifest, progress)}
    finished: dict[str, Any] = {}
    manifest.unlink(missing_ok=True)
    jobs = [(pair, folder, known.get(pair.name)) for pair in pairs]
    with progress.open("a", encoding="utf-8") as log, contextlib.ExitStack() as stack:
        if workers > 1:
            # Not fork: this process may have threads (of OpenCV or torch) on which a forked process would wait.
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn")))
            stack.callback(pool.shutdown, cancel_futures=True)  # after an error, do not process the other pairs
            results = pool.map(_prepare_pair, *zip(*jobs, strict=True))
        else:
            results = itertools.starmap(_prepare_pair, jobs)
        for record, made in results:
            finished[record["name"]] = record
            log.write(json.dumps(record) + "\n")
            log.flush()
            yield made
    with atomic_path(manifest) as temporary:
        # Non-ASCII characters are escaped, because a name may have bytes that are not valid UTF-8.
        temporary.write_text(json.dumps({"pairs": [finished[name] for name in sorted(finished)]}, indent=2))
    progress.unlink()


def verified_names(folder: str | Path) -> list[str]:
    """Return the names of the pairs in a complete cache, after checking that every file has its recorded size.

    Raises:
        UserError: the cache is not complete, or files are missing or truncated.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{manifest}: the cache is not complete; run prepare.py again, it continues")
    records = list(_records(manifest))
    damaged = [path for record in records for path, size, _ in _files(folder, record) if not _has_size(path, size)]
    if damaged or not records:
        raise UserError(
            f"{manifest}: {len(damaged)} of {2 * len(records)} files are missing or truncated "
            f"(first: {', '.join(map(str, damaged[:3])) or 'none listed'}); run prepare.py again, it writes them again"
        )
    return [record["name"] for record in records]


def _prepare_pair(pair: Pair, folder: Path, known: dict[str, Any] | None) -> tuple[dict[str, Any], bool]:
    sources = [[path.stat().st_size, path.stat().st_mtime_ns] for path in (pair.blurred, pair.sharp)]
    if (
        known
        and known["sources"] == sources
        and all(_has_size(path, size) and sha256(path) == digest for path, size, digest in _files(folder, known))
    ):
        return known, False
    record: dict[str, Any] = {"name": pair.name, "sources": sources, "bytes": [], "sha256": []}
    blurred, sharp = read_pixels(pair.blurred), read_pixels(pair.sharp)
    if blurred.shape != sharp.shape:
        raise UserError(f"{pair.blurred}: found shape {blurred.shape}, expected {sharp.shape} as in {pair.sharp}")
    for side, pixels in (("blurred", blurred), ("sharp", sharp)):
        path = folder / side / f"{pair.name}.npy"
        with atomic_path(path) as temporary:
            np.save(temporary, pixels, allow_pickle=False)
        record["bytes"].append(path.stat().st_size)
        record["sha256"].append(sha256(path))
    return record, True


def _records(*paths: Path) -> Iterator[dict[str, Any]]:
    """Read manifests and progress files; reading a file stops at an incomplete line, which a kill leaves."""
    for path in paths:
        if not path.is_file():
            continue
        try:
            if path.name == MANIFEST:
                yield from json.loads(path.read_text(encoding="utf-8"))["pairs"]
            else:
                for line in path.read_text(encoding="utf-8").splitlines():
                    yield json.loads(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue


def _files(folder: Path, record: dict[str, Any]) -> list[tuple[Path, int, str]]:
    sides = [folder / side / f"{record['name']}.npy" for side in ("blurred", "sharp")]
    return list(zip(sides, record["bytes"], record["sha256"], strict=True))


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
