"""Whether weights are numbers. Every network that is loaded is asked here."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeVar

from .errors import UserError

Network = TypeVar("Network")


def check_finite(weights: Mapping[str, Any], where: object) -> None:
    """Raise UserError naming the file or folder `where` and the first of its `weights` with NaN or infinity.

    weights: {name: array of numpy or tensor}. What such a network gives may look like a result: a sound of
    NaN, written as 16-bit numbers, is a wav of −1 throughout.
    """
    for name, value in weights.items():
        if not _finite(value):
            raise UserError(f"{where}: {name} holds NaN or infinity (expected finite weights); fetch it "
                            "again, or train it anew")


def finite(network: Network, where: object) -> Network:
    """`network`, a torch module read from `where`, when all of its weights are finite; see `check_finite`."""
    check_finite(network.state_dict(), where)  # type: ignore[attr-defined]
    return network


def _finite(value: Any) -> bool:
    """Of an array its least and greatest: they are NaN where any number is, and no copy is made."""
    if isinstance(value, (int, float)):
        return isfinite(value)
    floats = getattr(value.dtype, "kind", None) == "f" or getattr(value.dtype, "is_floating_point", False)
    if not floats or 0 in value.shape or getattr(value, "is_meta", False):
        return True
    return all(isfinite(float(edge)) for edge in (value.min(), value.max()))
