"""What was loaded, kept for the next job of the same process.

Loading a family and its readers takes longer than a short job, and the jobs of a sweep mostly differ in what
is done with them. Off unless `keep()` is called: a single command frees what it no longer needs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 8  # parts held; a family and its readers are six
_held: OrderedDict[Hashable, Any] = OrderedDict()
_on = False


def keep(on: bool = True) -> None:
    """From now on keep what is loaded; with False forget it all."""
    global _on
    _on = on
    if not on:
        _held.clear()


def kept(key: Hashable, load: Callable[[], T]) -> T:
    """What `load()` gave when it was last called under `key`, else what it gives now.

    `key` names everything that determines the outcome; files by `stamp`. What is not asked for longest is let
    go beyond `MOST`. What was loaded must not be changed by its users, or be brought back by them.
    """
    if not _on:
        return load()
    if key not in _held:
        # Before loading, so that no more than `MOST` are ever in memory.
        while len(_held) >= MOST:
            _held.popitem(last=False)
        _held[key] = load()
    _held.move_to_end(key)
    return _held[key]


def stamp(path: str | Path | None) -> Hashable:
    """The place, and names, sizes and times of the files there: changes when they are written anew."""
    if path is None or not Path(path).exists():
        return str(path)
    root = Path(path).resolve()
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return (str(root), *((str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files))
