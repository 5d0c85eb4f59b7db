"""From a command line to one function call: help, checks, the run that is finished already, errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import zip_longest
from typing import Any

from .files import shortest
from .tasks import TASKS, named

# What report.KEY=true makes of the run folder of a finished run: a function of a list of folders.
REPORTS = {"video": "images_that_speak.reports.video.videos_of"}
# Those of Hydra's flags that take a value.
VALUED = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun",
          "--cfg", "-c", "--package", "-p")
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help", "--version")


def launch(task: str, target: str | None = None) -> None:
    """Compose configs/`task`.yaml with the command line, check it, and run the task with it.

    target: dotted name of a function in the place of the task's own, of one argument, the configuration;
    imported only after the checks, for torch takes seconds and a typo should not cost them.
    Bad input is printed as one block and ends the process with exit code 2.
    """
    from .resources import OWN_CONFIGS

    target = target or TASKS[task].run
    arguments = sys.argv[1:]
    if (folder := _config_dir(arguments)) is not None:
        os.environ[OWN_CONFIGS] = folder
    if {"--help", "-h"} & set(arguments):
        from .help import help_text

        try:
            print(help_text(task), flush=True)
        except BrokenPipeError:  # `--help | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with errors_told(), composed(task, target, arguments) as cfg:
        if cfg is not None and answered(cfg, task) is None:
            conclude(named(target)(cfg), cfg, task)


@contextmanager
def errors_told() -> Iterator[None]:
    """Errors that a user can mend are printed as one block, and end the process with exit code 2."""
    from .errors import UserError
    from .terminal import lenient

    lenient()
    try:
        yield
    except UserError as error:
        lines = str(error).splitlines()
        print("error: " + "\n       ".join(lines), file=sys.stderr)
        sys.exit(2)
    except ImportError as error:
        from .packages import missing_package

        if (said := missing_package(error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command again goes on from here", file=sys.stderr)
        sys.exit(130)


@contextmanager
def composed(task: str, target: str, arguments: list[str]) -> Iterator[Any]:
    """The checked configuration of a command line, with Hydra's own at hand.

    None where nothing is left to do: a sweep has been run with `target`, or a flag of Hydra's answered. The
    configuration leaves Hydra before it is used: what Hydra calls would stand between each error and its
    cause, and it would print the command line before it.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from . import config
    from .errors import UserError
    from .terminal import typed

    # Errors reach this function instead of being printed and dropped by Hydra.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    arguments = [typed(argument, config.FREE_TEXT) for argument in arguments]
    multirun = config.is_multirun(arguments)
    arguments = [config.quoted(argument, multirun) for argument in arguments]
    if TASKS[task].trains:
        from .renamed import with_moved_keys
        from .runs import resumed

        arguments = with_moved_keys(resumed(arguments))
    # Hydra takes overrides only from one place on the line, where no flag parts them.
    overrides, flags = parted(arguments)
    sys.argv[1:] = arguments = [*overrides, *flags]
    if not any(argument.split("=")[0] in HYDRA_FLAGS for argument in arguments):
        cfg, found = config.examine(task, overrides, multirun)
        if found and cfg.get("check"):
            report(cfg, task, found)
        if found:
            raise UserError("\n".join(found))
    given: list[tuple[Any, Any]] = []

    def job(cfg: Any) -> Any:
        if multirun:
            return sweep_job(cfg, task, target)
        given.append((cfg, HydraConfig.instance().cfg))
        return None

    main = hydra.main(**config.VERSION, config_path=str(config.CONFIGS), config_name=task)(job)
    if multirun:
        _sweep(main, task)
    else:
        main()
    if not given:
        yield None
        return
    (cfg, hydra_cfg), before = given[0], HydraConfig.instance().cfg
    HydraConfig.instance().cfg = hydra_cfg
    try:
        yield as_read(cfg, task)
    finally:
        HydraConfig.instance().cfg = before


def as_read(cfg: Any, task: str) -> Any:
    """`cfg`, with what the run that it reads was made with: that is part of what this run is."""
    if TASKS[task].reads is None:
        return cfg
    from .runs import as_made

    return as_made(cfg)


def _sweep(main: Callable[[], Any], task: str) -> None:
    """Run a sweep in its folder and tell what came of its jobs. Ends with 1 when one of them failed."""
    from hydra.errors import InstantiationException

    from . import config
    from .runs import orphans, sweep

    folder = sweep.sweep_folder(task, parted(sys.argv[1:])[0])
    sweep.make_writable(folder)
    # Literally, for jobs may run in other processes and on other machines.
    orphans.mark()
    given, sys.argv = sys.argv, [sys.argv[0], f"hydra.sweep.dir={config.quote(str(folder))}", *sys.argv[1:]]
    _failed.clear()
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        main()
    except InstantiationException as error:  # of a sweeper or a launcher
        raise config.refusal(error) or error from None
    finally:
        sys.argv = given
        jobs = sweep.write_sweep(folder, task)
        if jobs:
            print(f"{sweep.shown(jobs)}\nsweep: {shortest(folder)}")
    failed = [job for job in jobs if job["status"] == "failed" and job["updated"] >= began]
    if failed or _failed:
        for job in failed:
            print(f"failed: {job['name']}: {job['error']}", file=sys.stderr)
        print(f"{max(len(failed), len(_failed))} jobs failed; the same command again tries them once more "
              "and makes nothing else again", file=sys.stderr)
        sys.exit(1)


_failed: list[str] = []  # in this process; those of others are found in the sweep's folder


def sweep_job(cfg: Any, task: str, target: str) -> Any:
    """Run a job of a sweep: a failure is recorded in its run folder, and the other jobs go on.

    Returns the figures that the sweep optimises, or None when the job failed or has none.
    """
    from . import kept, objectives
    from .runs import gpu, orphans, sweep

    orphans.watch()
    if cfg.get("device") in ("auto", "cuda"):
        gpu.claim()
    kept.keep()
    try:
        cfg = as_read(cfg, task)
        if (result := answered(cfg, task, brief=True)) is None:
            result = conclude(named(target)(cfg), cfg, task)
    except Exception as error:
        if not cfg.get("check"):
            sweep.record_failure(cfg, task, error)
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        _failed.append(str(error))
        return None
    names, result = list(cfg.get("optimized_metrics") or ()), result or {}
    found = objectives.figures(names, result)
    if "clip" in names and "clip" not in result and result.get("no_clip"):
        print(f"not among what is searched: no CLIP figure for {result['no_clip']}", file=sys.stderr)
    return found


def answered(cfg: Any, task: str, brief: bool = False) -> Any:
    """What there is to say of a configuration without running it: of a run that is finished, its result, and
    an empty one where check=true is answered. None where the task is to be run.

    Raises UserError on all that is wrong.
    """
    from . import runs
    from .terminal import lenient
    from .validate import problems, validate

    lenient()  # a job of a sweep may run in a process of its own
    # Again: a sweeper may have proposed values that were not on the command line.
    if cfg.get("check"):
        report(cfg, task, problems(cfg, task))
        return {}
    validate(cfg, task)
    done = runs.finished(cfg, task)
    if done is None:
        return None
    folder, result = done
    if (sweep := runs.current_sweep()) is not None:
        runs.join(sweep, folder)
    print(f"finished already: {shortest(folder)}" + ("" if brief else "  (fresh=true makes it anew)"))
    for change in runs.differences(folder, cfg):
        print(f"  its settings have changed since: {change}")
    if not brief:
        print(runs.describe(result))
    if TASKS[task].trains and (place := runs.export_weights(folder, cfg)):
        print(f"its weights were copied to {place}")
    write_reports(cfg, task)
    return result


def conclude(result: Any, cfg: Any, task: str) -> Any:
    """Make the reports of a run that has just finished; return its result."""
    write_reports(cfg, task)
    if TASKS[task].silent:
        print(result)
    return result


def write_reports(cfg: Any, task: str) -> None:
    """Make what the section `report` of a configuration asks for of the folder that it was run in."""
    from . import runs

    for name, target in REPORTS.items():
        if (cfg.get("report") or {}).get(name):
            named(target)([runs.latest(cfg, task)])


def report(cfg: Any, task: str, found: list[str]) -> None:
    """check=true: build what can be built cheaply, print what would happen, and do nothing.

    found: what is wrong with the configuration already. Raises one UserError with that and all that building
    brought to light.
    """
    from .checks.findings import Findings, run_folder
    from .errors import UserError

    try:
        lines, wrong = named(str(TASKS[task].check))(cfg)
    except ImportError:
        if not found:
            raise
        lines, wrong = [], []  # what lacks has been found already
    place = Findings()
    if not found:  # wrong settings will be changed, and the folder with them
        with place.step("paths"):
            place.tell("run folder", run_folder(cfg, task))
    print("\n".join([*lines, *place.lines]))
    wrong += place.problems
    # A key that is named already need not be named again by whoever stumbled over it.
    told = {_key(problem) for problem in found}
    found = [*found, *(problem for problem in dict.fromkeys(wrong) if _key(problem) not in told)]
    if found:
        raise UserError("\n".join(found))
    print("check=true: all is well; nothing was run")


def _key(problem: str) -> str:
    """The configuration key that a problem begins with."""
    return re.split(r"[=: ]", problem.lstrip("+"), maxsplit=1)[0]


def parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The key=value words of a command line; and its flags with their values, wherever they stand."""
    words: list[str] = []
    flags: list[str] = []
    wants = ""  # the flag before, which takes a value
    for argument in arguments:
        # The value of --info may be left out.
        if argument.startswith("-") or wants in VALUED or (wants in ("--info", "-i") and "=" not in argument):
            flags.append(argument)
            wants = argument if argument.startswith("-") else ""
        else:
            words.append(argument)
            wants = ""
    return words, flags


def _config_dir(arguments: list[str]) -> str | None:
    """What --config-dir names: the folder of one's own configurations for this command."""
    for argument, after in zip_longest(arguments, arguments[1:]):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            return value if equals else after
    return None
