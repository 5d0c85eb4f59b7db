"""What is installed is what was tested, and what is not installed is one line that names the extra."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement

from images_that_speak import packages
from images_that_speak.errors import UserError
from images_that_speak.resources import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = PROJECT["name"]
# Distributions whose modules are called otherwise.
NAMES = {"open_clip_torch": "open_clip", "hydra-core": "hydra", "pillow": "PIL", "pyyaml": "yaml"}
# What the dependencies themselves cannot do without, and what stands beside the package in src.
BROUGHT = {"omegaconf", "huggingface_hub", "tokenizers", "images_that_speak", "hydra_plugins"}


def newest():
    """tools/newest.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("newest", ROOT / "tools/newest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requirements() -> list[tuple[str, Requirement]]:
    """(extra or "", requirement) of everything in pyproject.toml that the lock is to hold."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return [(extra, Requirement(text)) for extra, texts in groups.items() if extra not in packages.UNLOCKED
            for text in texts if Requirement(text).name != OWN]


def test_the_lock_holds_every_dependency_within_its_range() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lock = newest().locked(text)
    for extra, wanted in requirements():
        versions = lock.get(newest().plain(wanted.name), set())
        assert versions, f"[{extra}] {wanted.name} is not in requirements.lock; `make lock`"
        outside = [version for version in versions if not wanted.specifier.contains(version)]
        assert not outside, f"[{extra}] {wanted}: locked at {outside}; `make lock`"
    assert "://" not in text and "index-url" not in text


def test_the_lock_is_exact_and_holds_for_this_python() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
             if line.strip() and not line.startswith("#")]
    here: dict[str, str] = {}
    for line in lines:
        wanted = Requirement(line)
        assert re.fullmatch(r"==[^,*]+", str(wanted.specifier)), f"{line}: not one version"
        if wanted.marker is None or wanted.marker.evaluate():
            assert wanted.name not in here, f"{line}: two versions for this Python"
            here[wanted.name] = line
    assert all(newest().plain(wanted.name) in {newest().plain(name) for name in here}
               for _, wanted in requirements() if wanted.marker is None)


def test_extras_are_said_once_and_dev_holds_what_tests_need() -> None:
    extras = PROJECT["optional-dependencies"]
    inside = {name for text in extras["dev"] if Requirement(text).name == OWN
              for name in Requirement(text).extras}
    assert inside <= set(extras)
    assert {"train", "voices", "judges", "photos", "sweep", "demo", "video"} <= inside
    assert set(packages.EXTRAS.values()) <= set(extras)


def test_every_import_is_a_dependency_or_of_a_known_extra() -> None:
    base = {NAMES.get(name := Requirement(text).name, name).replace("-", "_")
            for text in PROJECT["dependencies"]}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                     [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [])
            for module in {name.split(".")[0] for name in names} - {""} - sys.stdlib_module_names - BROUGHT:
                assert module in base or module in packages.EXTRAS, (
                    f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not name")


def test_make_installs_from_the_lock_and_generating_only_what_it_needs() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line and "uv" not in line]
    assert installs and all("-c $(LOCK)" in line for line in installs)
    assert "LOCK := requirements.lock" in text

    def said(target: str) -> str:
        # Of a checkout in which nothing is installed.
        made = subprocess.run(["make", "-n", "-W", "requirements.lock", target], cwd=ROOT, check=True,
                              capture_output=True, text=True)
        return made.stdout

    generate = said("generate")
    assert ".[voices,judges]" in generate and ".[dev]" not in generate and "apt-get" not in generate
    assert ".[dev]" in said("test") and "tuxpaint-stamps-default" in said("test")


def test_newest_tells_what_the_lock_has_otherwise() -> None:
    tool = newest()
    lock = tool.locked("# made\nA-b==1.0\nnumpy==2.4 ; python_version < '3.12'\n"
                       "numpy==2.5 ; python_version >= '3.12'\n")
    assert lock == {"a-b": {"1.0"}, "numpy": {"2.4", "2.5"}}
    assert tool.differences({"a-b": "1.0", "numpy": "2.5"}, lock) == []
    assert tool.differences({"a-b": "1.1", "new": "3"}, lock) == ["a-b 1.0 → 1.1", "new absent → 3"]


def test_newest_asks_for_what_pyproject_asks_for_and_pip_is_told() -> None:
    tool = newest()
    assert {"torch", "diffusers", "hydra-core"} <= tool.dependencies("")
    assert "pytest" not in tool.dependencies("")
    # dev names other extras of ours, and train one more.
    assert {"pytest", "hibari-tts", "lightning", "wandb"} <= tool.dependencies("dev")
    assert OWN not in tool.dependencies("dev")
    assert tool.configured("") == []
    told = tool.configured(":env:.index-url='b'\n:env:.timeout='9'\nglobal.constraint='one.txt two.txt'\n"
                           "global.index-url='a'\nglobal.extra-index-url='c'")
    assert told == ["--constraint", "one.txt", "--constraint", "two.txt", "--index-url", "b"]


def test_newest_lays_what_differs_over_what_is_there(tmp_path: Path) -> None:
    tool = newest()
    with pytest.raises(SystemExit, match="--over .*nowhere: no environment there"):
        tool.lay_over(tmp_path, tmp_path / "nowhere")
    for name, text in (("above", "here = 'above'"), ("base", "here = 'base'")):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / name], check=True)
        [site] = (tmp_path / name).glob("lib/python*/site-packages")
        (site / "both.py").write_text(text)
    (site / "below.py").write_text(text)
    (told := site / "own_name-1.2.dist-info").mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: Own_Name\nVersion: 1.2\n")
    assert tool.lay_over(tmp_path / "above", tmp_path / "base") == {"own-name": "1.2"}
    done = subprocess.run([tmp_path / "above/bin/python", "-c",
                           "import both, below; print(both.here, below.here)"],
                          check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["above", "base"]


@pytest.mark.parametrize(("tests", "limit", "code", "said"), [
    ("exit 0", 200, 0, ("exit 0", "newest ran")),
    ("exit 3", 200, 2, ("exit 2", "newest ran")),
    ("exit 0", 100, 0, ("newest: skipped",)),
    ("sleep 60", 22, 124, ("cut off", "newest: skipped")),
])
def test_continuous_integration_ends_in_time_with_the_verdict_of_the_tests(
        tmp_path: Path, tests: str, limit: int, code: int, said: tuple[str, ...]) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text((ROOT / ".ci/run").read_text(encoding="utf-8"))
    (tmp_path / "Makefile").write_text(
        f"setup:\n\t@echo set up\ntest:\n\t@{tests}\nnewest:\n\t@echo newest ran; false\n")
    began = time.monotonic()
    done = subprocess.run(["sh", tmp_path / ".ci/run"], capture_output=True, text=True,
                          env={**os.environ, "CI_LIMIT": str(limit)})
    assert done.returncode == code and time.monotonic() - began < 20, done.stdout
    assert all(part in done.stdout for part in ("set up", *said)), done.stdout


def bare(tmp_path: Path, *command: str, absent: str) -> subprocess.CompletedProcess[str]:
    """Run Python as though the modules `absent` were not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({absent.split()!r}))\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    return subprocess.run([sys.executable, *command, *([f"paths.logs={tmp_path}"] if "data.streamed" not in
                                                       " ".join(command) else [])],
                          cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})


TRAINING = "lightning pytorch_lightning torchdata pandas pyarrow wandb tensorboard"


@pytest.mark.parametrize(("command", "parts"), [
    ("train.py experiment=pocket/text", ("training", "lightning", "[train]")),
    ("train.py experiment=pocket/text check=true", ("training", "lightning", "[train]")),
    ("-m images_that_speak.data", ("building a corpus", "pandas", "[train]")),
    ("-m images_that_speak.data.streamed a b", ("lightning", "pyarrow", "[train]")),
    ("generate.py logger=wandb", ("logger=wandb", "[wandb]")),
    ("generate.py logger=wandb check=true", ("logger=wandb", "[wandb]")),
    ("generate.py logger=tensorboard", ("logger=tensorboard", "[tensorboard]")),
])
def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path: Path, command: str,
                                                            parts: tuple[str, ...]) -> None:
    done = bare(tmp_path, *command.split(), absent=TRAINING)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if "not installed" in line]
    assert len(said) == 1 and all(part in said[0] for part in ("pip install -c requirements.lock", *parts))


def test_entry_scripts_say_where_the_package_is(tmp_path: Path) -> None:
    for script in ("generate.py", "evaluate.py", "train.py"):
        done = subprocess.run([sys.executable, "-S", "-E", script], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "make setup" in done.stderr and ".venv/bin/python" in done.stderr


def test_generating_and_evaluating_need_no_extra(tmp_path: Path) -> None:
    absent = " ".join(packages.EXTRAS) + " pytorch_lightning scipy sklearn matplotlib"
    modules = ("generate", "scoring.evaluate", "colour.colouring", "reports.commands", "checks.generate",
               "checks.evaluate")
    code = "\n".join(f"import images_that_speak.{module}" for module in modules)
    done = bare(tmp_path, "-c", code, absent=absent.replace("requests", ""))
    assert done.returncode == 0, done.stderr


def test_the_reason_is_found_beneath_what_libraries_raise() -> None:
    try:
        try:
            raise ModuleNotFoundError("No module named 'lightning.pytorch'", name="lightning.pytorch")
        except ModuleNotFoundError as error:
            raise ImportError("Error loading 'x'") from error
    except ImportError as error:
        assert "[train]" in str(packages.missing_package(error))
    assert packages.missing_package(ModuleNotFoundError("no", name="nonesuch")) is None
    with pytest.raises(UserError, match=r"^here: nonesuch and none2 are not installed \(.*\[judges\]"):
        packages.need("nonesuch", "none2", where="here", extra="judges")
