"""Checkpoints of a training: whole or known to be broken, and exact wherever the training stopped."""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from images_that_speak.errors import UserError
from images_that_speak.files import remove_temporary
from images_that_speak.runs.metrics import MetricsJsonl
from images_that_speak.training.checkpoints import damage, whole_checkpoint, write_checkpoint
from images_that_speak.training.fit import fit


class Module(L.LightningModule):
    """One weight. `at`: the step in which `stop` is called; negative: in the validation of that step."""

    def __init__(self, at: int | None = None, stop=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.at, self.stop = at, stop

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        if self.trainer.global_step == self.at:
            self.stop()
        loss = (self.weight - batch.float().mean()).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        if self.at is not None and self.trainer.global_step == -self.at:
            self.stop()
        self.log("valid/weight", self.weight[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(folder: Path, at: int | None = None, stop=None, steps: int = 9) -> tuple[bytes, dict, torch.Tensor]:
    """metrics.jsonl, the figures of the result, and the weight."""
    folder.mkdir(exist_ok=True)
    module, metrics = Module(at, stop), MetricsJsonl(folder / "metrics.jsonl", 1)
    fit(module, StatefulDataLoader(range(100), batch_size=2), folder, max_steps=steps,
        valid=StatefulDataLoader(range(2)), checkpoint_every=2, validate_every=3, ema_decay=None,
        progress=False, accelerator="cpu", callbacks=[metrics])
    return (folder / "metrics.jsonl").read_bytes(), metrics.figures, module.weight.detach()


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict, torch.Tensor]:
    """What a training that is not stopped gives."""
    return train(tmp_path_factory.mktemp("unstopped"))


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Broken(Exception):
    pass


def fail() -> None:
    raise Broken


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell has what it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("at", [3, 5, -3, -6, -9])
@pytest.mark.parametrize(("stop", "raised"), [(interrupt, KeyboardInterrupt), (fail, Broken)])
def test_stopped_anywhere_it_ends_as_if_never_stopped(at: int, stop, raised, unstopped,
                                                      tmp_path: Path) -> None:
    """Ctrl-C or an error, in the middle of a step or of a validation."""
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(raised):
        train(tmp_path / "stopped", at, stop)
    assert signal.getsignal(signal.SIGINT) is handler
    if stop is interrupt and at > 0:  # the step was ended and saved
        last = torch.load(tmp_path / "stopped/checkpoints/last.ckpt", weights_only=True)
        assert last["global_step"] == at + 1 or at == 5  # whose validation would have to come first
    assert train(tmp_path / "stopped") == unstopped


def test_a_training_killed_after_its_last_step_has_its_figures(tmp_path: Path) -> None:
    """Nothing is left to train, only the export; the result must say what it would have said."""
    whole = train(tmp_path)
    assert set(whole[1]) == {"train/loss", "valid/weight"}
    assert train(tmp_path) == whole


@pytest.mark.parametrize("data", [lambda good: good[:len(good) // 2], lambda good: b"",
                                  lambda good: good.replace(b"global_step", b"globalXstep")])
def test_a_broken_checkpoint_is_told_and_the_one_before_gone_on_from(
        data, unstopped, tmp_path: Path, caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("images_that_speak"), "propagate", True)
    train(tmp_path / "broken", steps=6)
    last = tmp_path / "broken/checkpoints/last.ckpt"
    broken = data(last.read_bytes())
    last.write_bytes(broken)
    assert train(tmp_path / "broken") == unstopped
    assert f"{last}: no whole checkpoint" in caplog.text and "the one before it, step 4" in caplog.text
    assert last.with_name("broken.ckpt").read_bytes() == broken
    for name in ("last.ckpt", "previous.ckpt"):
        last.with_name(name).write_bytes(b"")
    with pytest.raises(UserError, match="last.ckpt.*\n.*previous.ckpt.*\n.*fresh=true"):
        train(tmp_path / "broken")


def test_a_changed_byte_does_not_go_unnoticed(tmp_path: Path) -> None:
    """Either the file is called broken, or it says what it said."""
    state = {"global_step": 4, "weight": torch.arange(20.0)}
    path = tmp_path / "last.ckpt"
    write_checkpoint(state, path)
    good = path.read_bytes()
    unnoticed = 0
    for at in range(0, len(good), 5):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1:])
        if damage(path) is None:
            unnoticed += 1
            found = torch.load(path, weights_only=True, mmap=True)
            assert found["global_step"] == 4 and torch.equal(found["weight"], state["weight"])
    assert 0 < unnoticed < len(good) // 5  # there is padding, and there are weights


def test_a_full_disk_leaves_both_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        write_checkpoint({"step": step}, path)

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="last.ckpt: cannot be written .No space left"):
            write_checkpoint({"step": 3}, path)
    steps = {p.name: torch.load(p, weights_only=True)["step"] for p in tmp_path.iterdir()}
    assert steps == {"last.ckpt": 2, "previous.ckpt": 1}
    assert whole_checkpoint(path) == path and whole_checkpoint(tmp_path / "none" / "last.ckpt") is None


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.json", ".lock", ".a.tmp.json", "samples/.x/image.png")]
    for path in [*kept, tmp_path / "samples/.image.0123abcd.tmp.png", tmp_path / ".run.01234567.tmp"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_temporary(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
