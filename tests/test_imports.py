"""No two files import one another, not even through others or from inside a function."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

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
    assert "diffusion.generate" in graph["generate"] and "runs.run" in graph["runs"]
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
