"""Every command of the README, run: shortened where it would take minutes, in folders of the test."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from machine import HAS_FLITE

from images_that_speak import config
from images_that_speak.files import read_json
from images_that_speak.generate import generate
from images_that_speak.resources import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = [line.split(" #")[0].strip() for block in re.findall(r"```\n(.*?)```", README, re.S)
            for line in block.splitlines() if line.strip() and not line.startswith("#")]


def shortened(command: str, work: Path) -> list[str]:
    """The command as it is, with what makes it short."""
    words = shlex.split(command)
    assert words[0] == ".venv/bin/python", command
    logs, data = f"paths.logs={work / 'logs'}", f"paths.data={work / 'data'}"
    if words[1] == "generate.py":
        prompts = [] if "prompts=" not in command else [f"prompts={first_pair(work)}"]
        steps = "steps=2" if "steps=" not in command else "steps=3"
        reader = [] if "reader=" in command else ["reader=pocketsphinx"]
        return [*words[1:], logs, steps, *reader, *prompts]
    if words[1] == "evaluate.py":
        return [*words[1:], logs, "bootstrap=10"]
    if "images_that_speak.reports" in words:
        return [word.replace("logs/", f"{work}/logs/") for word in words[1:]]
    words = [word.replace("root=data/", f"root={work}/data/") for word in words]
    if words[1] == "-m":
        return [*words[1:], "data.prompts=12", "data.verify=2", "data.splits.valid=0.3"]
    return [*words[1:], logs, data, "steps=2", "export=null", "data.batch_size=2",
            "trainer.validate_every=1000"]


def first_pair(work: Path) -> Path:
    """The README's file of pairs, cut after its first pair."""
    path = work / "pair.csv"
    path.write_text("".join((ROOT / "prompts/test_5x5.csv").read_text().splitlines(keepends=True)[:2]))
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def test_the_readme_has_its_ten() -> None:
    assert len(COMMANDS) == 15
    for number in range(1, 11):
        assert f"# {number}. " in README


def test_a_baseline_that_is_not_heard_says_so() -> None:
    """A6: who runs one of the published methods must not take its WER of 1.00 for a fault."""
    lines = pairwise(README.splitlines())
    [said] = [above for above, line in lines if "composition=images_that_sound" in line]
    assert "baseline" in said and "hardly a word is heard" in said


def test_the_default_picture_is_recognised(tmp_path: Path) -> None:
    """A5: what is drawn when nobody asks for anything is told from other things by the pocket CLIP."""
    default = config.compose("generate", []).image_prompt
    prompts = tmp_path / "prompts.csv"
    others = ["a cat", "a tree", "a house", "an owl", "a fish", "a bicycle", "a chair", "a hammer"]
    prompts.write_text("image_prompt,audio_prompt\n" + "".join(
        f"{prompt},happy baby music\n" for prompt in [default, *others]), encoding="utf-8")
    result = generate(config.compose("generate", [
        f"prompts={prompts}", "composition=image_only", f"paths.logs={tmp_path / 'logs'}",
        "reader=pocketsphinx"]))
    assert result["samples"] == 9
    [row] = [read_json(path) for path in (tmp_path / "logs").glob("generate/*/samples/*/sample.json")
             if read_json(path)["image_prompt"] == default]
    assert row["scores"]["top1"] is True


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_knows(command: str) -> None:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_commands(work: Path) -> None:
    """In the README's order: training needs the corpus that the command before it built."""
    for command in (c for c in COMMANDS if not c.startswith("make")):
        building = "images_that_speak.data" in command or "train.py" in command
        if building and not HAS_FLITE:
            continue
        done = subprocess.run([sys.executable, *shortened(command, work)], cwd=ROOT, capture_output=True,
                              text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    runs = list((work / "logs/generate").glob("*/result.json"))
    assert runs


def test_files_that_it_names_are_there() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / name).exists(), name
