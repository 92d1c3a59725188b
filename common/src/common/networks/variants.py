"""Named variants of a network: variant name → keywords of its class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

N = TypeVar("N")


def build(network: type[N], variants: Mapping[str, Mapping[str, Any]], name: str, overrides: Mapping[str, Any]) -> N:
    """Build the named variant; `overrides` replace some of its keywords.

    Raises:
        ValueError: the name or a keyword is unknown; the message lists the valid ones.
    """
    if name not in variants:
        raise ValueError(f"no variant {name!r}; there are {', '.join(variants)}")
    valid = list(inspect.signature(network.__init__).parameters)[1:]
    if unknown := sorted(set(overrides) - set(valid)):
        raise ValueError(f"{network.__name__} has no {', '.join(unknown)}; its keywords are {', '.join(valid)}")
    return network(**{**variants[name], **overrides})
