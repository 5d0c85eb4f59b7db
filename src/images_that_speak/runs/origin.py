"""What an evaluation takes from the run that it reads: the family, and the vocoder that plays pictures."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from .. import config
from ..files import read_json
from ..resources import ROOT
from ..tasks import FAMILY


def as_made(cfg: DictConfig, run: Path | None = None) -> DictConfig:
    """`cfg`, a configuration of evaluate.py, with the sections family and vocoder of the run that it reads.

    run: the run folder; by default that which `cfg` names, if any.

    A picture means what its own vocoder makes of it, and anchors compare with pictures of their own family.
    What the command says of either comes first: with a family of its own nothing is taken, with a vocoder the
    family only where it still is. What the run had left as it was is this checkout's, for a run may come from
    elsewhere. Prints what is taken; done again, it changes nothing.
    """
    run = run or (Path(cfg.run) if cfg.run else None)
    if run is None:
        return cfg
    given = _given(cfg)
    files = run / "run.json", run / "config.yaml"
    if "family" in given or not all(path.is_file() for path in files):
        return cfg
    changed = read_json(files[0]).get("changed") or {}
    made = config.read_written(files[1])
    sections = {name: _section(OmegaConf.to_container(cfg[name], resolve=False),
                               made[name], changed, name)
                for name in ("family", "vocoder") if name not in given and name in made
                and any(key.startswith(f"{name}.") for key in changed)}
    taken = cfg.copy()
    for name, section in sections.items():
        taken[name] = section
    if not sections or ("vocoder" in given and not _is_there(taken.family)):
        return cfg
    print(f"{' and '.join(sections)} as in {files[1]}, whose pictures these are; family=… or vocoder.path=… "
          "takes another")
    return taken


def _given(cfg: DictConfig) -> set[str]:
    """The sections that the command says something of, were it what they are by default."""
    keys = [*config.changed(cfg, "evaluate")]
    if HydraConfig.initialized():
        keys += [text.lstrip("+~").partition("=")[0] for text in HydraConfig.get().overrides.task]
    return {key.split(".")[0] for key in keys}


def _section(own: Any, made: Any, changed: Collection[str], name: str) -> dict[str, Any]:
    """The section `name` of a run, `made`, with `own` values for what the run had not changed."""
    return {key: own[key] if key in own and f"{name}.{key}" not in changed else _found(value)
            for key, value in made.items()}


def _found(value: Any) -> Any:
    """A path as a run was told it: seen from here, or else from the checkout."""
    if isinstance(value, str) and not Path(value).exists() and (ROOT / value).exists():
        return str(ROOT / value)
    return value


def _is_there(family: DictConfig) -> bool:
    """Whether the folders that a section names exist; an id of the hub's names none."""
    hub = ("image", "speech")
    return all(Path(family[key]).is_dir() for key in FAMILY if family.get(key) and key not in hub)
