"""The tasks: what each command does, in one place. Imports nothing heavy: `--help` answers from it.

Functions are dotted names, imported when they are called: torch takes seconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import schema
from .ranges import Range

FAMILY = ("weights", "lora", "image", "speech", "adapter", "durations", "phoneme_bert")
WEIGHTS = (*(f"family.{key}" for key in FAMILY), "vocoder.path")
DENOISING = Range(1, 1000, "denoising steps, 1 to 1000")


@dataclass(frozen=True)
class Task:
    """What a command does.

    Attributes:
        name: of its configs/<name>.yaml and of its runs' folder.
        schema: the types of its configuration.
        run: a function of a configuration → result.
        check: of a configuration → (what it would do, what is wrong); what check=true calls.
        rules: of a configuration and a list, to which it adds what ranges and types do not say is wrong.
        figures: of a configuration → {name: Figure} of its result (figures.py).
        program: of the command line, after `python`.
        title: as errors tell it.
        packages: that it does not begin without.
        steps: the range of the key `steps`.
        inputs: keys of weights, which count by their content for what is the same run.
        volatile: keys that make no other run, beside those of all tasks.
        reads: the key of a run folder that it is about.
        trains: whether Lightning trains and logs, weights come out, and a run can be gone on with under other
            settings.
        makes_samples: whether its run folders hold samples of its own.
        recipes: groups whose choices are read by it, where those of other tasks are built by `_target_`.
        silent: whether it leaves its result to be printed.
    """

    name: str
    schema: Any = None
    run: str = ""
    check: str | None = None
    rules: str | None = None
    figures: str | None = None
    program: tuple[str, ...] = ()
    title: str = ""
    packages: tuple[str, ...] = ()
    steps: Range | None = None
    inputs: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    reads: str | None = None
    trains: bool = False
    makes_samples: bool = False
    recipes: tuple[str, ...] = ()
    silent: bool = False

    @property
    def command(self) -> str:
        """What begins its command line."""
        return " ".join(("python", *self.program))


def named(target: str) -> Callable[..., Any]:
    """The function of a dotted name, within this package where it begins with a dot; its module is imported
    now."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module, __package__), name)


GENERATE = Task(
    "generate", schema.Generate, ".generate.generate", ".checks.generate.check", ".validate.generate_rules",
    ".objectives.of_generation", program=("generate.py",), title="generate", steps=DENOISING, inputs=WEIGHTS,
    volatile=("batch_size",), makes_samples=True)
EVALUATE = Task(
    "evaluate", schema.Evaluate, ".scoring.evaluate.evaluate", ".checks.evaluate.check",
    ".validate.evaluate_rules", ".objectives.of_evaluation", program=("evaluate.py",), title="evaluate",
    inputs=WEIGHTS, volatile=("batch_size",), reads="run")
TRAIN = Task(
    "train", schema.Train, ".training.train.train", ".checks.train.check", ".validate.train_rules",
    ".objectives.of_training", program=("train.py",), title="training",
    packages=("lightning", "torchdata", "pandas", "pyarrow"),
    steps=Range(1, 100_000_000, "a whole number of at least 1"), trains=True)
CORPUS = Task(
    "corpus", schema.Corpus, ".data.build.build_from_config", program=("-m", "images_that_speak.data"),
    title="building a corpus", packages=("pandas", "pyarrow"), recipes=("data",), silent=True)
DEMO = Task(
    "demo", schema.Demo, ".demo.app.serve", rules=".validate.generate_rules",
    program=("-m", "images_that_speak.demo"), title="the page", packages=("gradio",), steps=DENOISING)
COLOUR = Task(
    "colour", schema.Colour, ".colour.colouring.colour", rules=".validate.colour_rules",
    program=("-m", "images_that_speak.colour"), title="colour")

TASKS = {task.name: task for task in (GENERATE, EVALUATE, TRAIN, CORPUS, DEMO, COLOUR)}


def task_of(name: object) -> Task:
    """The task of that name; of one that is not known, as a run folder may have it, no more than the name."""
    return TASKS.get(str(name)) or Task(str(name))
