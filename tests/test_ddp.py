"""Several processes train one model: they see and compute what one process with the larger batch would."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from tiny_training import RandomLatents, build

from images_that_speak.checks.train import check
from images_that_speak.config import compose
from images_that_speak.data.datamodule import BatchDataset, EpochBatches, PictureData
from images_that_speak.errors import UserError
from images_that_speak.runs.metrics import MetricsJsonl
from images_that_speak.training.fit import fit, whole_state
from images_that_speak.training.train import train


class Latents(BatchDataset):
    """The latents of tiny_training as a dataset of PictureData."""

    def __len__(self) -> int:
        return 20

    def __getitems__(self, keys: list[int]) -> dict[str, torch.Tensor]:
        return RandomLatents().__getitems__(keys)


def training(rank: int, world: int, port: int, strategy: str, folder: Path) -> None:
    """Three steps in this process of `world`, stopped after two and gone on with where there are several; the
    first writes its losses and weights."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
                       "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    losses: list[float] = []
    for steps in (2, 3) if world > 1 else (3,):
        module = build("lora")
        module.lora.dropout = 0.0
        for part in module.modules():  # what a process drops is its own affair
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        # Not Adam, which makes whole steps of the rounding of gradients that are nearly 0.
        # In the module's own groups, in which a checkpoint is gone on from.
        module.configure_optimizers = lambda module=module: torch.optim.SGD(  # type: ignore
            [{"params": group["params"]} for group in
             type(module).configure_optimizers(module)["optimizer"].param_groups], lr=0.1, momentum=0.5)
        log = module.log
        module.log = lambda name, value, log=log, **rest: (  # type: ignore
            losses.append(float(value)), log(name, value, **rest))
        trainer = fit(module, PictureData(Latents(), batch_size=4 // world, seed=3), folder, max_steps=steps,
                      seed=5, ema_decay=None, accelerator="cpu", devices=world, strategy=strategy,
                      progress=False, log_every=1, callbacks=[MetricsJsonl(folder / "metrics.jsonl", 1)])
    state = whole_state(trainer) or module.state_dict()
    every = torch.tensor(losses)
    if world > 1:
        torch.distributed.all_reduce(every)
    if rank == 0:
        torch.save({"losses": every / world, "state": dict(state)}, folder / "result.pt")


def run(world: int, strategy: str, folder: Path) -> dict:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not forks of this process, which may have gone backwards through a graph; of one that only imported.
    multiprocessing.set_forkserver_preload([training.__module__])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11's server does not take over where modules are found.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        mp.start_processes(training, (world, port, strategy, folder), nprocs=world, start_method="forkserver")
    return torch.load(folder / "result.pt", weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    return run(1, "auto", tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_are_one_with_twice_the_batch(strategy: str, alone: dict, tmp_path: Path) -> None:
    two = run(2, strategy, tmp_path / strategy)
    torch.testing.assert_close(two["losses"], alone["losses"], rtol=1e-5, atol=1e-6)
    lines = (tmp_path / strategy / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert two["state"].keys() == alone["state"].keys()
    for name, value in alone["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-7)
    # And the weights have moved: what is trained differs from what it began as.
    began = build("lora").state_dict()
    assert any(not value.equal(began[name]) for name, value in alone["state"].items())


def test_processes_share_every_batch_out() -> None:
    whole = [batch for _, batch in zip(range(7), iterate(EpochBatches(10, 4, seed=1)), strict=False)]
    parts = [[batch for _, batch in zip(range(7), iterate(EpochBatches(10, 2, seed=1, rank=rank, world=2)),
                                        strict=False)] for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(UserError, match="batch_size=6 in each of 2 processes: expected at most the 10"):
        EpochBatches(10, 6, world=2)


def iterate(batches: EpochBatches):
    while True:
        yield from iter(batches)


def test_what_processes_cannot_do_together_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before anything is made of the data, which may take hours.
    monkeypatch.setattr("images_that_speak.training.train.instantiate", lambda *_, **__: pytest.fail("began"))
    cfg = compose("train", ["experiment=pocket/speech", "trainer=fsdp", "trainer.ema_decay=0.9",
                            f"paths.logs={tmp_path}"])
    with pytest.raises(UserError, match="trainer.ema_decay=0.9: no average is kept of sharded weights"):
        train(cfg)
    assert any("trainer.ema_decay=0.9" in problem for problem in check(cfg)[1])
    with pytest.raises(UserError, match="trainer.ema_decay=0.9: no average is kept of sharded weights"):
        fit(build("lora"), PictureData(Latents()), tmp_path, max_steps=1, strategy="fsdp", ema_decay=0.9)
