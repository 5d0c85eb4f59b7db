"""Composing configurations, checking them, and building objects from them. Never imports torch.

Written for Hydra 1.3 and 1.4; what differs between them is dealt with here and nowhere else.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import hydra
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import UserError, nearest
from .files import read_text
from .help import fits
from .packages import how, missing_package
from .resources import CONFIGS, ROOT, choices, groups, own_configs
from .tasks import TASKS, named
from .validate import problems, sweep_problems

Kind = TypeVar("Kind")

# Hydra 1.3 behaves as 1.1 unless told otherwise; 1.4 does not want to be told.
VERSION = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}

# What a configuration may build: this package and the libraries it stands on.
ALLOWED = ("images_that_speak", "torch", "torchaudio", "torchdata", "torchvision", "lightning", "diffusers",
           "transformers", "peft", "open_clip")
# Parts of them that fetch or unpickle code.
REFUSED = ("torch.hub", "torch.load", "torch.package", "torch.serialization", "torch.utils.cpp_extension")

# Prompts are sentences, not Hydra expressions: they need no second pair of quotes.
FREE_TEXT = ("image_prompt", "audio_prompt")


class OwnConfigs(SearchPathPlugin):
    """Lets Hydra see one's own configurations behind the shipped ones, whose names stay theirs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        # A folder that is not there would be warned of at every start.
        if own_configs().is_dir():
            search_path.append("own", f"file://{own_configs()}")


Plugins.instance().register(OwnConfigs)
for _task in TASKS.values():
    ConfigStore.instance().store(name=f"{_task.name}_schema", node=_task.schema)
# OmegaConf 2.4, which comes with Hydra 1.4, has given the function the name of one that 2.3 has retired.
_renamed = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
_register: Any = OmegaConf.register_resolver if _renamed else OmegaConf.register_new_resolver
_register("root", lambda: str(ROOT), replace=True)


def compose(task: str, overrides: Iterable[str] = ()) -> DictConfig:
    """The configuration of `task` (train, generate, evaluate, corpus), overridden as on the command line.

    Raises UserError naming every override that does not fit and every value out of range.
    """
    overrides = list(overrides)
    found = check(task, overrides)
    if found:
        raise UserError("\n".join(found))
    return _compose(task, overrides)


def _compose(task: str, overrides: Sequence[str]) -> DictConfig:
    # Within a job Hydra is at work already, and would refuse a second time.
    state = GlobalHydra.instance()
    outer, state.hydra = state.hydra, None
    try:
        with hydra.initialize_config_dir(str(CONFIGS), **VERSION):
            return hydra.compose(task, list(overrides))
    finally:
        GlobalHydra.instance().hydra = outer


@cache
def defaults(task: str) -> DictConfig:
    """The configuration of `task` when nothing is chosen."""
    return _compose(task, ())


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as {dotted key: leaf}; lists and empty mappings are leaves."""
    if isinstance(value, Mapping) and value:
        return {key: leaf for name, child in value.items()
                for key, leaf in flatten(child, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


def changed(cfg: DictConfig, task: str) -> dict[str, Any]:
    """{dotted key: value} for everything that is not as in the plain configuration of `task`.

    Interpolations are kept as they are written, so that a machine's folders do not count as a change. A key
    that is gone has the value "absent".
    """
    before = flatten(OmegaConf.to_container(defaults(task), resolve=False))
    after = flatten(OmegaConf.to_container(cfg, resolve=False))
    gone = {key: "absent" for key in before if key not in after}
    # A prompt is none, whatever it holds.
    after |= {key: cfg[key] for key in FREE_TEXT if key in after and not OmegaConf.is_missing(cfg, key)}
    return {key: value for key, value in after.items()
            if key not in before or before[key] != value} | gone


def read_written(path: str | Path) -> dict[str, Any]:
    """The config.yaml of a run, which holds values and no interpolations: a prompt may look like one."""
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a configuration")
    return found


# --- overrides -------------------------------------------------------------------------------------------

def is_multirun(arguments: Sequence[str]) -> bool:
    return any(a in ("-m", "--multirun") or a.replace(" ", "").lower() == "hydra.mode=multirun"
               for a in arguments)


def quoted(argument: str, multirun: bool = False) -> str:
    """`key=value` with the value in quotes where Hydra could not read it as it is.

    A prompt is always taken literally; under --multirun its commas part the values of the sweep, but for
    those within quotes: `owl,"a frog, green"` are two.
    """
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-"):
        return argument
    if key.lstrip("+") in FREE_TEXT:
        if multirun:
            return f"{key}=" + ",".join(quote(escaped(text)) for text in swept_prompts(value))
        # In one pair of quotes it is as Hydra wants it; quotes of its own are part of it.
        whole = _QUOTED.fullmatch(value)
        return f"{key}={quote(escaped(unquoted(whole) if whole else value))}" if value != "null" else argument
    if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        if value[:1] not in "[{":
            return f"{key}={quote(value)}"
    return argument


# A prompt within quotes, which close before a comma or at the end; and one without, in which \, is a comma.
_QUOTED = re.compile(r"""\s*(?P<mark>["'])(?P<text>(?:(?!(?P=mark))[^\\]|\\.)*)(?P=mark)\s*(?=,|$)""",
                     re.DOTALL)
_PLAIN = re.compile(r"(?P<text>(?:\\,|[^,])*)")


def swept_prompts(value: str) -> list[str]:
    """The prompts of a sweep, which commas outside of quotes part.

    An apostrophe is no quote: one opens where a prompt begins and closes where it ends.
    """
    found, at = [], 0
    while at <= len(value):
        match = _QUOTED.match(value, at)
        if match is not None:
            found.append(unquoted(match))
        else:
            match = _PLAIN.match(value, at)
            assert match is not None  # it fits nothing, too
            found.append(match["text"].replace("\\,", ",").strip())
        at = match.end() + 1
    return found


def unquoted(match: re.Match[str]) -> str:
    """What a prompt in quotes says: what `quote` and `escaped` make of it, backwards."""
    text = re.sub(rf"(\\+)({match['mark']}|$)", lambda found: "\\" * (len(found[1]) // 2) + found[2],
                  match["text"])
    return re.sub(r"(\\+)\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text)


def escaped(text: str) -> str:
    """`text` as OmegaConf reads it literally: ${seed} in a prompt is no interpolation."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def quote(text: str) -> str:
    # Backslashes count only before a quote, in Hydra's grammar.
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', re.sub(r"(\\+)$", r"\1\1", text)) + '"'


def check(task: str, overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """Everything wrong with `overrides` and with the configuration they make; empty when all is well."""
    return examine(task, overrides, multirun)[1]


def examine(task: str, overrides: Sequence[str], multirun: bool = False) -> tuple[DictConfig, list[str]]:
    """The configuration that those of `overrides` make which fit, and everything that is wrong.

    Each value of a sweep is checked, alone; of an interval its ends; the configuration has the first. Costs
    one composition, and one more for every choice of a group and for every override when one is wrong.
    """
    parser, found = OverridesParser.create(), []
    searches = any(text == "hydra/sweeper=optuna" for text in overrides)
    each: list[list[str]] = []  # the ways that each override can be
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            found.append(f"{text}: cannot be read; expected key=value, a value with special characters in "
                         "quotes: 'key=\"a, b\"'")
            continue
        key = override.get_key_element()
        if not override.is_sweep_override():
            each.append([text])
        elif not multirun:
            found.append(f"{text}: several values need -m (or quotes, where a comma belongs to the value)")
        elif override.is_discrete_sweep():
            each.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif not searches:
            found.append(f"{text}: an interval has no end of values; give some, or hydra/sweeper=optuna, "
                         "which chooses among them")
        else:
            interval: Any = override.value()
            each.append([f"{key}={interval.start}", f"{key}={interval.end}"])
    firsts = [ways[0] for ways in each if ways]
    # ValueError: what Hydra makes of group=null.
    unfit = (HydraException, OmegaConfBaseException, ValueError)
    try:
        cfg = _compose(task, firsts)
    except unfit as error:
        # One of them does not fit: keep those that do, one after the other, and say what the others lack.
        kept: list[str] = []
        for text in firsts:
            try:
                _compose(task, [*kept, text])
                kept.append(text)
            except unfit as reason:
                found.append(explain(task, text, reason, kept))
        if len(kept) == len(firsts):
            raise UserError(f"configs/{task}.yaml: {first_line(error)}") from error
        cfg, firsts = _compose(task, kept), kept
    rules = [problems, *([sweep_problems] if multirun else []),
             *([named(".objectives.undeclared")] if searches else [])]
    found += [problem for rule in rules for problem in rule(cfg, task)]
    for ways in each:
        for way in ways[1:]:
            others = [text for text in firsts if text != ways[0]]
            try:
                other = _with(cfg, way) or _compose(task, [*others, way])
                more = [problem for rule in rules for problem in rule(other, task)]
            except unfit as reason:
                more = [explain(task, way, reason, others)]
            found += [problem for problem in more if problem not in found]
    return cfg, found


def _with(cfg: DictConfig, override: str) -> DictConfig | None:
    """`cfg` with a plain key set to another value; None where that takes composing, as with a group.

    Raises OmegaConfBaseException when the value does not fit.
    """
    parsed = OverridesParser.create().parse_override(override)
    key = parsed.get_key_element()
    if parsed.is_add() or parsed.is_delete() or not isinstance(key, str) or (CONFIGS / key).is_dir():
        return None
    if OmegaConf.select(cfg, key, default=cfg) is cfg:  # hydra's own, or in a section that is not there
        return None
    other = copy.deepcopy(cfg)
    OmegaConf.update(other, key, parsed.value(), merge=True)
    return other


def explain(task: str, override: str, error: Exception, others: Sequence[str] = ()) -> str:
    """Why `override` does not fit: the key or choice that does not exist, or the type that was expected."""
    key, _, value = override.partition("=")
    key = key.lstrip("+~").split("@")[0].strip()
    if key == "hydra/launcher" and (CONFIGS / key / f"{value}.yaml").is_file():
        return f"{override}: {first_line(error)} ({how('sweep')}, or '.[ray]', brings it)"
    if key in groups():
        options = {name: path for name, path in choices(key).items() if fits(path, key, task)}
        if value not in options:
            expected = f"expected one of {', '.join(options)}"
            return f"{override}: no such choice; {expected}.{nearest(value, options)}"
    try:
        known = flatten(OmegaConf.to_container(_compose(task, others), resolve=False))
    except (HydraException, OmegaConfBaseException):
        known = {}
    sections = {".".join(name.split(".")[:n]) for name in known for n in range(1, name.count(".") + 2)}
    if known and key not in sections and not key.startswith("hydra"):
        hint = nearest(key, [*known, *groups()]) or " --help lists them all."
        return f"{override}: unknown key {key!r}.{hint}"
    return f"{override}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The innermost reason of an error, its first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# --- objects ---------------------------------------------------------------------------------------------

def targets(node: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted key, node) of every mapping within `node` that has a `_target_`."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield where or "_target_", node
        for name, child in node.items():
            yield from targets(child, f"{where}.{name}" if where else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from targets(child, f"{where}[{index}]")


def is_own(name: str) -> bool:
    """Whether a dotted name begins with a module in the folder of one's own configurations.

    Such a module can be imported from then on; one that has the name of another does not hide it.
    """
    first, folder = name.split(".")[0], own_configs()
    if first in ALLOWED or not ((folder / f"{first}.py").is_file() or (folder / first).is_dir()):
        return False
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    spec = find_spec(first) if first.isidentifier() else None
    return spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(folder)


def locate(target: str, where: str = "_target_") -> Any:
    """The class or function that `target` names, when it belongs to this package, to an allowed library or to
    a module in the folder of one's own configurations.

    What a module merely imported does not belong to it: `images_that_speak.files.os.remove` is refused.
    """
    expected = f"expected a class or function of {', '.join(ALLOWED)}, or of a module in {own_configs()}"
    allowed = isinstance(target, str) and (target.split(".")[0] in ALLOWED or is_own(target))
    if not allowed or _within(target, REFUSED):
        raise UserError(f"{where}: {target!r} may not be built from a configuration; {expected}")
    try:
        found = hydra.utils.get_object(target)
    except Exception as error:
        if (said := missing_package(error)) is not None:
            raise UserError(f"{where}: {target!r}: {said}") from error
        raise UserError(f"{where}: {target!r} does not exist ({first_line(error)}); {expected}") from error
    home = getattr(found, "__module__", None) or ""
    known = home.split(".")[0] in (*ALLOWED, target.split(".")[0])
    if not callable(found) or not known or _within(home, REFUSED):
        raise UserError(f"{where}: {target!r} may not be built from a configuration; {expected}")
    return found


def class_of(cfg: DictConfig, section: str, kind: type[Kind]) -> type[Kind] | None:
    """The class that a section names by `_target_`, where it is one of `kind`; else None, which is told by
    whoever builds it."""
    key = f"{section}._target_"
    try:
        found = locate(OmegaConf.select(cfg, key), key)
    except UserError:
        return None
    return found if inspect.isclass(found) and issubclass(found, kind) else None


def _within(name: str, parents: Iterable[str]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def unbound(node: Any, where: str = "", given: Iterable[str] = ()) -> list[str]:
    """What is wrong with the `_target_`s within `node`: not allowed, or no argument of that name.

    Required arguments may be missing, for code adds some; `given` are those it adds to the outermost.
    """
    if isinstance(node, (DictConfig, ListConfig)):
        node = OmegaConf.to_container(node, resolve=True)
    found = []
    for key, entry in targets(node, where):
        try:
            takes, whatever = arguments(entry["_target_"], key)
        except UserError as error:
            found.append(str(error))
            continue
        if whatever:
            continue
        names = [name for name in entry if not (name.startswith("_") and name.endswith("_"))]
        found += [f"{key}.{name}: {entry['_target_']} takes no {name!r}.{nearest(name, takes)}"
                  for name in [*names, *(given if key == (where or "_target_") else ())] if name not in takes]
    return found


def arguments(target: str, where: str = "_target_") -> tuple[Collection[str], bool]:
    """The names of the arguments that a target takes, and whether it takes any others."""
    found = locate(target, where)
    try:
        takes = inspect.signature(found).parameters
    except ValueError:  # written in C: it has no signature
        return (), True
    return takes, any(p.kind is p.VAR_KEYWORD for p in takes.values())


def without_weights(node: Any) -> Any:
    """`node` with every loader in it told to leave weights in their files, and not to ask the hub.

    Loaders of this package take `weights` and `offline`; of the libraries' `from_pretrained` the network is
    on torch's meta device.
    """
    if isinstance(node, list):
        return [without_weights(child) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: without_weights(child) for key, child in node.items()}
    target = str(node.get("_target_", ""))
    if not target:
        return node
    takes, whatever = arguments(target)
    if whatever and target.endswith(".from_pretrained"):
        return {**node, "device_map": "meta", "local_files_only": True}
    return node | {key: value for key, value in (("weights", False), ("offline", True)) if key in takes}


def instantiate(node: Any, *args: Any, **kwargs: Any) -> Any:
    """Build what `node` describes by `_target_` and arguments; nested ones first.

    The one way from a configuration to objects. Containers arrive as plain lists and dicts. Raises UserError
    when a target is not allowed (see `ALLOWED`) or does not take an argument that is given.
    """
    if isinstance(node, (DictConfig, ListConfig)):
        node = OmegaConf.to_container(node, resolve=True)
    found = unbound(node)
    if found:
        raise UserError("\n".join(found))
    if isinstance(node, dict):
        node = {"_convert_": "all", **node}
    # Hydra 1.4 wants to be told what may be built; `locate` has been stricter already.
    policy = getattr(hydra.utils, "execution_whitelist", None)
    if policy is not None:
        own = {entry["_target_"].split(".")[0] for _, entry in targets(node)}
        kwargs["_execution_whitelist_"] = [f"{name}.*" for name in {*ALLOWED, *own}]
    try:
        return hydra.utils.instantiate(node, *args, **kwargs)
    except InstantiationException as error:
        if (reason := refusal(error)) is None:
            raise
        raise reason from None


def refusal(error: BaseException | None) -> UserError | None:
    """What was built refused its arguments: the message to read among those that Hydra wraps it in."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error
