"""The duration model on a language whose rule is known, and plans of phrases."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from images_that_speak.data.duration_data import DurationData
from images_that_speak.data.manifest import Corpus
from images_that_speak.errors import UserError
from images_that_speak.speech.alignment import frame_phones
from images_that_speak.speech.durations import EDGE, DurationModel, plan_speech
from images_that_speak.speech.phonemes import PHONE_IDS, text_to_phones
from images_that_speak.speech.tts import Phone
from images_that_speak.training.durations import DurationTraining
from images_that_speak.training.fit import fit


class Hundred:
    """Every phone lasts 0.1 s, a pause 0.2 s."""

    def predict(self, symbols, voice=None):
        return np.array([0.2 if symbol == "pau" else 0.1 for symbol in symbols])


@pytest.fixture(scope="module")
def language():
    """A vowel before a voiced stop lasts twice as long; the second voice is 1.5 times as slow."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(160):
        symbols = ["pau"]
        for _ in range(rng.integers(3, 9)):
            symbols += [rng.choice(["aa", "iy"]), rng.choice(["b", "p"])]
        symbols += ["pau"]
        slow = 1.5 if i % 2 else 1.0
        lasts = [slow * (0.2 if s == "pau" else 0.05 if s in "bp" else 0.16 if after == "b" else 0.08)
                 for s, after in zip(symbols, [*symbols[1:], ""], strict=True)]
        ends = np.cumsum(lasts)
        rows.append({"voice": ("one", "two")[i % 2], "split": "train" if i < 120 else "valid",
                     "symbols": symbols, "starts": ends - lasts, "ends": ends})
    return Corpus(Path("language"), pandas.DataFrame(rows))


@pytest.fixture(scope="module")
def trained(language, tmp_path_factory):
    folder = tmp_path_factory.mktemp("durations")
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    module = DurationTraining(["one", "two"], width=32, layers=1, lr=1e-2, max_steps=120)
    fit(module, DurationData(language, ["one", "two"], batch_size=16), folder, max_steps=120, ema_decay=None,
        accelerator="cpu", progress=False)
    module.export(folder, ())
    return module.model.eval(), module.report, folder / "durations"


def test_the_rule_is_learnt(trained):
    model, report, _ = trained
    assert report["mae_ms"] < 0.3 * report["baseline_ms"] and report["utterance_error"] < 0.1
    word = ["pau", "aa", "b", "aa", "p", "pau"]
    one, two = model.predict(word, "one"), model.predict(word, "two")
    assert one[1] / one[3] == pytest.approx(2, rel=0.25)
    assert (two / one).mean() == pytest.approx(1.5, rel=0.15)


@pytest.mark.parametrize(("voices", "split", "message"), [
    (["one"], "train", r"language: clips of voice two \(expected one\)"),
    (["one", "two"], "train", "160 clips to train on and 0 to measure"),
    (["one", "two"], "test", "0 clips to train on and 160 to measure")])
def test_a_corpus_that_does_not_serve_is_told(language, voices, split, message):
    corpus = Corpus(language.root, language.table.assign(split=split))
    with pytest.raises(UserError, match=message):
        DurationData(corpus, voices).setup()


def test_saving_keeps_it_and_bad_files_are_refused(trained, tmp_path):
    model, report, folder = trained
    again = DurationModel.from_pretrained(folder)
    word = ["pau", "aa", "b", "pau"]
    np.testing.assert_allclose(again.predict(word, "two"), model.predict(word, "two"), rtol=1e-2)
    config = json.loads((folder / "config.json").read_text())
    assert config["report"] == report and config["voices"] == ["one", "two"]
    with pytest.raises(UserError, match="Did you mean 'two'"):
        again.predict(word, "twoo")
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no such file"):
        DurationModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match="not the weights"):
        DurationModel.from_pretrained(tmp_path)
    spec = {**config["mel_spec"], "hop": 256}
    (tmp_path / "config.json").write_text(json.dumps({**config, "mel_spec": spec}))
    with pytest.raises(UserError, match="another mel spec: hop=256"):
        DurationModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "phones": ["a"]}))
    with pytest.raises(UserError, match="another set of phones"):
        DurationModel.from_pretrained(tmp_path)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = DurationModel(["one"]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    phones = torch.randint(3, 40, (1, 7))
    padded = torch.nn.functional.pad(phones, (0, 5))
    short = model(phones, phones > 0, torch.tensor([1]))
    assert torch.allclose(short, model(padded, padded > 0, torch.tensor([1]))[:, :7], atol=1e-5)


def test_a_plan_by_hand():
    phones = plan_speech("a cat", Hundred(), start=1.0, pause=0.3, rate=2.0)
    expected = [("pau", 0.8, 1.0), ("ax", 1.0, 1.05), ("pau", 1.05, 1.35), ("k", 1.35, 1.4),
                ("ae", 1.4, 1.45), ("t", 1.45, 1.5), ("pau", 1.5, 1.7)]
    assert [phone.symbol for phone in phones] == [symbol for symbol, _, _ in expected]
    np.testing.assert_allclose([(p.start, p.end) for p in phones], [times for _, *times in expected])
    assert all(type(time) is float for phone in phones for time in (phone.start, phone.end))
    centred = plan_speech("happy", Hundred())
    assert centred[1].start == pytest.approx(5.12 - 0.2) and centred[-2].end == pytest.approx(5.12 + 0.2)
    assert plan_speech("happy", Hundred(), start="begin")[1].start == EDGE
    tight = plan_speech("happy", Hundred(), start="begin", seconds=0.5)
    assert tight[1].start == pytest.approx(0.05)  # 0.4 s of speech, and as much room before as after


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("happy baby music green tree a elephant".split()), min_size=1, max_size=9),
       st.floats(0, 0.4), st.floats(0.5, 2))
def test_plans_lie_within_the_picture(words, pause, rate):
    text = " ".join(words)
    try:
        phones = plan_speech(text, Hundred(), pause=pause, rate=rate)
    except UserError as error:
        assert "10.24" in str(error)
        return
    said = [phone.symbol for phone in phones if phone.symbol != "pau"]
    assert said == sum(text_to_phones(text), [])
    assert phones[0].start >= 0 and phones[-1].end <= 10.24 and phones[0].symbol == phones[-1].symbol == "pau"
    assert all(a.end == b.start for a, b in zip(phones, phones[1:], strict=False))
    assert set(frame_phones(phones)[0]) <= {PHONE_IDS[p.symbol] for p in phones}


@pytest.mark.parametrize(("options", "message"), [
    ({"text": "elephant " * 60}, r"60 words .*takes 42.0 s \(expected at most 10.24 s\); use about 14 words"),
    ({"text": "happy", "start": 10.0}, r"start=10.0: the speech takes 0.40 s \(expected 0 to 9.84\)"),
    ({"text": "happy", "start": -1}, "start=-1"),
    ({"text": "happy", "start": "left"}, "expected 'begin', 'centre'"),
    ({"text": "happy", "rate": 0}, "rate=0"), ({"text": "happy", "pause": -1}, "pause=-1"),
    ({"text": " "}, "nothing to say"), ({"text": "кот"}, "'к', 'о', 'т'")])
def test_what_cannot_be_said_is_told(options, message):
    with pytest.raises(UserError, match=message):
        plan_speech(durations=Hundred(), **options)


def test_the_shipped_model_speaks_at_a_natural_pace():
    model = DurationModel.from_pretrained()
    assert model.voices == ["slt", "rms"]
    for voice in model.voices:
        phones = plan_speech("happy baby music golden river train", model, voice)
        spoken = [phone for phone in phones if phone.symbol != "pau"]
        seconds = spoken[-1].end - spoken[0].start
        assert 1.8 < seconds < 3.6  # flite takes 2.28 s (slt) and 2.68 s (rms)
        assert all(0.01 <= p.end - p.start <= 0.4 for p in spoken) and isinstance(spoken[0], Phone)


def test_the_shipped_model_hears_the_neighbours_of_a_phone():
    """After a few steps of training a phone takes the same time wherever it stands."""
    phones = plan_speech("chocolate elephant question", DurationModel.from_pretrained(), "slt")
    first, second = (phone.end - phone.start for phone in phones if phone.symbol == "l")
    assert first < 0.7 * second  # of chocolate, of elephant: 0.047 and 0.102 s
