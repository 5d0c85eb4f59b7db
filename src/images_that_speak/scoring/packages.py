"""Judges that ordinary packages carry: where their files lie, and what to say where a package is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..packages import how

HOW = f"{how('judges')} brings it"


def package_folder(module: str, package: str, where: str) -> Path:
    """The folder of an installed package, none of whose code is run.

    module: its name in Python. package: its name for pip. where: the key that wants it, for the UserError
    raised where it is missing.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{where}: the package {package} is missing ({HOW})")
    return Path(next(iter(spec.submodule_search_locations)))


def required(module: str, package: str, where: str) -> Any:
    """The module of a library, imported; UserError where it is missing, as `package_folder` says it."""
    if find_spec(module) is None:
        raise UserError(f"{where}: the package {package} is missing ({HOW})")
    return import_module(module)
