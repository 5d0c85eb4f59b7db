"""What `--help` prints, read from the comments of configs/. Imports nothing heavy: it answers at once."""

from __future__ import annotations

import re
from pathlib import Path

from .resources import CONFIGS, choices
from .tasks import TASKS

_KEY = re.compile(
    r"^(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?: +(?P<value>[^#\s].*?))?(?:  +# (?P<comment>.*))?$")
_DEFAULT = re.compile(r"^  - (?:optional )?(?:override )?/?(?P<group>[\w/]+): (?P<choice>\S+)")


def describe(path: Path) -> str:
    """What a config file is: its first comment that is not an instruction to Hydra."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
        if line.strip() and not line.startswith("# @"):
            break
    return ""


def options(path: Path) -> list[tuple[str, str, str]]:
    """(key, default, comment) of every commented key at the first level of a config file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _KEY.match(line)
        if match and not match["indent"] and match["comment"]:
            found.append((match["key"], match["value"] or "", match["comment"]))
    return found


def defaults(path: Path) -> dict[str, str]:
    """{group: choice} of a file's defaults list, overrides included; Hydra's own group left out."""
    found = map(_DEFAULT.match, path.read_text(encoding="utf-8").splitlines())
    return {match["group"]: match["choice"] for match in found if match and match["group"] != "hydra"}


def fits(path: Path, group: str, task: str) -> bool:
    """Whether a choice is one for `task`: a file that shows commands is for the scripts they run.

    A corpus and a training both have a group `data`: what is built from a `_target_` is a training's.
    """
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"^#   python (\w+)\.py", text, re.MULTILINE)
    if group == "data":
        return (group in TASKS[task].recipes) == ("_target_:" not in text)
    return not commands or task in commands


def help_text(task: str) -> str:
    """Usage, three commands, every option with its default, every choice of every group."""
    path = CONFIGS / f"{task}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    command = TASKS[task].command
    examples = [line[1:].strip() for line in lines if line.startswith("#   ")]
    groups = list(defaults(path).items())
    rows = options(path)
    for group, choice in groups:
        chosen = CONFIGS / group / f"{choice}.yaml"
        if group not in ("paths", "hydra") and chosen.exists():
            rows += [(f"{group}.{key}", value, comment) for key, value, comment in options(chosen)]
    paths = options(CONFIGS / "paths/default.yaml")
    rows += [(f"paths.{key}", value.replace("${root:}/", ""), comment) for key, value, comment in paths]
    out = [describe(path), "", f"usage: {command} [key=value …] [-m key=value,value …]", "", "examples:",
           *(f"  {example}" for example in examples), "", "options (key, default, meaning):"]
    width = max((len(key) for key, _, _ in rows), default=0)
    middle = min(max((len(value) for _, value, _ in rows), default=0), 20)
    out += [f"  {key:<{width}}  {value:<{middle}}  {comment}" for key, value, comment in rows]
    out += ["", "groups (group=choice; * is the default):"]
    for group, choice in groups:
        files = {name: file for name, file in choices(group).items() if fits(file, group, task)}
        for index, (name, file) in enumerate(files.items()):
            mark = "*" if name == choice else " "
            out.append(f"  {group if index == 0 else '':<12} {mark} {name:<25} {describe(file)}")
    out += ["", f"{command} --cfg job [key=value …] shows the whole configuration without running it;",
            "-m runs every combination of the values given; the same command again goes on where it stopped."]
    return "\n".join(out)
