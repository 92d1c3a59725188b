"""The configuration that a run records in its `config.json`, and the check that a resumed run has the same one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from common.config import RunConfig, to_json
from common.errors import UserError
from common.files import sha256

# A resumed run may differ in these flags; with any other difference it would not be the same run.
_MAY_CHANGE = {"output", "resume", "max_steps", "workers", "data_root", "save_every"}


def describe(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the flags of a run ("config") and the SHA-256 of the files that they name ("files")."""
    flags = to_json(config)
    return {"config": flags, "files": _digests({k: v for k, v in flags.items() if k not in _MAY_CHANGE})}


def check_same(path: Path, described: dict[str, dict[str, Any]]) -> None:
    """Refuse to continue the run of a `config.json` with another configuration.

    Args:
        path: the run's `config.json`.
        described: the present configuration, from `describe`.

    Raises:
        UserError: a flag, or the content of a file that a flag names, has changed; or `path` is damaged.
    """
    files = described["files"]
    theirs = files | _read_flags(path)  # runs of earlier versions recorded no files
    changed = [
        f"{name} {theirs.get(name)!r} -> {value!r}"
        for name, value in (described["config"] | files).items()
        if name not in _MAY_CHANGE and json.dumps(theirs.get(name)) != json.dumps(value)  # NaN equals NaN
    ]
    if changed:
        raise UserError(
            f"{path.parent}: holds a run with another configuration ({', '.join(changed)}); "
            "choose another --output, or the same flags to continue it"
        )


def _read_flags(path: Path) -> dict[str, Any]:
    """The flags that a run's config.json records, and the digests of the files that they name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found.get("files", {}) | found["config"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: does not describe a run ({error!r}); choose another --output") from None


def _digests(flags: dict[str, Any]) -> dict[str, str]:
    """ "content of FLAG" → SHA-256 of the file that the flag names as FILE or FILE:KEY, for every such flag."""
    found = {}
    for name, value in flags.items():
        text = value if isinstance(value, str) else ""
        path = next((part for part in (text, text.rpartition(":")[0]) if part and os.path.isfile(part)), None)
        if path is not None:
            found[f"content of {name}"] = sha256(path)
    return found
