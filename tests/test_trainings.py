"""The trainings of the family's parts: each goes on after a kill as if nothing had been."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_trainings import STEPS, TINY
from machine import needs_font

from images_that_speak import config
from images_that_speak.files import read_json
from images_that_speak.renamed import MOVED, with_moved_keys


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every training, once whole and once killed twice."""
    root = tmp_path_factory.mktemp("trainings")
    program = Path(__file__).with_name("killed_trainings.py")
    done = subprocess.run([sys.executable, str(program), str(root), *TINY], capture_output=True,
                          text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@needs_font
@pytest.mark.parametrize("kind", TINY)
def test_kill_and_resume_is_bit_identical(trained: Path, kind: str) -> None:
    whole, killed = (next((trained / kind / way / "train").iterdir()) for way in ("whole", "killed"))
    weights = files(whole / "weights")
    assert weights and weights == files(killed / "weights")
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    results = [{**read_json(folder / "result.json"), "seconds": None} for folder in (whole, killed)]
    assert results[0] == results[1] and results[0]["steps"] == STEPS
    assert len(read_json(killed / "run.json")["commands"]) == 3
    states = [torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (whole, killed)]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    assert any(name.startswith("valid/") for name in results[0])


def test_a_key_that_has_moved_is_taken_by_its_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    for experiment, moved in MOVED.items():
        before, now = ([f"experiment={experiment}", *(f"{key}=1" for key in keys), "steps=1"]
                       for keys in (moved, moved.values()))
        assert with_moved_keys(before) == now
        told = capsys.readouterr().err
        assert all(f"{key} is called {moved[key]} now" in told for key in moved)
        config._compose("train", now)  # there is such a key
    other = ["experiment=mine", "model.batch_size=3"]
    assert with_moved_keys(other) == other and not capsys.readouterr().err
