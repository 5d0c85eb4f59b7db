"""Keys of configurations that have moved: the old one is taken for one release, and the new one named."""

from __future__ import annotations

import sys
from collections.abc import Iterable

# {an experiment of train.py: {the key before: the key now}}
MOVED = {
    "pocket/text": {"model.batch_size": "data.batch_size"},
    "pocket/scene": {"model.batch_size": "data.batch_size"},
    "pocket/durations": {"model.batch_size": "data.batch_size", "model.corpus": "data.corpus"},
    "pocket/clip": {"model.batch_size": "data.batch_size", "model.ramp": "data.ramp",
                    "model.ema_decay": "trainer.ema_decay"},
    "pocket/colour": {"model.batch_size": "data.batch_size", "model.corpus": "data.corpus"},
}


def with_moved_keys(arguments: Iterable[str]) -> list[str]:
    """The arguments of train.py with the keys of today; each that was another is told on stderr."""
    given = list(arguments)
    chosen = [argument.partition("=")[2] for argument in given if argument.startswith("experiment=")]
    moved = MOVED.get(chosen[-1], {}) if chosen else {}
    return [_today(argument, moved) for argument in given]


def _today(argument: str, moved: dict[str, str]) -> str:
    key, equals, value = argument.partition("=")
    bare = key.lstrip("+")
    if not equals or bare not in moved:
        return argument
    print(f"note: {bare} is called {moved[bare]} now; the old name goes with the next release",
          file=sys.stderr)
    return f"{moved[bare]}={value}"
