"""What the shell offers at TAB: groups, choices, keys and values, read from configs/. Imports nothing heavy.

The scripts that `-sc install=bash|zsh|fish` prints are Hydra's; they ask `-sc query=…` with the line typed so
far. Hydra's own answer composes a configuration first, which takes as long as a person waits, and it does not
know choices in subfolders, such as experiment=pocket/speech.
"""

from __future__ import annotations

import os
import re
from glob import glob
from pathlib import Path
from typing import Any

from .help import defaults, fits
from .resources import CONFIGS, choices
from .values import CHOICES

FLAGS = ("--help", "--multirun", "--cfg", "--config-dir", "--shell-completion")
PATHS = ("run", "pictures", "prompts", "words", "export", "resume", "weights", "lora", "path",
         "root")


def answer(task: str, query: str) -> str:
    """What `-sc query=<shell>` prints for the line in COMP_LINE."""
    separator = "\n" if query.endswith("fish") else " "
    return separator.join(suggest(task, os.environ.get("COMP_LINE", "")))


def suggest(task: str, line: str) -> list[str]:
    """Words that may stand in place of the last one of `line`, the command typed so far."""
    words = line.split()
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), -1)
    given = words[script + 1:]
    last = given.pop() if given and not line[-1:].isspace() else ""
    if last.startswith("-"):
        return [flag for flag in FLAGS if flag.startswith(last)]
    sign = re.match(r"[+~]*", last)
    assert sign is not None
    word = last[sign.end():]
    groups = [group for group in defaults(CONFIGS / f"{task}.yaml") if group != "hydra"]
    key, equals, value = word.partition("=")
    if equals:
        found = [f"{key}={choice}" for choice in _values(task, key, value, groups, given)]
    else:
        found = _keys(task, word, groups, given)
    return [sign.group() + text for text in found if text.startswith(word)]


def _values(task: str, key: str, value: str, groups: list[str], given: list[str]) -> list[str]:
    if key in groups:
        return [name for name, path in choices(key).items() if fits(path, key, task)]
    if key in CHOICES:
        return list(CHOICES[key])
    if key.split(".")[-1] in PATHS or key.split(".")[0] == "paths" or value[:1] in ("/", ".", "~"):
        return _files(value)
    known: Any = tree(task, given)
    for name in key.split("."):
        known = known.get(name) if isinstance(known, dict) else None
    return ["true", "false"] if isinstance(known, bool) else []


def _keys(task: str, word: str, groups: list[str], given: list[str]) -> list[str]:
    """The keys of the section that `word` is in, `name=` or, where more follows, `name.`."""
    section, dot, _ = word.rpartition(".")
    known: Any = tree(task, given)
    for name in section.split(".") if dot else ():
        known = known.get(name) if isinstance(known, dict) else None
    found = [] if dot else [f"{group}=" for group in groups]
    for name, value in (known if isinstance(known, dict) else {}).items():
        if not str(name).startswith("_"):
            found.append(f"{section}{dot}{name}" + ("." if isinstance(value, dict) and value else "="))
    return list(dict.fromkeys(found))


def _files(start: str) -> list[str]:
    """Paths that begin with `start`, folders with a slash; those with blanks are left out."""
    found = sorted(glob(os.path.expanduser(start) + "*"))
    return [path + "/" * os.path.isdir(path) for path in found if " " not in path]


def tree(task: str, words: list[str]) -> dict[str, Any]:
    """The keys of `task` with the groups that `words` choose: nested, with values as they are written."""
    path = CONFIGS / f"{task}.yaml"
    said = {key: value for key, _, value in (word.lstrip("+").partition("=") for word in words)}
    chosen = defaults(path)
    for group in ("experiment", "debug"):
        if (file := choices(group).get(said.get(group, ""))) is not None:
            chosen |= defaults(file)
    chosen |= {group: choice for group, choice in said.items() if group in chosen}
    found = _load(path)
    for group, names in chosen.items():
        for name in names.strip("[]").split(","):
            file = choices(group).get(name)
            if file is not None:
                everywhere = file.read_text(encoding="utf-8").startswith("# @package _global_")
                _merge(found, _load(file) if everywhere else {group: _load(file)})
    return found


def _load(path: Path) -> dict[str, Any]:
    import yaml

    # The C loader where there is one: it is several times faster.
    loaded = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    return {key: value for key, value in loaded.items() if key != "defaults"}


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
