"""Parts declare what they are: nothing of ours is told by a probe for an attribute or by its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from images_that_speak.tasks import TASKS, Task, named

SRC = Path(__file__).parents[1] / "src"

# (file, what is probed): why. Of all other classes it is known what they have.
PROBES = {
    ("images_that_speak_optuna.py", "d"): "Optuna's distributions have a scale or choices, each its own",
    ("tasks.py", "importlib.import_module(module, __package__)"): "a function by its dotted name",
    ("sampling.py", "scheduler"): "diffusers' schedulers have sigmas or not",
    ("running.py", "vae"): "some of diffusers' autoencoders have no tiles, and the patch autoencoder none",
    ("composition.py", "made"): "a callable of the user's own, made a Composition where it is instantiated",
    ("config.py", "found"): "anything that a configuration names",
    ("config.py", "hydra.utils"): "only Hydra 1.4 wants a list of what may be built",
    ("picture.py", "image"): "not all of Pillow's readers count frames",
    ("neural.py", "torchaudio.pipelines"): "a bundle by its name",
    ("neural.py", "bundle"): "torchaudio's bundles have one file or two",
    ("files.py", "value"): "an array of numpy or a tensor of torch, which is not imported for it",
    ("heard.py", "torch"): "a type by its name",
    ("heard.py", "self.model.generation_config"): "only multilingual Whisper says so",
    ("weights.py", "value.dtype"): "a type of numpy or of torch, which is not imported for it",
    ("weights.py", "value"): "an array of numpy or a tensor of torch, which is not imported for it",
    ("sweep.py", "error"): "Run marks the errors of any kind that it has written down",
}
# (file, name): why a class is named in a string.
NAMES = {
    ("fields.py", "Picture"): "a heading",
    ("tabs.py", "Settings"): "a heading",
    ("vocoder.py", "GeneratorEMA"): "of checkpoints, where Lightning has written it",
    ("vocoder.py", "EMA"): "of checkpoints, where Lightning has written it",
}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SRC.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_no_class_of_ours_is_probed_for_what_it_has() -> None:
    found: dict[tuple[str, str], str] = {}
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and (
                    node.func.id in ("hasattr", "getattr")):
                found[path.name, ast.unparse(node.args[0])] = f"{path.relative_to(SRC)}:{node.lineno}"
    assert {key: where for key, where in found.items() if key not in PROBES} == {}
    assert set(PROBES) - set(found) == set()  # what is gone need not be excused


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """The strings of a module but for those of `__all__`."""
    listed = {id(node) for statement in tree.body if isinstance(statement, ast.Assign)
              and ast.unparse(statement.targets[0]) == "__all__" for node in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in listed:
            yield node


def test_no_class_of_ours_is_known_by_its_name() -> None:
    classes = {node.name for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found = {}
    for path, tree in trees():
        for node in strings(tree):
            if (name := str(node.value).rpartition(".")[2]) in classes:
                found[path.name, name] = f"{path.relative_to(SRC)}:{node.lineno}"
    assert {key: where for key, where in found.items() if key not in NAMES} == {}
    assert set(NAMES) - set(found) == set()


@pytest.mark.parametrize("abstract", ["Composition", "CellComposition", "Method", "Conditioner", "Metric",
                                      "SpeechReader", "PictureJudge", "Vocoder", "Colorizer", "Features",
                                      "SoundFeatures"])
def test_contracts_say_what_each_member_is(abstract: str) -> None:
    """Every public member of a contract that can be called has a docstring, but those Python knows."""
    bodies = {node.name: node for _, tree in trees() for node in ast.walk(tree)
              if isinstance(node, ast.ClassDef)}
    members = [node for node in bodies[abstract].body if isinstance(node, ast.FunctionDef)]
    assert ast.get_docstring(bodies[abstract])
    known = ("__init__", "forward") if abstract == "Conditioner" else ()
    silent = [node.name for node in members if not node.name.startswith("_") or node.name == "__call__"
              if not ast.get_docstring(node) and node.name not in known]
    assert [name for name in silent if name != "needs_phones"] == []  # told with the class


def test_no_task_is_told_by_its_name() -> None:
    """What a task does stands in its definition: nothing compares a name with that of a task."""
    found = {}
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = [side for part in (node.left, *node.comparators) for side in ast.walk(part)]
                words = {side.value for side in sides if isinstance(side, ast.Constant)} & {*TASKS}
                asked = ast.unparse(node)
                if words and "task" in asked:
                    found[f"{path.relative_to(SRC)}:{node.lineno}"] = asked
            # Nor does a table stand for comparisons.
            if isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                if len(keys & {*TASKS}) > 1:
                    found[f"{path.relative_to(SRC)}:{node.lineno}"] = str(keys)
    assert found == {}


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_what_a_task_names_is_there(task: Task) -> None:
    for target in (task.run, task.check, task.rules, task.figures):
        assert target is None or callable(named(target))
    assert task.command.startswith("python ") and task.title


def test_one_module_reads_and_writes_the_records_of_samples() -> None:
    found = {str(path.relative_to(SRC)) for path, tree in trees() for node in ast.walk(tree)
             if isinstance(node, ast.Constant) and node.value == "sample.json"}
    assert found == {"images_that_speak/runs/sample.py"}
