"""The second reader of speech: the search for words, training on tones, and reading waves."""

from __future__ import annotations

import itertools
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from machine import needs_font
from rapidfuzz.distance import Levenshtein

from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture
from images_that_speak.audio.picture import quantise
from images_that_speak.data.manifest import write_manifest
from images_that_speak.data.utterances import SYMBOLS, SpokenWindows, UtteranceData
from images_that_speak.errors import UserError
from images_that_speak.files import read_json, write_json
from images_that_speak.networks.recogniser import PhoneRecogniser
from images_that_speak.scoring.ctc import CTCReader
from images_that_speak.scoring.word_loop import WordLoop
from images_that_speak.speaking.by_chance import JoinedByChance, by_chance
from images_that_speak.training.fit import fit
from images_that_speak.training.recogniser import RecogniserTraining

# --- the search

LEXICON = {"cat": [[1, 2, 3]], "at": [[2, 3]], "tack": [[3, 2, 1], [3, 2, 4]]}


def said(text: str, sure: float = 0.9) -> np.ndarray:
    """Log-probabilities (1, T, 5) that are sure of one digit a frame; "-" is the blank, "?" is anything."""
    frames = np.full((1, len(text), 5), (1 - sure) / 4)
    for t, symbol in enumerate(text):
        frames[0, t, 0 if symbol == "-" else int(symbol) if symbol != "?" else slice(None)] = (
            sure if symbol != "?" else 0.2)
    return np.log(frames)


@pytest.mark.parametrize(("frames", "words"), [
    ("--11223---", "cat"), ("1-2--33", "cat"), ("---223322-33--", "at at"), ("1122332233", "cat at"),
    ("324112233", "tack cat"), ("3212-3", "tack at"), ("---------", ""), ("????????", ""), ("4-4--4", ""),
    ("--112241133--223-", "cat at"),
])
def test_words_that_can_be_told_by_hand(frames: str, words: str) -> None:
    found = WordLoop(LEXICON).decode(said(frames))[0]
    assert " ".join(word.text for word in found) == words


def test_when_words_sound() -> None:
    found = WordLoop(LEXICON).decode(said("--1122233---2-333--"))[0]
    assert [(word.text, word.start, word.end) for word in found] == [("cat", 2, 9), ("at", 12, 17)]


def test_insertion_is_the_price_of_a_word() -> None:
    weak = said("--112233--", 0.45)
    heard = [WordLoop(LEXICON, insertion).decode(weak)[0] for insertion in (1.0, 1e-12)]
    assert [len(words) for words in heard] == [1, 0]


def chain(log_probs: np.ndarray, phones: list[int]) -> float:
    """Best score of saying exactly these phones, a blank allowed before, between and after them."""
    states = [0, *itertools.chain(*((phone, 0) for phone in phones))]
    score = np.full(len(states), -np.inf)
    score[0] = 0
    for t, frame in enumerate(log_probs):
        new = np.full(len(states), -np.inf)
        for i, symbol in enumerate(states):
            before = [score[i], *(score[i - 1:i]), *(score[i - 2:i - 1] if symbol else ())]
            if t == 0:
                before = [0.0] if i < 2 else [-np.inf]
            new[i] = max(before) + frame[symbol]
        score = new
    return float(max(score[-1], score[-2] if len(states) > 1 else -np.inf))


def test_search_finds_the_best_of_all_word_sequences() -> None:
    """Against every sequence of up to three words, each aligned on its own."""
    loop = WordLoop(LEXICON, 0.3)
    noise = np.random.default_rng(0).normal(size=(12, 8, 5)) * 3
    log_probs = noise - np.logaddexp.reduce(noise, -1, keepdims=True)
    variants = [(word, phones) for word, spoken in LEXICON.items() for phones in spoken]
    lengths = set()
    for clip, found in zip(log_probs, loop.decode(log_probs), strict=True):
        scored = {}
        for count in range(4):
            for chosen in itertools.product(variants, repeat=count):
                words = " ".join(word for word, _ in chosen)
                score = chain(clip, [p for _, phones in chosen for p in phones]) + count * loop.penalty
                scored[words] = max(score, scored.get(words, -np.inf))
        assert " ".join(word.text for word in found) == max(scored, key=scored.__getitem__)
        lengths.add(len(found))
    assert len(lengths) > 1


# --- training and reading, in a language of four tones

TONES = {"b": 400, "k": 800, "iy": 1600, "ey": 3200}
WORDS = {"bee": ("b", "iy"), "key": ("k", "iy"), "bay": ("b", "ey")}


def speak(words: list[str], start: float, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple]]:
    """A wave of 10.24 s and its phones (symbol, start, end)."""
    wave, at, phones = np.zeros(MEL.samples, np.float32), start, []
    for word in words:
        for symbol in WORDS[word]:
            end = at + rng.uniform(0.08, 0.16)
            time = np.arange(round(at * 16_000), round(end * 16_000))
            wave[time] = 0.4 * np.sin(2 * np.pi * TONES[symbol] * time / 16_000)
            phones.append((symbol, at, end))
            at = end
        at += rng.uniform(0, 0.1)
    return wave, phones


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tones")
    rng, log_mel, rows = np.random.default_rng(0), LogMel(), []
    for i in range(8):
        words = list(rng.choice(list(WORDS), 12))
        wave, phones = speak(words, rng.uniform(0.5, 5), rng)
        picture = logmel_to_picture(log_mel(torch.from_numpy(wave)[None]))[0].numpy()
        np.save(root / f"{i}.npy", quantise(picture))
        symbols, starts, ends = zip(*phones, strict=True)
        rows.append({"id": str(i), "text": " ".join(words), "voice": "tone", "tts": "tone",
                     "tts_version": "1", "mel_spec": MEL.hash, "split": "valid" if i > 5 else "train",
                     "start": starts[0], "seconds": ends[-1] - starts[0], "symbols": list(symbols),
                     "starts": list(starts), "ends": list(ends), "spectrogram": f"{i}.npy", "wave": ""})
    write_manifest(root / "manifest.parquet", rows)
    return root


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser's folder, trained for a few steps, exported and checked on phrases it never heard."""
    folder = tmp_path_factory.mktemp("run")
    L.seed_everything(0, verbose=False)
    module = RecogniserTraining(dim=32, layers=1, lr=1e-2, warmup=5, max_steps=70)
    data = UtteranceData([str(corpus)], batch_size=8, steps=70, frames=128, distort=False, valid_windows=16)
    trainer = fit(module, data, folder, max_steps=70, checkpoint_every=70, validate_every=70, ema_decay=None,
                  progress=False, accelerator="cpu")
    assert trainer.callback_metrics["valid/phone_error"] < 0.1
    assert trainer.callback_metrics["valid/frame_error"] < 0.15
    module.export(folder / "weights", [])
    return folder / "weights/ctc"


def test_hears_the_words_of_a_wave(trained: Path) -> None:
    reader = CTCReader(list(WORDS), model=str(trained), batch_size=2)
    phrases = [["bee", "key", "bay"], ["bay", "bay"], ["key", "bee", "key", "bay"]]
    spoken = [speak(words, 2.0 + i, np.random.default_rng(i)) for i, words in enumerate(phrases)]
    waves = [wave for wave, _ in spoken]
    # Shorter, quieter and silent clips among them: none changes what is heard in another.
    mixed = [waves[0], waves[1][:100_000], np.zeros(MEL.samples, np.float32), waves[2] * 0.03, waves[1]]
    heard = reader.read_many(mixed)
    assert [item.text.split() for item in heard] == [phrases[0], phrases[1], [], phrases[2], phrases[1]]
    for wave, item in zip(mixed, heard, strict=True):
        assert reader.read(wave).words == item.words
    assert heard[0].words[0].start == pytest.approx(2.0, abs=0.06)
    assert heard[0].words[-1].end == pytest.approx(spoken[0][1][-1][2], abs=0.06)
    noise = np.random.default_rng(9).standard_normal(MEL.samples).astype(np.float32) * 1e-4
    assert reader.read(waves[0] + noise).text.split() == phrases[0]


def test_words_are_added_and_refused(trained: Path) -> None:
    reader = CTCReader(["bee"], model=str(trained))
    assert reader.extend(["Bee, key!"]) == ["key"] and reader.words == ["bee", "key"]
    wave, _ = speak(["key"], 3.0, np.random.default_rng(1))
    assert reader.read(wave).text == "key"
    assert reader.extend(["the"]) == ["the"] and len(reader.loop.texts) > len(reader.words)  # dh ax, dh iy
    for wrong, told in (({"words": []}, "vocabulary is empty"), ({"insertion": 0}, "insertion=0"),
                        ({"doubt": 1}, "doubt=1"), ({"model": "/nowhere"}, "experiment=pocket/ctc")):
        with pytest.raises(UserError, match=told):
            CTCReader(**{"words": ["bee"], "model": str(trained), **wrong})


def test_a_recogniser_comes_back_from_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PhoneRecogniser(SYMBOLS, dim=8, layers=1, stride=3).eval()
    network.save_pretrained(tmp_path)
    again = PhoneRecogniser.from_pretrained(tmp_path)
    logmel = torch.randn(2, MEL.n_mels, 40)
    answer = again(logmel)
    assert answer.shape == (2, 14, len(SYMBOLS)) and again.symbols == SYMBOLS
    torch.testing.assert_close(answer, network(logmel), rtol=1e-2, atol=1e-2)  # fp16 weights
    torch.testing.assert_close(answer.exp().sum(-1), torch.ones(2, 14))
    # Louder by any factor, and with other silence far below, it is the same clip.
    torch.testing.assert_close(again(logmel + 3), answer)
    torch.testing.assert_close(again(logmel.where(logmel > 0, -20)), again(logmel.where(logmel > 0, -90)))
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "mel_spec": {**config["mel_spec"], "hop": 256}})
    with pytest.raises(UserError, match="another mel spec: hop=256"):
        PhoneRecogniser.from_pretrained(tmp_path)
    write_json(tmp_path / "config.json", {**config, "dim": 16})
    with pytest.raises(UserError, match="not a readable recogniser"):
        PhoneRecogniser.from_pretrained(tmp_path)


@needs_font
def test_windows_are_changed_but_not_what_is_said(corpus: Path) -> None:
    """Every change by chance happens in some window; each window is a function of its number."""
    windows = SpokenWindows([corpus], 12, frames=200, seed=2, played=0.5)
    items = [windows[i] for i in range(12)]
    for i, item in enumerate(items):
        assert item["logmel"].shape == (MEL.n_mels, 200) and item["logmel"].isfinite().all()
        assert item["labels"].shape == (100,)
        assert {SYMBOLS[k] for k in item["targets"].tolist()} <= set(TONES)
        if i < 2:
            again = windows[i]
            assert all(again[name].equal(item[name]) for name in item)
        # CTC's targets are the labels with repetitions dropped, but for phones cut by the window's ends.
        runs = [int(k) for k in torch.unique_consecutive(item["labels"]) if k]
        assert Levenshtein.distance(item["targets"].tolist(), runs) <= 2
    with pytest.raises(UserError, match="no corpus in /nowhere"):
        UtteranceData(["/nowhere"])


@needs_font
def test_windows_share_their_cells_with_drawings_and_say_the_same(corpus: Path) -> None:
    """Every window is joined with a drawing by settings of its own; labels and targets stay as they were."""
    plain = SpokenWindows([corpus], 6, frames=200, seed=2)
    shared = SpokenWindows([corpus], 6, frames=200, seed=2, join=JoinedByChance(1))
    for i in range(6):
        before, after = plain[i], shared[i]
        assert after["logmel"].isfinite().all() and after["logmel"].shape == before["logmel"].shape
        assert after["targets"].equal(before["targets"]) and after["labels"].equal(before["labels"])
        assert shared[i]["logmel"].equal(after["logmel"])
        # The picture can be heard: no silence is left but what SpecAugment blots out.
        assert float((after["logmel"] <= MEL.log_floor + 0.1).float().mean()) < 0.3
    with pytest.raises(UserError, match="data.join.share=2: expected 0 to 1"):
        JoinedByChance(2)


def test_settings_by_chance_are_settings() -> None:
    rng = np.random.default_rng(0)
    found = [by_chance(rng) for _ in range(200)]  # each is checked when it is made
    assert 60 < sum(settings.dots > 0 for settings in found) < 140


def test_a_recogniser_is_trained_on(tmp_path: Path) -> None:
    first = RecogniserTraining(dim=8, layers=1)
    first.network.save_pretrained(tmp_path)
    more = RecogniserTraining(dim=8, layers=1, base=str(tmp_path))
    for name, value in more.network.named_parameters():
        assert value.requires_grad
        torch.testing.assert_close(value, first.network.get_parameter(name), rtol=1e-2, atol=1e-3)
    with pytest.raises(UserError, match=r"other sizes: model.dim=16 \(there 8\), model.stride=4 \(there 2\)"):
        RecogniserTraining(dim=16, layers=1, stride=4, base=str(tmp_path))
    with pytest.raises(UserError, match="holds no recogniser"):
        RecogniserTraining(base=str(tmp_path / "none"))
