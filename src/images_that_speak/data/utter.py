"""Things said aloud: the painter's nouns in sentences, by many voices, for what learns to draw from speech.

A folder of `utterances.csv` and `sounds/VOICE/*.flac` at 16 kHz. Every utterance is a function of the seed,
its voice and its text, so a build that was stopped goes on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.functional import fftconvolve, lowpass_biquad

from ..errors import UserError
from ..files import atomic_path, atomic_write
from ..prompts import read_table
from ..ranges import check_ranges
from ..speech.backends import load_tts
from ..speech.tts import SAMPLE_RATE, TTS, resample
from .corpus import CorpusSummary
from .emoji import Concept, concepts

TABLE = "utterances.csv"
# {a}: "an owl", {bare}: "owl", {many}: "owls". Whoever names a thing says no more than its name.
SENTENCES = (
    "{bare}", "{a}", "{bare}", "{a}", "{many}", "this is {a}", "please draw {a}", "draw me {a}",
    "i would like to see {a}", "can you show me {a}", "there is {a} in the garden", "look at the {bare}",
    "a picture of {a}", "we have {a} at home", "the {bare} is behind the house", "{many} everywhere",
    "have you ever seen {a} like this", "yesterday i met {a}", "here comes the {bare}", "{a} under the tree",
    "tell me something about {many}", "nobody expected {a}", "some {many} and nothing else", "it was {a}",
    "paint {a} on the wall", "the old {bare} was gone", "where did you find the {bare}", "he bought {a}")
# Of these no training hears one.
OTHER_SENTENCES = (
    "we saw {a} on our way back", "could you paint {a} for me", "my favourite thing is the {bare}",
    "what i want now is {a}", "{a} if you please", "she always dreamt of {a}", "the {bare} again",
    "i think that must be {a}")


@dataclass(frozen=True)
class Spoken:
    """One utterance: its file below the folder, what is said, the noun in it, the voice, the split."""

    file: str
    text: str
    noun: str
    voice: str
    split: str


COLUMNS = tuple(field.name for field in fields(Spoken))


def read_utterances(root: str | Path, split: str | None = None) -> list[Spoken]:
    """The utterances of a folder, or those of a split. Raises UserError on a missing or foreign folder."""
    path = Path(root) / TABLE
    if not path.is_file():
        raise UserError(f"{root}: holds no {TABLE} (python -m images_that_speak.data data=spoken_nouns makes "
                        "one)")
    found = [Spoken(**row) for _, row in read_table(path, COLUMNS)]
    there = [one for one in found if split is None or one.split == split]
    if not there:
        raise UserError(f"{path}: no utterance of split {split!r} (expected one of "
                        f"{', '.join(sorted({one.split for one in found}))})")
    return there


def said(sentence: str, thing: Concept) -> str:
    """A sentence about a thing."""
    return sentence.format(a=thing.singular, bare=thing.name, many=thing.plural)


def build_utterances(root: str | Path, voices: Sequence[str], other_voices: Sequence[str] = (),
                     each: int = 6, other_each: int = 2, nouns: Sequence[str] | None = None, seed: int = 0
                     ) -> CorpusSummary:
    """Have every voice say each noun in `each` sentences, or go on where that was stopped.

    Splits: "train"; "sentences", known voices in other sentences (one each); "voices" and "test",
    `other_voices` in the sentences of training and in others (`other_each` of both). Those of "train" are
    spoken as by other people and in other rooms (`disturbed`); the rest is left as it was spoken.

    voices: as TTS/VOICE, of `speech.backends`. nouns: only these of the painter's. Raises UserError on
    unknown voices or nouns.
    """
    check_ranges({"data.each": each, "data.other_each": other_each})
    root, begun, known = Path(root), time.monotonic(), {thing.name: thing for thing in concepts()}
    if unknown := [noun for noun in nouns or () if noun not in known]:
        raise UserError(f"data.nouns: {unknown[0]!r}: not among the painter's "
                        "(python -m images_that_speak.drawings lists them)")
    speakers = {voice: speaker(voice) for voice in (*voices, *other_voices)}
    plan = [(thing, voice, split, sentence)
            for thing in (known[noun] for noun in nouns or known) for voice in speakers
            for split, sentence in _sentences(thing, voice, voice in other_voices, each, other_each, seed)]
    rows, made, seconds = [], 0, 0.0
    for thing, voice, split, sentence in plan:
        text = said(sentence, thing)
        rng = np.random.default_rng(_number(seed, voice, text, split))
        name = f"sounds/{voice.replace('/', '-')}/{_number(seed, voice, text, split):016x}.flac"
        if not (root / name).is_file():
            tts, which = speakers[voice]
            wave = tts.sound(text, which)
            wave = disturbed(wave, rng) if split == "train" else 0.9 * wave / max(np.abs(wave).max(), 1e-4)
            with atomic_path(root / name) as temporary:
                soundfile.write(temporary, wave.astype(np.float32), SAMPLE_RATE, format="FLAC")
            made += 1
        seconds += soundfile.info(root / name).duration
        rows.append(Spoken(name, text, thing.name, voice, split))
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *map(astuple, rows)])
    atomic_write(root / TABLE, table.getvalue().encode())
    return CorpusSummary(root, len(rows), made, len(rows) - made, seconds / 3600, time.monotonic() - begun,
                         dict(Counter(row.split for row in rows)))


def speaker(voice: str) -> tuple[TTS, str]:
    """The synthesiser and the voice of TTS/VOICE. Raises UserError where there is none."""
    name, _, which = voice.partition("/")
    tts = load_tts(name)
    tts.check_voice(which or tts.voices[0])
    return tts, which or tts.voices[0]


def _sentences(thing: Concept, voice: str, other: bool, each: int, other_each: int, seed: int
               ) -> Iterator[tuple[str, str]]:
    """(split, sentence) of what a voice says of a thing; all of its own choice."""
    rng = np.random.default_rng(_number(seed, voice, thing.name))
    known = list(dict.fromkeys(SENTENCES))
    if other:
        yield from (("voices", s) for s in rng.choice(known, other_each, replace=False))
        yield from (("test", s) for s in rng.choice(OTHER_SENTENCES, other_each, replace=False))
    else:
        yield from (("train", s) for s in dict.fromkeys(rng.choice(SENTENCES, each, replace=False)))
        yield "sentences", rng.choice(OTHER_SENTENCES)


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def disturbed(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) at 16 kHz as by another person in another room: pitch, formants and pace together by 0.84 to 1.2;
    in half of the cases with an echo; as often dulled; and with noise 8 to 45 dB below the speech."""
    sound = torch.from_numpy(resample(wave, SAMPLE_RATE, 160 * int(rng.integers(84, 121)))).double()
    if rng.random() < 0.5:
        length = int(rng.uniform(0.05, 0.4) * SAMPLE_RATE)
        room = rng.normal(size=length) * np.exp(np.linspace(0, -6, length)) * rng.uniform(0.02, 0.15)
        room[0] = 1
        sound = fftconvolve(sound, torch.from_numpy(room))
    if rng.random() < 0.5:
        sound = lowpass_biquad(sound, SAMPLE_RATE, rng.uniform(2500, 7500))
    noise = rng.normal(size=len(sound))
    noise = np.cumsum(noise) - np.cumsum(noise).mean() if rng.random() < 0.3 else noise
    below = 10 ** (-rng.uniform(8, 45) / 20)
    heard = sound.numpy() + noise * below * sound.numpy().std() / max(noise.std(), 1e-9)
    return (rng.uniform(0.1, 0.95) * heard / max(np.abs(heard).max(), 1e-4)).astype(np.float32)
