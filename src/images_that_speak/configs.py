"""The configurations from the command line: list, show, copy and validate.

    python -m images_that_speak.configs list [GROUP …]
    python -m images_that_speak.configs show pocket/speech steps=100
    python -m images_that_speak.configs copy pocket/speech mine
    python -m images_that_speak.configs validate [GROUP/NAME …]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import config
from .errors import UserError, nearest
from .files import atomic_write
from .help import defaults, describe, fits
from .resources import CONFIGS, OWN_CONFIGS, ROOT, choices, groups, own_configs
from .tasks import GENERATE, TASKS, TRAIN
from .terminal import lenient
from .validate import problems

COMMAND_LINE = "command line"
WIDTH = 60  # of the values, beside which their files stand


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; the exit code."""
    lenient()
    parser = argparse.ArgumentParser(
        prog="python -m images_that_speak.configs",
        description="List, show, copy and validate configurations.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="experiments and groups, a line each")
    listing.add_argument("groups", nargs="*", metavar="GROUP")
    showing = commands.add_parser("show", help="a whole configuration, and the file each value comes from")
    showing.add_argument("words", nargs="*", metavar="TASK | EXPERIMENT | KEY=VALUE",
                         help="a task is train, generate, evaluate, corpus, demo or colour; without one it "
                              "is the experiment's, or generate")
    copying = commands.add_parser("copy", help="copy a choice, to change it under a name of your own")
    copying.add_argument("source", help="an experiment, or GROUP/NAME")
    copying.add_argument("name", help="what the copy is called")
    checking = commands.add_parser("validate", help="compose choices and compare them with what they build")
    checking.add_argument("names", nargs="*", metavar="EXPERIMENT | GROUP/NAME",
                          help="all, where none is given")
    given = parser.parse_args(arguments)
    try:
        if given.command == "list":
            print("\n".join(list_choices(given.groups)))
            if not given.groups:
                print("\nwhat the pocket family's painter draws: python -m images_that_speak.drawings")
        elif given.command == "show":
            task, overrides = understand(given.words)
            cfg, found = config.examine(task, overrides)
            print("\n".join(show(task, cfg, overrides)))
            if found:
                raise UserError("\n".join(found))
        elif given.command == "copy":
            print(copy(given.source, given.name))
        else:
            found = validate_choices(given.names)
            if found:
                raise UserError("\n".join(found))
            print("all is well")
    except BrokenPipeError:  # list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        print("error: " + str(error).replace("\n", "\n       "), file=sys.stderr)
        return 2
    return 0


# --- list


def list_choices(only: Sequence[str] = ()) -> list[str]:
    """Lines of every group with its choices and what they are; * marks a default.

    Raises UserError naming a group that does not exist.
    """
    known = groups()
    for group in only:
        if group not in known:
            raise UserError(f"{group}: no such group; expected some of {', '.join(known)}."
                            f"{nearest(group, known)}")
    lines = []
    for group in only or ["experiment", *(group for group in known if group != "experiment")]:
        users = [task for task in TASKS if group in defaults(CONFIGS / f"{task}.yaml")]
        lines += ["", f"{group}  ({', '.join(users) or 'used within others'})"]
        chosen = {defaults(CONFIGS / f"{task}.yaml")[group] for task in users}
        for name, path in choices(group).items():
            yours = "" if path.is_relative_to(CONFIGS) else f"  [{path}]"
            lines.append(f"  {'*' if name in chosen else ' '} {name:<25} {describe(path)}{yours}")
    return lines[1:]


# --- show


def understand(words: Sequence[str]) -> tuple[str, list[str]]:
    """`show`'s words as a task and overrides: a bare name is a task or an experiment.

    Raises UserError on a word that is neither.
    """
    task, overrides = None, []
    experiments = choices("experiment")
    for word in words:
        if word in TASKS and task is None:
            task = word
        elif "=" in word or word.startswith("~"):
            overrides.append(config.quoted(word))
        elif word in experiments:
            overrides.append(f"experiment={word}")
        else:
            raise UserError(f"{word}: neither a task ({', '.join(TASKS)}) nor an experiment nor key=value."
                            f"{nearest(word, [*TASKS, *experiments])}")
    chosen = next((text.partition("=")[2] for text in overrides if text.startswith("experiment=")), None)
    if task is None:
        task = _task_of(experiments[chosen]) if chosen in experiments else GENERATE.name
    return task, overrides


def _task_of(path: Path) -> str:
    """The task that an experiment is for, by the commands it shows."""
    text = path.read_text(encoding="utf-8")
    return next((name for name, task in TASKS.items() if task.command in text), TRAIN.name)


def show(task: str, cfg: Any, overrides: Sequence[str] = ()) -> list[str]:
    """`cfg` as YAML, resolved, with the file that each value comes from; an interpolation as it is written.

    A value that nothing has given is ???.
    """
    try:
        came = origins(task, overrides)
    except HydraException:  # one of them does not fit, which the caller tells
        came = origins(task)
    written = config.flatten(OmegaConf.to_container(cfg, resolve=False))
    lines = [f"# {TASKS[task].command} {' '.join(overrides)}".rstrip()]
    before: list[str] = []
    for key, raw in written.items():
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if before[:depth + 1] != sections[:depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        before = sections
        text = f"{'  ' * len(sections)}{name}: {_inline(_resolved(cfg, key))}"
        raw = f"  {raw}" if isinstance(raw, str) and "${" in raw else ""
        lines.append(f"{text:<{WIDTH}}  # {came.get(key, 'schema.py')}{raw}")
    return lines


def _resolved(cfg: Any, key: str) -> Any:
    if OmegaConf.is_missing(OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg,
                            key.rpartition(".")[2]):
        return "???"
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _inline(value: Any) -> str:
    """A value on one line, as YAML reads it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def origins(task: str, overrides: Sequence[str] = ()) -> dict[str, str]:
    """{dotted key: the file it comes from, or "command line"} of every leaf, in the order Hydra merges."""
    found: dict[str, str] = {}
    state = GlobalHydra.instance()
    outer, state.hydra = state.hydra, None
    try:
        with initialize_config_dir(str(CONFIGS), **config.VERSION):
            loader = GlobalHydra.instance().config_loader()
            sources = list(loader.get_sources())
            chosen = loader.compute_defaults_list(task, list(overrides), RunMode.RUN)
            for default in chosen.defaults:
                for key, file in _leaves(default, sources):
                    found[key] = file
    finally:
        GlobalHydra.instance().hydra = outer
    for text in overrides:
        key = text.partition("=")[0].lstrip("+~")
        if key not in groups():
            cfg = OmegaConf.create()
            OmegaConf.update(cfg, key, yaml.safe_load(text.partition("=")[2] or "null"))
            found |= dict.fromkeys(config.flatten(OmegaConf.to_container(cfg)), COMMAND_LINE)
    return found


def _leaves(default: ResultDefault, sources: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """(dotted key, file) of every leaf that one entry of the defaults list brings."""
    path = default.config_path
    if path is None or path.startswith("hydra"):
        return
    source = next((source for source in sources if source.is_config(path)), None)
    if source is None:
        return
    loaded = source.load_config(path)
    package = default.package if default.package is not None else loaded.header.get("package")
    values = OmegaConf.to_container(loaded.config, resolve=False)
    if not isinstance(values, dict):
        return
    values.pop("defaults", None)
    for key, value in config.flatten(values).items():
        # What a schema declares but does not set comes from wherever it is set.
        if value != "???" or source.provider != "schema":
            below = package if package != "_global_" else ""
            yield ".".join(filter(None, (below, key))), _file(source, path)


def _file(source: Any, path: str) -> str:
    if source.provider == "schema":
        return "schema.py"
    file = Path(source.path) / f"{path.removesuffix('.yaml')}.yaml"
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


# --- copy


def find(name: str) -> tuple[str, str, Path]:
    """(group, choice, file) of `group/choice`, or of an experiment by its name alone.

    Raises UserError when there is none.
    """
    experiments = choices("experiment")
    name = name.replace("=", "/", 1).removesuffix(".yaml")
    if name in experiments:
        return "experiment", name, experiments[name]
    group, _, choice = name.partition("/")
    if choice in choices(group):
        return group, choice, choices(group)[choice]
    known = [*experiments, *(f"{group}/{choice}" for group in groups() for choice in choices(group))]
    raise UserError(f"{name}: no such experiment or GROUP/NAME (list shows them).{nearest(name, known)}")


def copy(source: str, name: str) -> str:
    """Copy a choice into the folder of one's own configurations; what to say of it.

    The commands in its comments name the copy. Raises UserError when the name is taken or none.
    """
    group, choice, path = find(source)
    name = name.removesuffix(".yaml").removeprefix(f"{group}/")
    if not re.fullmatch(r"[\w-]+(/[\w-]+)*", name):
        raise UserError(f"{name}: expected letters, digits, - and _, perhaps in folders parted by /")
    if name in choices(group):
        raise UserError(f"{name}: {choices(group)[name]} has this name already; the shipped ones stay as "
                        "they are, and yours are not overwritten")
    target = own_configs() / group / f"{name}.yaml"
    text = re.sub(rf"(^#.*\b{group}=){re.escape(choice)}(?![\w/])", rf"\g<1>{name}",
                  path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    atomic_write(target, text)
    users = [task for task in TASKS if group in defaults(CONFIGS / f"{task}.yaml")]
    task = _task_of(path) if group == "experiment" else next(iter(users), None)
    use = f"{TASKS[task].command} {group}={name}" if task else f"{group}={name}"
    return (f"{target}\nedit it, then: {use}\n"
            f"{own_configs()} is searched after configs/, laid out in the same groups; ${OWN_CONFIGS} or "
            "--config-dir names another")


# --- validate


def validate_choices(names: Sequence[str] = ()) -> list[str]:
    """Everything wrong with choices, in every task they fit; without names, with all of them.

    Each is composed, its values are checked, and what it builds is compared with the signatures. Imports the
    libraries that are built from. Raises UserError on a name that does not exist.
    """
    chosen = [find(name) for name in names] or [
        (group, choice, path) for group in groups() for choice, path in choices(group).items()]
    found = []
    for group, choice, path in chosen:
        for task in TASKS:
            if group in defaults(CONFIGS / f"{task}.yaml") and fits(path, group, task):
                found += [f"{path}: {problem}" for problem in _problems(task, group, choice)]
    hidden = [path for path in own_configs().rglob("*.yaml")
              if (CONFIGS / path.relative_to(own_configs())).exists()]
    found += [f"{path}: hidden by the shipped one of the same name; give it another" for path in hidden]
    return list(dict.fromkeys(found))


def _problems(task: str, group: str, choice: str) -> list[str]:
    """What is wrong with one choice that is not wrong without it."""
    try:
        cfg = config._compose(task, [f"{group}={choice}"])
    except (HydraException, OmegaConfBaseException) as error:
        return [config.first_line(error)]
    before = problems(config.defaults(task), task)
    return ([problem for problem in problems(cfg, task) if problem not in before]
            + config.unbound(OmegaConf.to_container(cfg, resolve=False)))


if __name__ == "__main__":
    sys.exit(main())
