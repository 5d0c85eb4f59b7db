"""How far it is from a script to the work: own frames to the UNet, own files to the optimiser."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import FrameType

import pytest
import torch
from diffusers import UNet2DConditionModel
from machine import needs_font
from tiny_family import tiny_pocket_family

from images_that_speak.resources import ROOT


class Reached(BaseException):
    """Ends a run where it was to get to."""


def calls(script: str, arguments: list[str], what: type, name: str,
          monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(file, function) of all of ours that is under way when `what.name` is first called."""
    found: list[tuple[str, str]] = []

    def reached(*_: object, **__: object) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path == ROOT / script or path.is_relative_to(ROOT / "src"):
                found.insert(0, (str(path.relative_to(ROOT)), frame.f_code.co_name))
            frame = frame.f_back
        raise Reached

    monkeypatch.setattr(what, name, reached)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(Reached):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return found


def test_a_unet_is_eight_functions_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = calls("generate.py", [
        f"family.weights={tiny_pocket_family(tmp_path / 'pocket')}", "composition=images_that_sound",
        "reader=none", "steps=1", "device=cpu", f"paths.logs={tmp_path}"],
        UNet2DConditionModel, "forward", monkeypatch)
    assert found.pop(0) == ("generate.py", "<module>")
    assert len(found) <= 8, found


@needs_font
def test_an_optimiser_is_four_files_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = calls("train.py", [
        "experiment=pocket/text", "steps=1", "data.batch_size=2", "device=cpu", f"paths.logs={tmp_path}"],
        torch.optim.AdamW, "step", monkeypatch)
    assert len({path for path, _ in found}) <= 4, found
