"""What the types of a configuration cannot say: ranges, contradictions, files that must be there.

Every rule reports; none raises. So a user reads everything that is wrong at once. Never imports torch.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import UserError, nearest
from .packages import lacking
from .prompts import COLUMNS, read_pairs, read_sources
from .ranges import RANGES, SECONDS, Range
from .resources import LORA_FILES, lora_file
from .tasks import TASKS, named
from .values import CHOICES, ENDINGS_READ, PICTURE_READERS

SPEECH_PLACES = ("begin", "centre")  # speech.durations.PLACES, without importing torch
LOGGERS = {"wandb": "wandb", "tensorboard": "tensorboard"}
NOT_IN_NAMES = "/\\#?%:"  # of projects and teams at W&B
LONGEST_TAG = 64
PROFILED = 20  # steps that may be profiled
# A picture is optimised in more steps than a noise schedule has.
OPTIMISED = "images_that_speak.diffusion.score_distillation."


def validate(cfg: DictConfig, task: str) -> None:
    """Raise one UserError that lists everything wrong with `cfg`, a configuration of `task`."""
    found = problems(cfg, task)
    if found:
        raise UserError("\n".join(found))


def problems(cfg: DictConfig, task: str) -> list[str]:
    """Everything wrong with `cfg`, one line each; empty when all is well."""
    found = [f"{key}: no value; give {key}=…" for key in sorted(OmegaConf.missing_keys(cfg))]
    found += _strangers(cfg, TASKS[task].schema)
    steps = TASKS[task].steps
    if str(OmegaConf.select(cfg, "method._target_")).startswith(OPTIMISED):
        steps = Range(1, 1_000_000, "optimiser steps, 1 to 1000000")
    ranges = {**RANGES, **({"steps": steps} if steps else {})}
    for key, within in ranges.items():
        value = _select(cfg, key, found)
        if isinstance(value, (int, float)) and (told := within.wrong(key, value)) is not None:
            found.append(told)
    for key, choices in CHOICES.items():
        value = _select(cfg, key, found)
        if value is not None and value not in choices:
            found.append(f"{key}={value}: expected one of {', '.join(choices)}.{nearest(value, choices)}")
    if isinstance(eye := _select(cfg, "reader.picture", found), str) and eye not in PICTURE_READERS:
        found.append(f"reader.picture={eye}: expected one of {', '.join(PICTURE_READERS)}, null or a section."
                     f"{nearest(eye, PICTURE_READERS)}")
    if cfg.get("profile") and isinstance(cfg.get("steps"), int) and cfg.steps > PROFILED:
        found.append(f"profile=true, steps={cfg.steps}: expected at most {PROFILED} steps, for every "
                     "operation of every step is kept; debug=profile takes eight")
    if (rules := TASKS[task].rules) is not None:
        named(rules)(cfg, found)
    found += _packages(cfg, task)
    _wandb(cfg, found)
    return list(dict.fromkeys(found))


def _packages(cfg: DictConfig, task: str) -> list[str]:
    """What `cfg` chooses and is not installed."""
    chosen = {TASKS[task].title: TASKS[task].packages}
    for name, module in LOGGERS.items():
        logger = OmegaConf.select(cfg, f"logger.{name}")
        if logger is not None and logger.get("mode") != "disabled":
            chosen[f"logger={name}"] = (module,)
    if (cfg.get("report") or {}).get("video"):
        chosen["report.video=true"] = ("av",)
    return [f"{key}: {lacks}" for key, modules in chosen.items()
            if (lacks := lacking(*modules)) is not None]


def _wandb(cfg: DictConfig, found: list[str]) -> None:
    """What W&B refuses as a name, which it would say only when the run is begun."""
    section = OmegaConf.select(cfg, "logger.wandb")
    if section is None:
        return
    for key in ("project", "entity"):
        value = _select(cfg, f"logger.wandb.{key}", found)
        if value is None and key == "entity":
            continue
        name = str(value if value is not None else "")
        if not name.strip() or len(name) > 128 or set(name) & set(NOT_IN_NAMES):
            found.append(f"logger.wandb.{key}={value}: expected 1 to 128 characters without "
                         f"{' '.join(NOT_IN_NAMES)}")
    tags = _select(cfg, "logger.wandb.tags", found)
    if tags is None:
        return
    if not OmegaConf.is_list(tags):
        found.append(f"logger.wandb.tags={tags}: expected a list, logger.wandb.tags=[{tags}]")
        return
    found += [f"logger.wandb.tags: {str(tag)[:30]!r} has {len(str(tag))} characters; expected 1 to 64"
              for tag in tags if not 1 <= len(str(tag).strip()) <= LONGEST_TAG]


def sweep_problems(cfg: DictConfig, task: str) -> list[str]:
    """What is wrong with `cfg` as a job of a sweep."""
    found = []
    for key, alone in (("strategy", ("auto", "single_device")), ("devices", (1, "1")), ("num_nodes", (1,))):
        value = OmegaConf.select(cfg, f"trainer.{key}")
        if value is not None and value not in alone and not (OmegaConf.is_list(value) and len(value) == 1):
            found.append(f"trainer.{key}={value} with -m: each rank would run the whole sweep again; "
                         f"expected trainer.{key}={alone[0]} (hydra/launcher=local gives each job a GPU of "
                         "its own), or one command for each run, without -m")
    return found


def _strangers(cfg: DictConfig, schema: Any, prefix: str = "") -> list[str]:
    """Keys that no code reads: `+key=value` gets past the types."""
    known = {field.name: field.default_factory for field in fields(schema)}
    found = [f"+{prefix}{key}: unknown key {prefix + key!r}.{nearest(key, known)}"
             for key in map(str, cfg) if key not in known]
    for name, kind in known.items():
        if is_dataclass(kind) and OmegaConf.is_dict(cfg.get(name)):
            found += _strangers(cfg[name], kind, f"{prefix}{name}.")
    return found


def _select(cfg: DictConfig, key: str, found: list[str]) -> Any:
    """The value of `key`, or None; an interpolation that leads nowhere is a problem."""
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException as error:
        found.append(f"{key}: {str(error).splitlines()[0]}")
        return None


def generate_rules(cfg: DictConfig, found: list[str]) -> None:
    """Of generate.py and the demo's page."""
    phrases: list[str] = []
    if cfg.get("prompts") is not None:
        found += _file_problems("prompts", cfg.prompts, phrases)
    else:
        empty = [key for key in COLUMNS if not OmegaConf.is_missing(cfg, key) and not cfg[key].strip()]
        found += [f"{key}={cfg[key]!r}: expected some words" for key in empty]
        phrases += [cfg.audio_prompt] if not OmegaConf.is_missing(cfg, "audio_prompt") and not empty else []
    if _speaks_phonemes(cfg):
        found += [problem for phrase in dict.fromkeys(phrases) for problem in _phrase_problems(phrase)]
    if cfg.get("metrics") and cfg.reader is None:
        found.append(f"metrics={'+'.join(map(str, cfg.metrics))}: nothing is read back (reader=none), so "
                     "nothing would be measured; expected another reader, or metrics=none")
    starts = [_select(cfg, f"guidance.{branch}_start", found) for branch in ("image", "audio")]
    if all(isinstance(start, (int, float)) and not math.isnan(start) and start > 0 for start in starts):
        found.append(f"guidance.image_start={starts[0]} and guidance.audio_start={starts[1]}: one of them "
                     "must be 0, for nothing would act before the earlier one")
    interval = list(_select(cfg, "guidance.interval", found) or [])
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
        found.append(f"guidance.interval={interval}: expected two fractions of the schedule, the first at "
                     "most the second, 0 to 1")
    start = _select(cfg, "phonemes.start", found)
    within = isinstance(start, (int, float)) and not isinstance(start, bool) and 0 <= start <= SECONDS
    if start is not None and start not in SPEECH_PLACES and not within:
        found.append(f"phonemes.start={start}: expected {', '.join(SPEECH_PLACES)}, or seconds from 0 to "
                     f"{SECONDS}.{nearest(str(start), SPEECH_PLACES)}")
    _family(cfg, found)


def evaluate_rules(cfg: DictConfig, found: list[str]) -> None:
    """Of evaluate.py."""
    given = [key for key in ("run", "pictures") if cfg[key] is not None]
    if len(given) != 1:
        found.append("run, pictures: give exactly one of run=DIR (a run folder of generate.py) and "
                     f"pictures=DIR (a folder of pictures, or one); got {' and '.join(given) or 'neither'}")
    if "run" in given:
        found += _folder_problems("run", cfg.run) or (_run_problems(cfg.run) if given == ["run"] else [])
    if "pictures" in given:
        found += _picture_problems(cfg.pictures)
    if cfg.reader is None:
        found.append("reader=none: nobody would read the pictures; expected another choice")
    if cfg.prompts is not None:
        found += _file_problems("prompts", cfg.prompts)
    if not OmegaConf.is_missing(cfg, "words"):
        from .resources import words

        try:
            words(cfg.words)
        except UserError as error:
            found.append(f"words={cfg.words}: {error}")
    _family(cfg, found)


def colour_rules(cfg: DictConfig, found: list[str]) -> None:
    """Of colouring the samples of a run."""
    if cfg.run is None:
        found.append("run: nothing to colour; give run=DIR, a run folder of generate.py")
    else:
        found += _folder_problems("run", cfg.run) or _run_problems(cfg.run)


def _picture_problems(path: str) -> list[str]:
    """That there is neither such a folder nor such a picture."""
    if not Path(path).is_file():
        return [problem.replace("no such folder", "no such folder or picture")
                for problem in _folder_problems("pictures", path)]
    if Path(path).suffix.lower() in ENDINGS_READ:
        return []
    return [f"pictures={path}: no picture by its name; expected a folder, or a file of "
            f"{', '.join(ENDINGS_READ)}"]


def _folder_problems(key: str, path: str) -> list[str]:
    """That there is no such folder."""
    if Path(path).is_dir():
        return []
    siblings = Path(path).parent
    names = [child.name for child in siblings.iterdir()] if siblings.is_dir() else []
    return [f"{key}={path}: no such folder.{nearest(Path(path).name, names)}"]


def _run_problems(path: str) -> list[str]:
    """That a folder is none of a run of generate.py."""
    if not Path(path).is_dir() or (Path(path) / "samples").is_dir():
        return []
    return [f"run={path}: holds no folder samples; expected a run folder of generate.py"]


def train_rules(cfg: DictConfig, found: list[str]) -> None:
    """Of train.py."""
    if cfg.resume is not None and cfg.fresh:
        found.append(f"resume={cfg.resume}, fresh=true: one goes on in a folder, the other begins a new one; "
                     "give one of them")
    if cfg.model is None:
        from .resources import choices

        names = [*choices("experiment")]
        found.append("experiment: nothing to train; give experiment=… or model=…"
                     + (f" (experiments: {', '.join(names)})" if names else ""))
    elif cfg.adapter is not None and "${adapter" not in OmegaConf.to_yaml(cfg.model):
        found.append("adapter: this model does not read it, so the choice would change nothing; expected "
                     "none, or an experiment whose model.conditioner is ${adapter}, such as pocket/speech")


def _family(cfg: DictConfig, found: list[str]) -> None:
    """The embedded weights are a folder; those of the hub are looked for when they are loaded."""
    path = _select(cfg, "family.weights", found)
    if path is not None and not (Path(path) / "family.json").is_file():
        found.append(f"family.weights={path}: holds no family.json; expected a family's weights, as "
                     "`make pocket` writes them")
    lora = _select(cfg, "family.lora", found)
    if lora is not None and lora_file(lora) is None:
        found.append(f"family.lora={lora}: holds no {LORA_FILES[0]}; expected the folder weights of a run "
                     "that trained a LoRA, or a safetensors file")


def _speaks_phonemes(cfg: DictConfig) -> bool:
    """Not with a family whose speech branch reads the prompt as a text, which may be in any language."""
    return OmegaConf.select(cfg, "family.adapter", default="built in") is not None


def _phrase_problems(phrase: str) -> list[str]:
    from .speech.normalisation import normalise_text

    try:
        normalise_text(phrase)
    except UserError as error:
        return [f"audio_prompt={phrase!r}: {str(error).removeprefix(f'text {phrase!r}: ')}"]
    return []


def _file_problems(key: str, path: str, phrases: list[str] | None = None) -> list[str]:
    """What is wrong with a file of pairs; its audio prompts are added to `phrases`."""
    try:
        if phrases is None:
            read_pairs(path)
        else:
            phrases += [speech.prompt for _, speech in read_sources(path)
                        if speech.file is None and speech.prompt is not None]
    except UserError as error:
        return [f"{key}={path}: {str(error).removeprefix(f'{path}: ')}"]
    return []
