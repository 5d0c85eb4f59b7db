from __future__ import annotations

import numpy as np
import pytest
from machine import needs_flite

from images_that_speak.errors import UserError
from images_that_speak.speech.backends import load_tts
from images_that_speak.speech.phonemes import PHONES
from images_that_speak.speech.tts import (
    FLITE_FOLD,
    IPA_TO_ARPABET,
    Espeak,
    Flite,
    ipa_to_arpabet,
    one_sentence,
    resample,
)


@pytest.fixture(scope="module")
def flite() -> Flite:
    return Flite()


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    pytest.importorskip("espeakng_loader")
    return Espeak()


def symbols(utterance) -> list[str]:
    return [phone.symbol for phone in utterance.phones if phone.symbol != "pau"]


def loudness(wave: np.ndarray, start: float, end: float) -> float:
    return float(np.sqrt(np.mean(wave[int(start * 16000): int(end * 16000)] ** 2)))


@pytest.mark.parametrize("rate", [8000, 22050, 16000])
def test_resampling_keeps_the_pitch(rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    wave = resample(tone, rate)
    assert len(wave) == 16000
    assert np.argmax(np.abs(np.fft.rfft(wave))) == 440


def test_a_phrase_stays_one_sentence():
    assert one_sentence("One cat.  Two dogs! ") == "One cat, Two dogs"


def test_every_symbol_of_the_tables_is_a_phone():
    assert set(FLITE_FOLD.values()) <= set(PHONES)
    assert {phone for phones in IPA_TO_ARPABET.values() for phone in phones} <= set(PHONES)


@pytest.mark.parametrize("ipa, phones", [
    ("iː", ("iy",)), ("ɑːɹ", ("aa", "r")), ("tʃ", ("ch",)), ("ˈoʊ", ("ow",)), ("_:", ("pau",)), ("(en)", ()),
    ("əl", ("ax", "l")),
])
def test_ipa_becomes_arpabet(ipa, phones):
    assert ipa_to_arpabet(ipa) == phones


def test_unknown_backend_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'flite'"):
        load_tts("flit")


def test_missing_flite_says_how_to_install_it():
    with pytest.raises(UserError, match="make setup"):
        Flite(command="no-such-flite")


def test_espeak_refuses_an_impossible_rate():
    pytest.importorskip("espeakng_loader")
    with pytest.raises(UserError, match="words_per_minute=10"):
        Espeak(words_per_minute=10)


@needs_flite
def test_flite_says_which_phones_it_speaks(flite):
    assert symbols(flite.speak("green house", "slt")) == ["g", "r", "iy", "n", "hh", "aw", "s"]
    assert flite.version != "unknown" and {"slt", "rms", "awb", "kal16"} <= set(flite.voices)


@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal16", "kal"])
def test_flite_times_fit_the_sound(flite, voice):
    speech = flite.speak("seven happy dogs", voice)
    assert set(symbols(speech)) <= set(PHONES)
    assert speech.phones[0].start == 0
    assert all(a.end == b.start for a, b in zip(speech.phones, speech.phones[1:], strict=False))
    assert 1 < speech.phones[-1].end < 4
    assert abs(len(speech.wave) / 16000 - speech.phones[-1].end) < 0.2  # kal drops the last of its silence
    vowels = [loudness(speech.wave, p.start, p.end) for p in speech.phones if p.symbol in ("eh", "ae", "ao")]
    assert min(vowels) > 20 * loudness(speech.wave, 0, speech.phones[0].end - 0.05)


@needs_flite
@pytest.mark.parametrize("text", ["-o happy", "one. two! three?", "it's a \"cat\"; $(touch x)"])
def test_flite_takes_any_text_as_text(flite, text):
    speech = flite.speak(text, "kal16")
    assert all(a.end <= b.end for a, b in zip(speech.phones, speech.phones[1:], strict=False))


@needs_flite
@pytest.mark.parametrize("text", ["", "   ", "..."])
def test_flite_refuses_nothing(flite, text):
    with pytest.raises(UserError):
        flite.speak(text, "slt")


@needs_flite
def test_unknown_voice_names_the_nearest(flite):
    with pytest.raises(UserError, match="Did you mean 'slt'"):
        flite.speak("cat", "slb")


def test_espeak_says_which_phones_it_speaks(espeak):
    assert symbols(espeak.speak("green house", "en-us")) == ["g", "r", "iy", "n", "hh", "aw", "s"]


def test_espeak_times_fit_the_sound(espeak):
    speech = espeak.speak("seven happy dogs, the moon", "en-gb")
    assert set(symbols(speech)) <= set(PHONES)
    assert all(abs(a.end - b.start) < 1e-9 for a, b in zip(speech.phones, speech.phones[1:], strict=False))
    assert abs(len(speech.wave) / 16000 - speech.phones[-1].end) < 0.01
    vowels = [loudness(speech.wave, p.start, p.end) for p in speech.phones if p.symbol in ("eh", "ae", "uw")]
    pauses = [loudness(speech.wave, p.start + 0.03, p.end) for p in speech.phones[1:-1]
              if p.symbol == "pau" and p.end - p.start > 0.06]
    assert pauses and min(vowels) > 10 * max(pauses)


def test_espeak_speaks_again_nearly_the_same(espeak):
    first, again = (espeak.speak("a cat", "en-us") for _ in range(2))
    assert symbols(first) == symbols(again) and abs(len(first.wave) - len(again.wave)) < 160
