"""From a command line to one function call: help, checks, the run that is finished already, errors."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

# What check=true calls: a function of a configuration that gives (what would happen, what is wrong).
CHECKS = {"generate": "images_that_speak.checks.generate.check",
          "evaluate": "images_that_speak.checks.evaluate.check",
          "train": "images_that_speak.checks.train.check"}
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help", "--version")


def launch(task: str, target: str) -> None:
    """Compose configs/`task`.yaml with the command line, check it, and call `target` with it.

    target: dotted name of a function of one argument, the configuration; imported only after the checks.
    Bad input is printed as one block and ends the process with exit code 2.
    """
    arguments = sys.argv[1:]
    query = next((argument for argument in arguments if argument.startswith("query=")), None)
    if query is not None and {"--shell-completion", "-sc"} & set(arguments):
        from .completion import answer

        print(answer(task, query))
        return
    if {"--help", "-h"} & set(arguments):
        from .help import help_text

        try:
            print(help_text(task), flush=True)
        except BrokenPipeError:  # `--help | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    from .errors import UserError

    # Errors reach this function instead of being printed and dropped by Hydra.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        _launch(task, target, arguments)
    except UserError as error:
        lines = str(error).splitlines()
        print("error: " + "\n       ".join(lines), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command again goes on from here", file=sys.stderr)
        sys.exit(130)


def _launch(task: str, target: str, arguments: list[str]) -> None:
    import hydra

    from . import config
    from .errors import UserError
    from .resources import OWN_CONFIGS

    if (folder := _config_dir(arguments)) is not None:
        os.environ[OWN_CONFIGS] = folder
    multirun = config.is_multirun(arguments)
    arguments = [config.quoted(argument, multirun) for argument in arguments]
    if task == "train":
        from .runs import resumed

        arguments = resumed(arguments)
    sys.argv[1:] = arguments
    if not any(argument.split("=")[0] in HYDRA_FLAGS for argument in arguments):
        cfg, found = config.examine(task, _overrides(arguments), multirun)
        if found and cfg.get("check"):
            return report(cfg, task, found)
        if found:
            raise UserError("\n".join(found))

    def job(cfg: Any) -> Any:
        return run_task(cfg, task, target)

    hydra.main(**config.VERSION, config_path=str(config.CONFIGS), config_name=task)(job)()


def run_task(cfg: Any, task: str, target: str) -> Any:
    """Call `target` with a composed configuration, unless its run is finished: then print what came of it."""
    from . import runs
    from .validate import problems, validate

    # Again: a sweeper may have proposed values that were not on the command line.
    if cfg.get("check"):
        return report(cfg, task, problems(cfg, task))
    validate(cfg, task)
    done = runs.finished(cfg, task)
    if done is not None:
        folder, result = done
        print(f"finished already: {_short(folder)}  (fresh=true makes it anew)")
        for change in runs.differences(folder, cfg):
            print(f"  its settings have changed since: {change}")
        print(runs.describe(result))
        return result
    module, _, name = target.rpartition(".")
    result = getattr(importlib.import_module(module), name)(cfg)
    if task == "corpus":  # the others print their own tables
        print(result)
    return result


def report(cfg: Any, task: str, found: list[str]) -> None:
    """check=true: build what can be built cheaply, print what would happen, and do nothing.

    found: what is wrong with the configuration already. Raises one UserError with that and all that building
    brought to light.
    """
    from .errors import UserError

    module, _, name = CHECKS[task].rpartition(".")
    lines, wrong = getattr(importlib.import_module(module), name)(cfg)
    print("\n".join(lines))
    # A key that is named already need not be named again by whoever stumbled over it.
    named = {_key(problem) for problem in found}
    found = [*found, *(problem for problem in dict.fromkeys(wrong) if _key(problem) not in named)]
    if found:
        raise UserError("\n".join(found))
    from .checks.findings import run_folder

    print(f"{'run folder':<12} {run_folder(cfg, task)}\ncheck=true: all is well; nothing was run")


def _key(problem: str) -> str:
    """The configuration key that a problem begins with."""
    return re.split(r"[=: ]", problem.lstrip("+"), maxsplit=1)[0]


def _overrides(arguments: list[str]) -> list[str]:
    """The key=value words of a command line; flags and their values left out."""
    found, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("-"):
            skip = argument in ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
                                "--experimental-rerun")
        else:
            found.append(argument)
    return found


def _config_dir(arguments: list[str]) -> str | None:
    """What --config-dir names: the folder of one's own configurations for this command."""
    for argument, after in zip(arguments, [*arguments[1:], None], strict=True):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            return value if equals else after
    return None


def _short(path: Path) -> str:
    """`path` as seen from here, when that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
