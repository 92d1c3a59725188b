"""Named variants of a network: keywords of its class by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

N = TypeVar("N")


def build(network: type[N], variants: Mapping[str, Mapping[str, Any]], name: str, overrides: Mapping[str, Any]) -> N:
    """Build the variant of that name, with some of its keywords replaced.

    Raises:
        ValueError: unknown name or keyword, with the list of valid ones.
    """
    if name not in variants:
        raise ValueError(f"no variant {name!r}; there are {', '.join(variants)}")
    valid = list(inspect.signature(network.__init__).parameters)[1:]
    if unknown := sorted(set(overrides) - set(valid)):
        raise ValueError(f"{network.__name__} has no {', '.join(unknown)}; its keywords are {', '.join(valid)}")
    return network(**{**variants[name], **overrides})
