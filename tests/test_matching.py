"""What is trained and what it learns from: misfits are told before anything is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_datamodule import make_corpus
from torch import nn

from images_that_speak import config
from images_that_speak.checks.train import check
from images_that_speak.data.datamodule import PictureData, SpeechClips
from images_that_speak.data.streamed import StreamedClips, write_records
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import PitchedAdapter, SequenceAdapter
from images_that_speak.training.matching import match


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("matching") / "corpus")


def module(conditioner: object) -> nn.Module:
    found = nn.Module()
    object.__setattr__(found, "conditioner", conditioner)
    return found


def data(train: object, valid: object = None) -> PictureData:
    return PictureData(train, valid)  # type: ignore[arg-type]


def test_what_fits_is_left_alone(corpus: Path) -> None:
    both = data(SpeechClips(corpus), SpeechClips(corpus, "valid", voices=["rms", "slt"]))
    match(module(SequenceAdapter(43, 2, width=16)), both)
    match(module(SequenceAdapter(43, 2, width=16)), None)
    match(nn.Linear(1, 1), both)
    assert both.train.voices is None and both.train.tokenizer is None


@pytest.mark.parametrize(("train", "valid", "voices", "told"), [
    ({}, None, 1, r"adapter.voices=1: data.train has 2 \(rms, slt; expected at least adapter.voices=2"),
    ({"voices": ["slt", "rms"]}, {}, 2, "data.valid.voices: rms, slt where data.train has slt, rms"),
])
def test_voices_have_a_place_and_one_number(corpus: Path, train: dict, valid: dict | None, voices: int,
                                            told: str) -> None:
    second = None if valid is None else SpeechClips(corpus, "valid", **valid)
    sets = data(SpeechClips(corpus, **train), second)
    with pytest.raises(UserError, match=told):
        match(module(SequenceAdapter(43, voices, width=16)), sets)


def test_so_have_the_voices_of_records(corpus: Path, tmp_path: Path) -> None:
    write_records(corpus, tmp_path / "train")
    records = StreamedClips(tmp_path / "train")
    with pytest.raises(UserError, match="adapter.voices=1: data.train has 2"):
        match(module(SequenceAdapter(43, 1, width=16)), data(records))


def test_an_adapter_of_embeddings_wants_them(corpus: Path, tmp_path: Path) -> None:
    sets = data(SpeechClips(corpus, embeddings=tmp_path / "there"), SpeechClips(corpus, "valid"))
    with pytest.raises(UserError, match=r"data.valid.embeddings=null.*adapter.features=24"):
        match(module(SequenceAdapter(43, 2, width=16, features=24)), sets)


@pytest.mark.parametrize(("adapter", "told"), [
    (lambda: SequenceAdapter(43, 2, width=16, features=24), "is told embeddings"),
    (lambda: PitchedAdapter(43, 2, 8), "is told a pitch .*--pitch"),
    (lambda: SimpleNamespace(tokenizer=object()), "is told texts"),
])
def test_what_records_lack_is_told(corpus: Path, tmp_path: Path, adapter: Any, told: str) -> None:
    write_records(corpus, tmp_path / "train")
    with pytest.raises(UserError, match=f"data.train.folder=.*: the adapter {told}"):
        match(module(adapter()), data(StreamedClips(tmp_path / "train")))


def test_a_reader_of_texts_lends_its_tokenizer(corpus: Path) -> None:
    class Texts:
        tokenizer = object()

    own = object()
    sets = data(SpeechClips(corpus), SpeechClips(corpus, "valid", tokenizer=own))
    match(module(Texts()), sets)
    assert sets.train.tokenizer is Texts.tokenizer and sets.valid.tokenizer is own  # type: ignore[union-attr]


def test_a_check_tells_the_same(corpus: Path) -> None:
    def problems(*overrides: str) -> list[str]:
        cfg, found = config.examine("train", ["experiment=pocket/speech", f"data.train.root={corpus}",
                                              *overrides])
        return [*found, *check(cfg)[1]]

    assert problems() == []
    assert "adapter.voices=1: data.train has 2" in problems("adapter.voices=1")[0]
    assert "adapter.channels=32: expected 96, as of the UNet" in problems("adapter.channels=32")[0]
    told = problems("+data.train.tokenizer=nowhere")[0]
    assert told.startswith("data.train.tokenizer=nowhere: no such folder")
