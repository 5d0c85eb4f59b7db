"""What is installed, and which extra of pyproject.toml brings what is not. Imports none of it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import UserError

# {name it is imported by: extra that brings it}; all else that is imported is in every installation.
EXTRAS = {
    "lightning": "train", "torchdata": "train", "pandas": "train", "pyarrow": "train",
    "wandb": "wandb", "wandb_workspaces": "workspace", "tensorboard": "tensorboard",
    "hibari": "voices", "kokoro": "kokoro", "piper": "piper", "espeakng_loader": "espeak",
    "sentencepiece": "asr", "faster_whisper": "judges", "ctranslate2": "judges",
    "efficientnet_lite_pytorch": "judges",
    "skimage": "photos", "librosa": "pitch", "pesq": "quality", "pystoi": "quality",
    "torch_fidelity": "metrics", "onnxruntime": "metrics", "requests": "metrics",
    "av": "video", "gradio": "demo", "starlette": "demo", "optuna": "sweep",
}
UNLOCKED = ("ray", "kokoro")  # not in requirements.lock: what they need holds back what the others have


def installed(module: str) -> bool:
    """Whether `import module` would find something."""
    return find_spec(module) is not None


def how(extra: str) -> str:
    """The command that installs an extra, in the versions that were tested where there are any."""
    return f"pip install {'' if extra in UNLOCKED else '-c requirements.lock '}-e '.[{extra}]'"


def lacking(*modules: str, extra: str | None = None) -> str | None:
    """`lightning and pandas are not installed (…)`, or None when all are there.

    extra: the one to name, where several bring a module.
    """
    absent = [module for module in modules if not installed(module)]
    if not absent:
        return None
    names = " and ".join(filter(None, [", ".join(absent[:-1]), absent[-1]]))
    extras = ",".join(dict.fromkeys([extra] if extra else [EXTRAS[module] for module in absent]))
    return f"{names} {'is' if len(absent) == 1 else 'are'} not installed ({how(extras)})"


def need(*modules: str, where: str, extra: str | None = None) -> None:
    """Raise one UserError naming `where`, the key or thing that wants `modules`, unless all are installed."""
    if (lacks := lacking(*modules, extra=extra)) is not None:
        raise UserError(f"{where}: {lacks}")


def exit_without(*modules: str) -> None:
    """End the process with one line unless all `modules` are installed; for a file that imports them."""
    if (lacks := lacking(*modules)) is not None:
        raise SystemExit(f"error: {lacks}")


def missing_package(error: BaseException | None) -> str | None:
    """What to install where an import failed, or None when that is not why, or of no package known here.

    Looks at what the error was raised from, too: libraries wrap what they import for us.
    """
    while error is not None:
        module = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if module in EXTRAS:
            return f"{module} is not installed ({how(EXTRAS[module])}; `make setup` installs everything)"
        error = error.__cause__ or error.__context__
    return None


def package_folder(module: str, package: str, where: str) -> Path:
    """The folder of an installed package, none of whose code is run.

    module: its name in Python. package: its name for pip. where: the key that wants it, for the UserError
    raised where it is missing.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{where}: the package {package} is missing ({how('judges')} brings it)")
    return Path(next(iter(spec.submodule_search_locations)))


def required(module: str, package: str, where: str) -> Any:
    """The module of a library, imported; UserError where it is missing, as `package_folder` says it."""
    if find_spec(module) is None:
        raise UserError(f"{where}: the package {package} is missing ({how('judges')} brings it)")
    return import_module(module)
