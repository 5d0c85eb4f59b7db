"""A corpus read record by record: the same clips as from memory, in an order that is computed."""

from __future__ import annotations

import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_datamodule import make_corpus

from images_that_speak.audio.wave import write_wave
from images_that_speak.data import streamed
from images_that_speak.data.datamodule import EpochBatches, SpeechClips, batch_loader, permuted
from images_that_speak.data.latents import cache_latents
from images_that_speak.data.pitches import cache_pitch
from images_that_speak.data.streamed import Packer, Records, StreamedClips, write_records
from images_that_speak.errors import UserError
from images_that_speak.networks.autoencoder import PatchAutoencoder


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 3000), seed=st.integers(0, 2**31), epoch=st.integers(0, 5))
def test_a_computed_order_has_every_place_once(length: int, seed: int, epoch: int) -> None:
    order = permuted(np.arange(length), length, (seed, epoch))
    assert sorted(order.tolist()) == list(range(length))
    assert np.array_equal(permuted(np.array([length - 1, 0]), length, (seed, epoch)), order[[-1, 0]])


def test_a_computed_order_is_mixed_and_differs_by_epoch() -> None:
    first, second = (permuted(np.arange(10_000), 10_000, (1, epoch)) for epoch in (0, 1))
    for order in (first, second):
        assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert (first == second).mean() < 0.01


def test_batches_resume_in_a_computed_order() -> None:
    batches = EpochBatches(23, 4, seed=2, flat=True)
    whole = list(batches)
    assert len({key for batch in whole for key in batch}) == 20 and all(len(batch) == 4 for batch in whole)
    iterator = iter(EpochBatches(23, 4, seed=2, flat=True))
    for _ in range(2):
        next(iterator)
    resumed = iter(EpochBatches(23, 4, seed=2, flat=True))
    resumed.load_state_dict(iterator.state_dict())
    assert list(resumed) == whole[2:]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a wave to every clip: a tone of its own."""
    folder = make_corpus(tmp_path_factory.mktemp("streamed") / "corpus")
    table = pandas.read_parquet(folder / "manifest.parquet")
    table["wave"] = [f"{name}.flac" for name in table["id"]]
    table.to_parquet(folder / "manifest.parquet")
    for i, name in enumerate(table["wave"]):
        write_wave(folder / name, 0.5 * np.sin(2 * np.pi * (100 + 10 * i) * np.arange(163_840) / 16_000))
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    PatchAutoencoder(patch=16, latent_channels=4, width=0).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("latents", [True, False])
def test_records_are_the_clips(corpus: Path, autoencoder: Path, tmp_path: Path, latents: bool,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shard of three and one open file, so that shards end and files close. With latents and pitches,
    or with pictures alone."""
    monkeypatch.setattr(streamed, "OPEN", 1)
    write_records(corpus, tmp_path / "records", "train", autoencoder if latents else None, shard=3, batch=2,
                  pitch=latents)
    there = StreamedClips(tmp_path / "records", roll=True, seed=4)
    here = SpeechClips(corpus, "train", roll=True, seed=4)
    if latents:
        vae = PatchAutoencoder.from_pretrained(autoencoder)
        cache_latents(vae, here, tmp_path / "cache", progress=False)
        cache_pitch(here.corpus, here.identity(), tmp_path / "pitch.safetensors")
        here = SpeechClips(corpus, "train", roll=True, seed=4, latents=tmp_path / "cache",
                           pitch=tmp_path / "pitch.safetensors")
    assert len(there) == len(here) > 3 and there.voices == ["rms", "slt"]
    keys = [*range(len(here)), len(here) + 2]
    a, b = (pickle.loads(pickle.dumps(dataset)).__getitems__(keys) for dataset in (there, here))
    assert a.keys() == b.keys()
    for name, value in b.items():
        tolerance = {"latent": 2e-2, "frame_position": 2e-3}.get(name, 1e-6)
        assert a[name].dtype == value.dtype and a[name].shape == value.shape, name
        assert (a[name].float() - value.float()).abs().max() <= tolerance, name
    seen = [key for batch in batch_loader(there, 2, seed=1) for key in batch["voice"].tolist()]
    assert len(seen) == len(there) // 2 * 2


def test_packing_goes_on_where_it_was_stopped(corpus: Path, autoencoder: Path, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the second shard: the same files as of one never stopped, the first not made again."""
    pack = partial(write_records, corpus, split="train", autoencoder=autoencoder, shard=3, batch=1)
    pack(tmp_path / "whole")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {"index.json", "shard-00000.bin", "shard-00001.bin"} <= whole.keys()
    real, packed = Packer.__call__, []

    def stopped(self, rows):
        packed.append(rows[0]["id"])
        if len(packed) == 5:
            raise KeyboardInterrupt
        return real(self, rows)

    monkeypatch.setattr(Packer, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path / "records")
    assert not (tmp_path / "records" / "index.json").exists()
    first = packed[:3]
    pack(tmp_path / "records")
    assert not set(packed[5:]) & set(first)
    assert {path.name: path.read_bytes() for path in (tmp_path / "records").iterdir()} == whole
    # Of other records nothing is kept.
    write_records(corpus, tmp_path / "records", "train", shard=3, batch=1)
    assert Records(tmp_path / "records").index["image"] == "picture"


def test_a_voice_has_the_same_number_in_every_split(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    table = pandas.read_parquet(corpus / "manifest.parquet")
    table[(table["split"] != "valid") | (table["voice"] == "slt")].to_parquet(
        tmp_path / "corpus" / "manifest.parquet")
    for split in ("train", "valid"):
        write_records(tmp_path / "corpus", tmp_path / split, split)
        assert Records(tmp_path / split).index["voices"] == ["rms", "slt"]
    assert set(StreamedClips(tmp_path / "valid").__getitems__([0])["voice"].tolist()) == {2}


def test_what_is_wrong_with_records_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such manifest"):
        write_records(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="0 clips in split 'nowhere'"):
        write_records(corpus, tmp_path / "out", "nowhere")
    with pytest.raises(UserError, match="expected an autoencoder's"):
        write_records(corpus, tmp_path / "out", autoencoder=tmp_path)
    with pytest.raises(UserError, match="index.json: no such file"):
        StreamedClips(tmp_path / "out").setup()
    write_records(corpus, tmp_path / "out")
    with pytest.raises(UserError, match="clips of voice"):
        StreamedClips(tmp_path / "out", voices=["nobody"]).setup()
    shard = tmp_path / "out" / "shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"shard-00000.bin: \d+ bytes \(expected \d+\)"):
        Records(tmp_path / "out")
