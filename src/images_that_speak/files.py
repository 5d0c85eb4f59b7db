"""Writing files so that a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it on success, remove it on failure.

    The temporary name keeps the suffix, since writers such as soundfile choose the format by it.
    Raises UserError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if path.parent.is_dir():  # a file may stand where the folder should
            temporary.unlink(missing_ok=True)


def names_apart(paths: Sequence[Path]) -> list[str]:
    """The name of each path; of those that share one, their way from the nearest folder that holds them all.

    A sample's folder is named after its prompts and seed, and so alike in every run that made it.
    """
    shared = Counter(path.name for path in paths)
    if max(shared.values(), default=1) == 1:
        return [path.name for path in paths]
    home = os.path.commonpath([path.resolve() for path in paths])
    return [path.name if shared[path.name] == 1 else os.path.relpath(path.resolve(), home) for path in paths]


def remove_temporary(folder: Path) -> None:
    """Remove what `atomic_path` left below `folder` where a process was killed while it wrote.

    Only for who knows that nobody else writes there.
    """
    for path in folder.rglob(".*.tmp*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp(\..+)?", path.name):
            path.unlink(missing_ok=True)


def replace_folder(source: Path, target: Path) -> None:
    """Copy a folder over another: under a temporary name first, so that `target` is never half written."""
    new, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    try:
        shutil.copytree(source, new)
        if target.exists():
            target.rename(old)
        new.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here for the same folder; what a killed one left there is removed.

    The system lets go of the folder when the process ends, however it ends.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        remove_temporary(folder)
        yield
    finally:
        os.close(handle)


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write `data` to `path` under a temporary name and rename."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def plain(value: Any) -> Any:
    """`value` as JSON knows it: numbers of numpy and torch, paths and tuples converted, NaN and ±∞ null."""
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(child) for child in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # an array or a tensor, of any size
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_text(path: str | Path) -> str:
    """A text file that people write: UTF-8 in every locale, without the mark that some editors put first.

    Raises UserError naming the file when it is not there or is no such text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text in UTF-8 ({error})") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON (NaN refused), atomically."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or broken file is a UserError naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def content_hash(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_hash(path: str | Path, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]


def shortest(path: str | Path) -> str:
    """A path as seen from here, or from the root where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
