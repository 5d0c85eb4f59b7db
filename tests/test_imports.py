"""No two files import one another, not even through others or from inside a function, and what a photograph
does not need is not imported to make it speak."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from images_that_speak.resources import ROOT

PACKAGE = ROOT / "src/images_that_speak"


def imports(package: Path) -> dict[str, set[str]]:
    """{module: the modules of the package that it imports anywhere}, by dotted names below the package."""
    paths = {path: ".".join(path.relative_to(package).with_suffix("").parts)
             for path in package.rglob("*.py")}
    files = {name.removesuffix("__init__").strip("."): path for path, name in paths.items()}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        # What a relative import of one dot starts from.
        home = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name.removeprefix(f"{package.name}.") for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parts = [*home[: len(home) + 1 - node.level], *(node.module or "").split(".")]
                base = (".".join(filter(None, parts)) if node.level
                        else str(node.module).removeprefix(package.name).lstrip("."))
                for alias in node.names:
                    module = f"{base}.{alias.name}".lstrip(".")
                    wanted.add(module if module in files else base)
        found[name] = wanted & set(files) - {name, ""}
    return found


def test_nothing_imports_in_a_circle() -> None:
    graph = imports(PACKAGE)
    # Were names read wrongly, there would be few arrows and never a circle.
    assert "diffusion.planning" in graph["generate"] and "runs.run" in graph["runs"]
    assert "speech.normalisation" in graph["validate"] and "config" in graph["runs.run"]
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("text", [
    "from ..low import g", "def f():\n    from .. import low", "import house.low"])
def test_a_circle_is_found(tmp_path: Path, text: str) -> None:
    package = tmp_path / "house"
    (package / "room").mkdir(parents=True)
    for name in ("__init__.py", "room/__init__.py"):
        (package / name).touch()
    (package / "low.py").write_text("def g():\n    from house.room.high import f\n")
    (package / "room/high.py").write_text("import os\n")
    TopologicalSorter(imports(package)).prepare()
    (package / "room/high.py").write_text(text)
    with pytest.raises(CycleError, match="'low'.*'room.high'|'room.high'.*'low'"):
        TopologicalSorter(imports(package)).prepare()


@pytest.mark.parametrize("code", ["", """
from pathlib import Path
from images_that_speak.config import compose
logs, photograph, recording = sys.argv[1:]
result = images_that_speak.generate.generate(compose("generate", [
    f"paths.logs={logs}", f"image={photograph}", f"speech={recording}", "reader=none", "picture.rows=256"]))
assert result["made"] == 1 and list(Path(logs).glob("generate/*/samples/*/image.png")), result
"""], ids=["imported", "made"])
def test_a_photograph_speaks_without_the_libraries_of_the_family(tmp_path: Path, code: str) -> None:
    """They take 300 MB and 4 s, and neither picture nor voice passes a network of theirs."""
    wave = 0.1 * np.sin(2 * np.pi * 150 * np.arange(16_000) / 16_000)
    soundfile.write(tmp_path / "me.wav", wave, 16_000)
    code = f"import sys\nimport images_that_speak.generate\n{code}\n" \
        "print({'diffusers', 'transformers', 'torchvision', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(
        ROOT / "docs/media/photographs/chelsea.jpg"), str(tmp_path / "me.wav")],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_no_two_modules_have_one_name() -> None:
    """But a network, its training and what is checked of a task: these bear the name of the thing."""
    named = [path.stem for path in PACKAGE.rglob("*.py")
             if not path.stem.startswith("__") and not {"networks", "training", "checks"} & set(path.parts)]
    assert [name for name, count in Counter(named).items() if count > 1] == []
