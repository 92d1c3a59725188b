"""Download published files and verify them.

    python -m common.download fftformer_gopro                       the authors' weights
    python -m common.download pavia_university --data-root DATA     the files of a scene that have an address
    python -m common.download --help                                what can be fetched, what goes where

A file appears under its name only when it is complete and its checksum is right. Files behind a registration or a
cloud-drive page cannot be fetched; the command prints where they come from and where to put them.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import UserError, command
from common.files import atomic_path, sha256


def fetch(url: str, path: str | Path, *, checksum: str = "", size: int | None = None, timeout: float = 30.0) -> Path:
    """Download one file.

    Args:
        checksum: expected SHA-256, or the file's git blob id (40 digits); empty: not checked.
        size: expected size in bytes.
        timeout: longest wait for an answer, in seconds.

    Raises:
        UserError: the address cannot be reached, the connection ended early, or size or checksum are wrong; `path`
            is then untouched.
        OSError: the folder cannot be written or the disk is full; `path` is then untouched.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        try:
            _receive(url, temporary, path.name, timeout)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"{url}: cannot be fetched ({reason}); download it by hand and save it as {path}"
            ) from error
        found = temporary.stat().st_size
        if size is not None and found != size:
            raise UserError(f"{url}: has {found:,} bytes, expected {size:,}; nothing was kept")
        what, digest = _digest(temporary, checksum)
        if checksum not in ("", digest):
            raise UserError(f"{url}: has {what} {digest}, expected {checksum}; nothing was kept")
    return path


def _receive(url: str, temporary: Path, name: str, timeout: float) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (common.download)"})
    with urllib.request.urlopen(request, timeout=timeout) as response, temporary.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(file, "write", total=total or None, desc=name) as target:
            shutil.copyfileobj(response, target)
        if file.tell() < total:
            raise ConnectionError(f"the connection broke off after {file.tell():,} of {total:,} bytes")


def _digest(path: Path, expected: str) -> tuple[str, str]:
    """Name and value of the kind of digest that `expected` is."""
    if len(expected) != 40:
        return "sha256", sha256(path)
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        return "git id", hashlib.file_digest(file, lambda: blob).hexdigest()


def released(files: Iterable[Path] | None = None) -> dict[str, dict[str, Any]]:
    """Return the weights that the papers' authors released, by name.

    Every project describes them in `released.toml`: `what`, `licence` and `note`, then `url`, `file`, `size` (bytes)
    and `git_blob` of a file that can be fetched, or the `place` of one that has to be downloaded by hand.

    Args:
        files: paths of such descriptions; by default those of the installed projects.
    """
    if files is None:
        files = (path for folder in dict.fromkeys(sys.path) for path in Path(folder or ".").glob("*/released.toml"))
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(files):
        found |= tomllib.loads(path.read_text(encoding="utf-8"))
    return found


def weights(name: str) -> Path:
    """Return the file of released weights; fetch and verify it the first time.

    It is stored in the folder that FULLPAPER_CACHE names, by default ~/.cache/fullpaper.

    Raises:
        UserError: there are no released weights of this name, or they cannot be fetched.
    """
    known = released()
    if name not in known:
        raise UserError(f"{name}: no such file or folder, and no released weights; known names: {', '.join(known)}")
    entry = known[name]
    if "url" not in entry:
        raise UserError(f"{name} cannot be fetched; get it by hand at {entry['place']} ({entry.get('note', '')})")
    folder = os.environ.get("FULLPAPER_CACHE") or Path.home() / ".cache" / "fullpaper"
    path = Path(folder) / entry["file"]
    if not path.exists():
        fetch(entry["url"], path, checksum=entry["git_blob"], size=entry["size"])
    return path


def describe() -> str:
    """List the weights and scenes that can be fetched, and say where the others come from."""
    from common.hyperspectral.classification.catalogue import files_of  # noqa: PLC0415 - `fetch` alone needs no scenes
    from common.hyperspectral.classification.published import CATALOGUE  # noqa: PLC0415

    lines = ["weights:"]
    for name, entry in released().items():
        lines.append(f"  {name}: {entry['what']}: {'fetched' if 'url' in entry else 'by hand, ' + entry['place']}")
    lines.append("scenes:")
    for name, scene in CATALOGUE.items():
        lines.append(f"  {name}: {scene.title}, {' × '.join(map(str, scene.shape))}")
        for source in files_of(scene):
            lines.append(f"    {name}/{source.file}: {'fetched' if source.url else f'place by hand, {source.origin}'}")
    return "\n".join(lines)


@command
def main() -> None:
    """Fetch released weights, or the files of a scene that have an address; print where to put the others."""
    from common.hyperspectral.classification.catalogue import files_of, find_entry  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="python -m common.download",
        description=__doc__,
        epilog=describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="name of weights or of a scene, from the list below")
    parser.add_argument("--data-root", type=Path, help="files of a scene go to DATA_ROOT/SCENE/")
    options = parser.parse_args()
    if options.name in released():
        print(weights(options.name))
        return
    entry = find_entry(options.name)
    if options.data_root is None:
        raise UserError(f"{options.name} is a scene; say with --data-root DIR where its files go")
    for source in files_of(entry):
        path = options.data_root / options.name / source.file
        if path.exists():
            print(f"{path} is there")
        elif source.url:
            fetch(source.url, path, checksum=source.checksum)
            print(f"{path} fetched" + ("" if source.checksum else " (no checksum is known)"))
        else:
            print(f"{path} must be placed by hand: {source.origin}")


if __name__ == "__main__":
    main()
