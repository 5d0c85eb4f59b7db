"""What is trained and what it learns from: misfits are told before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_datamodule import make_corpus

from images_that_speak import config
from images_that_speak.checks.train import check
from images_that_speak.data.datamodule import PictureData, SpeechClips
from images_that_speak.data.streamed import StreamedClips, write_records
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import PitchedAdapter, SequenceAdapter
from images_that_speak.networks.condition import Condition, Conditioner, Input
from images_that_speak.training.matching import match_conditioner


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("matching") / "corpus")


def data(train: object, valid: object = None) -> PictureData:
    return PictureData(train, valid)  # type: ignore[arg-type]


class Texts(Conditioner):
    """Reads texts, as a tokenizer makes them, and the name of a key that no data set has."""

    def __init__(self, tokenizer: object, *more: str):
        super().__init__()
        self.tokenizer, self.more = tokenizer, more

    @property
    def inputs(self) -> dict[str, Input]:
        return {"input_ids": Input(shape=(3,)), **{key: Input() for key in self.more}}

    def encode(self, batch: dict[str, Any]) -> Condition:
        return Condition(batch["input_ids"][..., None].float(), batch["input_ids"] >= 0)


def test_a_batch_has_what_is_read_and_no_more(corpus: Path) -> None:
    sets = data(SpeechClips(corpus))
    match_conditioner(SequenceAdapter(43, 2, width=16), sets)
    assert set(sets.train[0]) == {"picture", "phones", "phone_mask", "voice", "frame_phones"}


def test_what_is_not_there_is_told_before_training(corpus: Path) -> None:
    with pytest.raises(UserError, match="data.train: Texts reads loudness; SpeechClips gives "):
        match_conditioner(Texts(object(), "loudness"), data(SpeechClips(corpus)))


def test_nothing_said_follows_from_what_is_read() -> None:
    """The null condition, and a batch with nothing said in one row."""
    reader = Texts(None)
    reader.anywhere = torch.nn.Parameter(torch.zeros(()))
    assert torch.equal(reader.null(2).tokens, torch.zeros(2, 3, 1))
    ids = torch.arange(1, 7).view(2, 3)
    dropped = reader.drop({"input_ids": ids, "latent": ids}, torch.tensor([False, True]))
    assert torch.equal(dropped["input_ids"], torch.tensor([[1, 2, 3], [0, 0, 0]]))
    assert dropped["latent"] is ids


def test_what_fits_is_left_alone(corpus: Path) -> None:
    both = data(SpeechClips(corpus), SpeechClips(corpus, "valid", voices=["rms", "slt"]))
    match_conditioner(SequenceAdapter(43, 2, width=16), both)
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
        match_conditioner(SequenceAdapter(43, voices, width=16), sets)


def test_so_have_the_voices_of_records(corpus: Path, tmp_path: Path) -> None:
    write_records(corpus, tmp_path / "train")
    records = StreamedClips(tmp_path / "train")
    with pytest.raises(UserError, match="adapter.voices=1: data.train has 2"):
        match_conditioner(SequenceAdapter(43, 1, width=16), data(records))


def test_an_adapter_of_embeddings_wants_them(corpus: Path, tmp_path: Path) -> None:
    sets = data(SpeechClips(corpus, embeddings=tmp_path / "there"), SpeechClips(corpus, "valid"))
    with pytest.raises(UserError, match=r"data.valid.embeddings=null.*reads phone_embedding"):
        match_conditioner(SequenceAdapter(43, 2, width=16, features=24), sets)


def test_an_adapter_of_pitch_wants_it(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.train.pitch=null: .*PitchedAdapter reads frame_pitch"):
        match_conditioner(PitchedAdapter(43, 2, 8), data(SpeechClips(corpus)))
    sets = data(SpeechClips(corpus, pitch=tmp_path / "pitch"))
    match_conditioner(SequenceAdapter(43, 2, width=16), sets)
    assert sets.train.pitch is None  # it is not tracked for one that is not told it


@pytest.mark.parametrize(("adapter", "told"), [
    (lambda: SequenceAdapter(43, 2, width=16, features=24), "SequenceAdapter reads phone_embedding"),
    (lambda: PitchedAdapter(43, 2, 8), "--pitch .*PitchedAdapter reads frame_pitch"),
    (lambda: Texts(None), "Texts reads input_ids"),
])
def test_what_records_lack_is_told(corpus: Path, tmp_path: Path, adapter: Any, told: str) -> None:
    write_records(corpus, tmp_path / "train")
    with pytest.raises(UserError, match=f"data.train.folder=.*{told}"):
        match_conditioner(adapter(), data(StreamedClips(tmp_path / "train")))


def test_a_reader_of_texts_lends_its_tokenizer(corpus: Path) -> None:
    texts, own = Texts(object()), object()
    sets = data(SpeechClips(corpus), SpeechClips(corpus, "valid", tokenizer=own))
    match_conditioner(texts, sets)
    assert sets.train.tokenizer is texts.tokenizer and sets.valid.tokenizer is own  # type: ignore[union-attr]


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
