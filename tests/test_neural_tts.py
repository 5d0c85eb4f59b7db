"""Synthesisers without phone times, and forced alignment: small random networks in the published layouts."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from machine import needs_flite

from images_that_speak.errors import UserError
from images_that_speak.speech import neural
from images_that_speak.speech.backends import BACKENDS, load_tts
from images_that_speak.speech.forced import PocketsphinxAligner, align_emissions, with_pauses
from images_that_speak.speech.neural import Hibari, Kokoro, Piper, SpeechT5, Tacotron2
from images_that_speak.speech.phonemes import text_to_phones
from images_that_speak.speech.tts import Flite, Phone, SpeechError


def even(wave: np.ndarray, text: str) -> list[Phone]:
    """An aligner that shares the sound equally among the phones: random networks say nothing."""
    phones = [phone for word in text_to_phones(text) for phone in word]
    step = len(wave) / 16_000 / len(phones)
    return [Phone(phone, i * step, (i + 1) * step) for i, phone in enumerate(phones)]


# --- forced alignment

@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms"])
def test_pocketsphinx_finds_the_phones_that_flite_timed(voice: str) -> None:
    spoken = Flite().speak("seven happy dogs sleep in the garden", voice)
    aligner = pickle.loads(pickle.dumps(PocketsphinxAligner()))
    found = [phone for phone in aligner(spoken.wave, "Seven happy dogs sleep in the garden.")
             if phone.symbol != "pau"]
    truth = [phone for phone in spoken.phones if phone.symbol != "pau"]
    assert [phone.symbol for phone in found] == [
        phone for word in text_to_phones("seven happy dogs sleep in the garden") for phone in word]
    assert len(found) == len(truth)
    off = np.abs([a.start - b.start for a, b in zip(found, truth, strict=True)])
    assert np.median(off) < 0.03 and off.max() < 0.15  # seconds
    assert all(a.end <= b.start + 1e-6 for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("wave", [np.zeros(16_000, np.float32), np.ones(100, np.float32)])
def test_nothing_is_aligned_to_silence(wave: np.ndarray) -> None:
    with pytest.raises(SpeechError, match="no sound"):
        PocketsphinxAligner()(wave, "a cat")


def test_more_words_than_sound_cannot_be_aligned() -> None:
    noise = np.random.default_rng(0).standard_normal(3200).astype(np.float32) * 0.1
    with pytest.raises(SpeechError, match="cannot be aligned"):
        PocketsphinxAligner()(noise, "seven happy dogs sleep in the garden")


def test_emissions_by_hand() -> None:
    """One certain frame each: a blank within a word is shared, one between words is a pause."""
    symbols = ["<blank>", "k", "ae", "t", "d", "ao", "g"]
    emitted = [0, 0, 1, 1, 0, 0, 2, 2, 3, 0, 0, 4, 5, 5, 6, 0]
    log_probs = torch.log(torch.nn.functional.one_hot(torch.tensor(emitted), 7) * 0.9 + 0.01)
    found = align_emissions(log_probs, symbols, "cat dog", 1.6)
    expected = [("pau", 0, 0.2), ("k", 0.2, 0.5), ("ae", 0.5, 0.8), ("t", 0.8, 0.9), ("pau", 0.9, 1.1),
                ("d", 1.1, 1.2), ("ao", 1.2, 1.4), ("g", 1.4, 1.5), ("pau", 1.5, 1.6)]
    assert [phone.symbol for phone in found] == [symbol for symbol, *_ in expected]
    np.testing.assert_allclose([(phone.start, phone.end) for phone in found],
                               [times for _, *times in expected], atol=1e-6)
    with pytest.raises(SpeechError, match="does not know b, er"):
        align_emissions(log_probs, symbols, "bird", 1.6)
    with pytest.raises(SpeechError, match="cannot be aligned"):
        align_emissions(log_probs[:3], symbols, "cat dog", 0.3)


def test_pauses_fill_what_is_left() -> None:
    assert with_pauses([Phone("b", 0.5, 1.0)], 1.0) == [Phone("pau", 0.0, 0.5), Phone("b", 0.5, 1.0)]
    assert with_pauses([], 2.0) == [Phone("pau", 0.0, 2.0)]


# --- Tacotron2

class TinyTacotron2(Tacotron2):
    def bundle(self):
        bundle = super().bundle()
        small = {"n_mels": 80, "symbol_embedding_dim": 8, "encoder_embedding_dim": 8, "decoder_rnn_dim": 8,
                 "attention_rnn_dim": 8, "attention_hidden_dim": 8, "prenet_dim": 8, "decoder_max_step": 30,
                 "postnet_embedding_dim": 8, "gate_threshold": 2.0, "decoder_early_stopping": False}
        return replace(bundle, _tacotron2_params={**bundle._tacotron2_params, **small})


def test_tacotron2_speaks_from_a_folder_of_published_files(tmp_path: Path) -> None:
    from torchaudio.models import Tacotron2 as Network

    tts = TinyTacotron2(vocoder="griffin_lim", folder=str(tmp_path), aligner=even)
    name = Path(tts.bundle()._tacotron2_path).name
    assert name == "tacotron2_english_characters_1500_epochs_ljspeech.pth"
    with pytest.raises(UserError, match=name):
        tts.speak("a cat", "ljspeech")
    torch.manual_seed(0)
    torch.save(Network(**tts.bundle()._tacotron2_params).state_dict(), tmp_path / name)
    spoken = tts.speak("A cat, 2 dogs.", "ljspeech")
    # 30 frames of 256 samples at 22 050 Hz.
    assert 0.2 < len(spoken.wave) / 16_000 < 0.36 and spoken.wave.dtype == np.float32
    assert [phone.symbol for phone in spoken.phones][:3] == ["ax", "k", "ae"]
    again = pickle.loads(pickle.dumps(tts))
    assert "_parts" not in again.__dict__ and again.version == tts.version
    assert tts._parts[2].sample_rate == 22_050
    torch.save({"weight": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match="could not be loaded"):
        again.speak("a cat", "ljspeech")


def test_tacotron2_says_what_it_wants() -> None:
    with pytest.raises(UserError, match="wavernn, griffin_lim"):
        Tacotron2(vocoder="hifigan")


# --- SpeechT5

@pytest.fixture(scope="module")
def speecht5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders model, vocoder and speakers, of the published layout."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import (
        SpeechT5Config,
        SpeechT5ForTextToSpeech,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
        SpeechT5Tokenizer,
    )

    root = tmp_path_factory.mktemp("speecht5")
    (root / "text.txt").write_text("\n".join(["the quick brown fox jumps over the lazy dog", "a cat"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(root / "text.txt"), model_prefix=str(root / "spm_char"), vocab_size=32, model_type="char",
        pad_id=1, unk_id=3, bos_id=0, eos_id=2, minloglevel=2)
    tokenizer = SpeechT5Tokenizer(str(root / "spm_char.model"))
    torch.manual_seed(0)
    config = SpeechT5Config(
        vocab_size=len(tokenizer), hidden_size=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, num_mel_bins=8,
        speech_decoder_prenet_units=8, speech_decoder_postnet_units=8, speaker_embedding_dim=12,
        conv_dim=(8,), conv_stride=(5,), conv_kernel=(10,), num_feat_extract_layers=1)
    SpeechT5ForTextToSpeech(config).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=8, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]])).save_pretrained(root / "vocoder")
    (root / "speakers").mkdir()
    for i, name in enumerate(("awb", "slt")):
        np.save(root / "speakers" / f"{name}.npy", np.random.default_rng(i).normal(size=12))
    np.save(root / "speakers" / "short.npy", np.zeros(3))
    return root


def test_speecht5_speaks_with_each_vector(speecht5: Path) -> None:
    tts = load_tts("speecht5", model=str(speecht5 / "model"), vocoder=str(speecht5 / "vocoder"),
                   speakers=str(speecht5 / "speakers"), offline=True, aligner=even)
    assert isinstance(tts, SpeechT5) and tts.voices == ("awb", "short", "slt")
    spoken = tts.speak("A cat.", "slt")
    again, other = tts.speak("a cat", "slt"), tts.speak("a cat", "awb")
    assert np.array_equal(spoken.wave, again.wave) and len(spoken.wave) and np.isfinite(spoken.wave).all()
    assert not np.array_equal(spoken.wave[:500], other.wave[:500])
    assert [phone.symbol for phone in spoken.phones] == ["ax", "k", "ae", "t"]
    with pytest.raises(UserError, match="short.npy: 3 numbers \\(expected 12"):
        tts.speak("a cat", "short")
    with pytest.raises(UserError, match="Did you mean 'slt'"):
        tts.speak("a cat", "slb")


def test_speecht5_names_what_is_not_there(speecht5: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tts.speakers=.*: holds no \*\.npy"):
        SpeechT5(str(tmp_path))
    tts = SpeechT5(str(speecht5 / "speakers"), model=str(tmp_path), vocoder=str(speecht5 / "vocoder"),
                   offline=True, aligner=even)
    with pytest.raises(UserError, match="no SpeechT5 can be loaded"):
        tts.speak("a cat", "slt")


# --- extras

@pytest.mark.parametrize(("make", "extra"), [
    (lambda folder: Kokoro(), "kokoro"), (lambda folder: Piper(str(folder)), "piper"),
    (lambda folder: SpeechT5(str(folder)), "asr")])
def test_a_missing_package_is_named_with_its_extra(make, extra: str, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise neural.PackageNotFoundError(name)

    monkeypatch.setattr(neural, "installed", nothing)
    with pytest.raises(UserError, match=rf"not installed.*\[{extra}\]"):
        make(tmp_path)


def test_extras_check_their_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural, "installed", lambda name: "1.0")
    with pytest.raises(UserError, match="speed=9"):
        Kokoro(speed=9)
    with pytest.raises(UserError, match=r"holds no config.json, kokoro-v1_0.pth, voices/\*.pt"):
        Kokoro(folder=str(tmp_path))
    with pytest.raises(UserError, match=r"holds no \*.onnx"):
        Piper(str(tmp_path))
    for name in ("en_US-a.onnx", "en_US-a.onnx.json"):
        (tmp_path / name).write_text("{}")
    assert Piper(str(tmp_path)).voices == ("en_US-a",)
    with pytest.raises(UserError, match="length=9"):
        Piper(str(tmp_path), length=9)


def test_a_broken_piper_voice_is_named(tmp_path: Path) -> None:
    pytest.importorskip("piper")
    for name in ("en_US-a.onnx", "en_US-a.onnx.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="en_US-a.onnx: not a readable voice"):
        Piper(str(tmp_path)).speak("a cat", "en_US-a")


def test_piper_speaks_from_a_folder_of_voices(tmp_path: Path) -> None:
    """A voice in the published layout, read by piper itself: a letter is 16 ms as high as its number.

    To that the model adds the noise that it is told to add, and its length times a thousandth.
    """
    pytest.importorskip("piper")
    onnx = pytest.importorskip("onnx")
    node, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    floats, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    nodes = [node("Cast", ["input", ], ["ids"], to=floats),
             node("Reshape", ["ids", "column"], ["steps"]), node("Expand", ["steps", "wide"], ["held"]),
             node("Reshape", ["held", "row"], ["wave"]), node("Mul", ["scales", "share"], ["told"]),
             node("ReduceSum", ["told"], ["more"], keepdims=0), node("Add", ["wave", "more"], ["output"])]
    graph = onnx.helper.make_graph(
        nodes, "voice", [onnx.helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (
            ("input", whole, [1, "t"]), ("input_lengths", whole, [1]), ("scales", floats, [3]))],
        [onnx.helper.make_tensor_value_info("output", floats, [1, 1, 1, "n"])],
        [constant(np.array(value), name) for name, value in (
            ("column", [1, 1, -1, 1]), ("wide", [1, 1, 1, 256]), ("row", [1, 1, 1, -1]))]
        + [constant(np.array([1, 0.001, 1], np.float32), "share")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
              tmp_path / "en_US-steps.onnx")
    letters = {letter: [number] for number, letter in enumerate("_^$ act", 1)}
    (tmp_path / "en_US-steps.onnx.json").write_text(json.dumps({
        "audio": {"sample_rate": 16_000}, "espeak": {"voice": "en-us"}, "phoneme_type": "text",
        "num_symbols": 8, "num_speakers": 1, "phoneme_id_map": letters,
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8}}))
    tts = load_tts("piper", folder=str(tmp_path), length=2.0, aligner=even)
    assert isinstance(tts, Piper) and tts.voices == ("en_US-steps",)
    spoken = tts.speak("A cat.", "en_US-steps")
    steps = spoken.wave.reshape(-1, 256)
    assert (steps == steps[:, :1]).all()  # nothing is cut off, nothing is resampled
    # Loudness is piper's choice: 7 is the highest of the letters.
    assert steps.max() == 1 and (steps[:, 0] * 7.002 - 0.002) == pytest.approx(
        np.round(steps[:, 0] * 7.002 - 0.002), abs=1e-3)
    said = [int(value) for value in np.round(steps[:, 0] * 7.002 - 0.002) if value not in (1, 2, 3)]
    assert [" act"[number - 4] for number in said] == list("a cat")
    assert [phone.symbol for phone in spoken.phones] == ["ax", "k", "ae", "t"]


def test_hibari_speaks_and_is_aligned() -> None:
    pytest.importorskip("hibari")
    tts = pickle.loads(pickle.dumps(load_tts("hibari")))
    spoken = tts.speak("happy baby music", "heart")
    assert [phone.symbol for phone in spoken.phones if phone.symbol != "pau"] == [
        phone for word in text_to_phones("happy baby music") for phone in word]
    assert len(load_tts("hibari", speed=2).speak("happy baby music", "heart").wave) < 0.7 * len(spoken.wave)
    with pytest.raises(UserError, match="tts.speed=9: expected 0.25 to 4"):
        Hibari(speed=9)
    with pytest.raises(UserError, match="no voice 'hart'.*heart"):
        tts.check_voice("hart")


def test_kokoro_speaks_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the signatures of kokoro 0.9.4: a part for each word, and one without sound."""
    for name in ("config.json", "kokoro-v1_0.pth", "voices/af_heart.pt", "voices/bf_emma.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    asked = []

    class KModel:
        def __init__(self, repo_id=None, config=None, model=None):
            asked.append((config, model))

        def eval(self):
            return self

    class KPipeline:
        def __init__(self, lang_code, repo_id=None, model=True):
            assert isinstance(model, KModel)
            self.lang_code = lang_code

        def __call__(self, text, voice=None, speed=1):
            asked.append((self.lang_code, text, voice, speed))
            yield from (SimpleNamespace(audio=torch.ones(2400)) for _ in text.split())
            yield SimpleNamespace(audio=None)

    monkeypatch.setattr(neural, "installed", lambda name: "0.9.4")
    monkeypatch.setitem(sys.modules, "kokoro", SimpleNamespace(KModel=KModel, KPipeline=KPipeline))
    tts = load_tts("kokoro", folder=str(tmp_path), speed=0.8, aligner=even)
    assert isinstance(tts, Kokoro) and tts.voices == ("af_heart", "bf_emma")
    spoken = tts.speak("A cat.", "af_heart")
    tts.speak("A cat.", "bf_emma")
    assert len(spoken.wave) == 3200  # two parts of 0.1 s at 24 kHz
    assert asked == [(str(tmp_path / "config.json"), str(tmp_path / "kokoro-v1_0.pth")),
                     *((language, "a cat", str(tmp_path / f"voices/{voice}.pt"), 0.8)
                       for language, voice in (("a", "af_heart"), ("b", "bf_emma")))]


def test_every_backend_has_its_config() -> None:
    from images_that_speak.resources import ROOT

    assert set(BACKENDS) == {path.stem for path in (ROOT / "configs/tts").glob("*.yaml")}
