"""`resume=RUN_DIR`: the command line of a run that is gone on with, with some settings changed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ..config import is_multirun
from ..errors import UserError, nearest
from ..files import read_json
from ..tasks import task_of


def resumed(arguments: Sequence[str]) -> list[str]:
    """`arguments` with what the run folder in `resume=…` was begun with put before them.

    A setting given anew takes the place of the recorded one. The run is composed again, not read from its
    config.yaml: so what follows from a changed setting changes too, and groups can be changed. Without
    `resume=` the arguments are returned as they are. Raises UserError when the folder is no run of train.py.
    """
    given = [text for text in arguments
             if text.startswith("resume=") and text not in ("resume=", "resume=null")]
    if not given:
        return list(arguments)
    if is_multirun(arguments):
        raise UserError(f"{given[-1]} with -m: the jobs of a sweep would all go on in one folder; resume the "
                        "runs one by one, or issue the sweep again, which goes on with what is unfinished")
    folder = Path(str(OverridesParser.create().parse_override(given[-1]).value()))
    if not (folder / "run.json").is_file():
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"resume={folder}: holds no run.json; expected a run folder of train.py."
                        f"{nearest(folder.name, siblings)}")
    info = read_json(folder / "run.json")
    if not task_of(info.get("task")).trains:
        raise UserError(f"resume={folder}: a run of {info.get('task')}; only a training is gone on with "
                        "under other settings (what generate.py and evaluate.py make is made anew)")
    names = {_key(text) for text in arguments}
    recorded = [text for text in _recorded(info["commands"][-1]) if _key(text) not in names]
    return [*recorded, *arguments]


def _recorded(command: dict) -> list[str]:
    """The overrides of a command in run.json."""
    overrides = command.get("overrides")
    if overrides is None:  # written before they were kept apart
        overrides = [word for word in shlex.split(command["command"])[2:] if not word.startswith("-")]
    return [text for text in overrides if _key(text) not in ("resume", "fresh")]


def _key(text: str) -> str:
    """The key of an override, without signs; of a word that is none, the word."""
    try:
        return OverridesParser.create().parse_override(text).get_key_element().lstrip("+~")
    except HydraException:
        return text
