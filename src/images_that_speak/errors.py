"""The one error that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager


class UserError(ValueError):
    """Bad input. The message names the key or file, the value and what was expected."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the choice most like `name`, or an empty string."""
    found = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def few(names: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """The first of some names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return between.join(found[:most]) + more


@contextmanager
def gathered() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Steps that do not depend on each other, `with step():` each; their UserErrors are raised as one."""
    errors: list[str] = []

    @contextmanager
    def step() -> Iterator[None]:
        try:
            yield
        except UserError as error:
            errors.append(str(error))

    yield step
    if errors:
        raise UserError("\n".join(errors))
