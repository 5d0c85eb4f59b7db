"""What readers of speech hear, and what they make of silence, noise and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
from machine import needs_flite

from images_that_speak.audio.mel import MEL
from images_that_speak.errors import UserError
from images_that_speak.resources import words
from images_that_speak.scoring.heard import PocketsphinxReader, WhisperReader


@pytest.fixture(scope="module")
def reader() -> PocketsphinxReader:
    return PocketsphinxReader()


def noise(seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(MEL.samples)).astype(np.float32)


@needs_flite
def test_hears_the_words_and_when(reader: PocketsphinxReader) -> None:
    from images_that_speak.speech.tts import Flite

    phrases = ["happy baby music sister winter bridge", "dinner beautiful butter ladder jumping bread"]
    clips, starts = [], []
    for phrase in phrases:
        spoken = Flite().speak(phrase, "slt")
        clip = np.zeros(MEL.samples, np.float32)
        clip[48_000:48_000 + len(spoken.wave)] = spoken.wave
        clips.append(clip)
        starts.append(3 + next(phone.start for phone in spoken.phones if phone.symbol != "pau"))
    heard = reader.read_many(clips)
    assert jiwer.wer(phrases, [item.text for item in heard]) <= 1 / 12
    for item, start in zip(heard, starts, strict=True):
        assert item.text == " ".join(word.text for word in item.words)
        assert item.words[0].start == pytest.approx(start, abs=0.1)
        assert all(a.end <= b.start + 1e-6 for a, b in zip(item.words, item.words[1:], strict=False))
    # Neither loudness nor what was read before changes what is heard.
    assert reader.read(clips[0] * 0.05).text == heard[0].text
    reader.read(noise())
    assert reader.read(clips[1]).words == heard[1].words


def test_hears_nothing_in_silence(reader: PocketsphinxReader) -> None:
    assert reader.read(np.zeros(MEL.samples, np.float32)).text == ""
    assert reader.read(np.full(MEL.samples, 1e-5, np.float32)).text == ""
    assert reader.read(np.ones(100, np.float32)).text == ""


@pytest.mark.parametrize("level", [0.01, 0.3])
def test_hears_little_in_noise_and_in_bounded_time(reader: PocketsphinxReader, level: float) -> None:
    heard = reader.read(noise(1, level))
    assert len(heard.words) <= 3
    # Half a second on an idle core; the bound leaves room for a busy one.
    assert heard.seconds < 30


def test_words_of_the_prompt_are_added(reader: PocketsphinxReader) -> None:
    small = PocketsphinxReader(["apple", "Baby!", "apple"])
    assert small.words == ["apple", "baby"]
    assert small.extend(["an apple, a xylophonist", "baby"]) == ["an", "a", "xylophonist"]
    assert small.words == ["apple", "baby", "an", "a", "xylophonist"]
    assert small.extend(["apple"]) == []
    small.forget()
    assert small.words == ["apple", "baby"] and small.extend(["a"]) == ["a"]


def test_bad_vocabularies_and_waves(reader: PocketsphinxReader, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="vocabulary is empty"):
        PocketsphinxReader([])
    with pytest.raises(UserError, match="no such word list"):
        PocketsphinxReader("nowhere.txt")

    def unknown(self: PocketsphinxReader, word: str) -> str:
        raise UserError("unknown")

    monkeypatch.setattr(PocketsphinxReader, "phones", unknown)
    small = PocketsphinxReader(["apple"])
    with pytest.raises(UserError, match="no pronunciation for 'qozxv'"):
        small.extend(["apple qozxv"])
    assert small.words == ["apple"] and small.read(noise(2, 0.01)) is not None
    for wave, said in ((np.zeros((2, 100), np.float32), "expected mono"), (np.zeros(100, np.int16), "int16"),
                       (np.full(100, np.nan, np.float32), "NaN")):
        with pytest.raises(UserError, match=said):
            reader.read(wave)


def test_every_word_of_the_list_can_be_heard(reader: PocketsphinxReader) -> None:
    assert reader.words == words() and len(words()) == 100


def tiny_whisper(folder: Path, seed: int = 0) -> Path:
    """A Whisper of random weights with a vocabulary of single bytes."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    vocabulary = {token: index for index, token in enumerate([*letters, *special])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[], unk_token=special[0], bos_token=special[0],
                                 eos_token=special[0])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    end, start, _, _, plain = (vocabulary[token] for token in special)
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(vocabulary), num_mel_bins=80, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_target_positions=32, pad_token_id=end, bos_token_id=end, eos_token_id=end,
        decoder_start_token_id=start, suppress_tokens=None, begin_suppress_tokens=None))
    model.generation_config = GenerationConfig(
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
        is_multilingual=False, no_timestamps_token_id=plain, max_length=32)
    model.save_pretrained(folder)
    return folder


def test_whisper_reads_in_batches(tmp_path: Path) -> None:
    reader = WhisperReader(str(tiny_whisper(tmp_path)), batch_size=2)
    waves = [noise(seed) for seed in range(3)]
    waves.insert(1, np.zeros(MEL.samples, np.float32))
    heard = reader.read_many(waves)
    assert len(heard) == 4 and heard[1].text == ""
    assert all(set(item.text) <= set("abcdefghijklmnopqrstuvwxyz' ") for item in heard)
    assert [item.text for item in heard] == [reader.read(wave).text for wave in waves]
    with pytest.raises(UserError, match="at most 30 s"):
        reader.read(np.zeros(31 * 16_000, np.float32))


def test_whisper_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="no Whisper model can be loaded"):
        WhisperReader(str(tmp_path), offline=True)
    with pytest.raises(UserError, match="dtype='int8'"):
        WhisperReader(str(tmp_path), dtype="int8")
