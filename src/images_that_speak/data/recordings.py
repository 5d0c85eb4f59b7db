"""Published speech corpora, read from the folders they come in, as clips of this project.

| name            | folder                                                                              |
|-----------------|-------------------------------------------------------------------------------------|
| ljspeech        | metadata.csv (id | text | normalised text, or without the last), wavs/ID.wav        |
| libritts_r      | SUBSET/SPEAKER/CHAPTER/ID.wav with ID.normalized.txt                                |
| vctk            | txt/SPEAKER/ID.txt, wav48_silence_trimmed/SPEAKER/ID_mic1.flac (0.92) or            |
|                 | wav48/SPEAKER/ID.wav                                                                |
| speech_commands | WORD/SPEAKER_nohash_N.wav, validation_list.txt, testing_list.txt                    |
| speech_coco     | train2014/ and val2014/, each json/ID.json and wav/ID.wav                           |

What belongs to which split is the publisher's division where there is one, else a hash of the words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..audio.mel import MEL
from ..errors import UserError, nearest
from ..files import content_hash, file_hash, read_json
from ..ranges import check_ranges
from ..speech.forced import Aligner, PocketsphinxAligner, align_emissions
from ..speech.phonemes import normalise_text
from ..speech.tts import TTS, Phone, SpeechError, Utterance, resample
from .clips import DoesNotFit
from .corpus import BadClip, CorpusSummary, build_plan
from .phrases import Prompt, split_fractions, split_of

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
LONGEST = MEL.seconds + 4  # seconds of a recording, its silence included, that may still fit a picture


@dataclass(frozen=True)
class Recording:
    """One sound file: its path within the folder, what is said, by whom; split None leaves it to a hash."""

    path: str
    text: str
    speaker: str
    split: str | None = None


def ljspeech(root: Path) -> Iterator[Recording]:
    path = root / "metadata.csv"
    for number, line in enumerate(_lines(path), 1):
        name, *texts = (column.strip() for column in line.split("|"))
        if not texts or len(texts) > 2:
            raise UserError(f"{path}: line {number} ({line[:40]!r}) has {len(texts)} bars (expected id | "
                            "text, or id | text | normalised text)")
        # The id may be written as a file: ID.wav, wavs/ID.wav. It may have other dots.
        name = name.removeprefix("wavs/")
        file = name if name.lower().endswith(SOUNDS) else f"{name}.wav"
        yield Recording(f"wavs/{file}", texts[-1] or texts[0], "ljspeech")


def libritts_r(root: Path) -> Iterator[Recording]:
    splits = {"train": "train", "dev": "valid", "test": "test"}
    for path in sorted(root.glob("*/*/*/*.normalized.txt")):
        subset, speaker, *_ = path.relative_to(root).parts
        sound = path.with_name(path.name.replace(".normalized.txt", ".wav"))
        yield Recording(sound.relative_to(root).as_posix(), " ".join(_lines(path)), speaker,
                        splits.get(subset.split("-")[0]))


def vctk(root: Path) -> Iterator[Recording]:
    for path in sorted(root.glob("txt/*/*.txt")):
        speaker, name = path.parent.name, path.stem
        new, old = f"wav48_silence_trimmed/{speaker}/{name}_mic1.flac", f"wav48/{speaker}/{name}.wav"
        yield Recording(old if (root / old).exists() else new, " ".join(_lines(path)), speaker)


def speech_commands(root: Path) -> Iterator[Recording]:
    lists = {name: set(_lines(root / f"{file}_list.txt"))
             for name, file in (("valid", "validation"), ("test", "testing"))}
    for path in sorted(root.glob("[!_]*/*_nohash_*.wav")):
        name = path.relative_to(root).as_posix()
        split = next((split for split, names in lists.items() if name in names), "train")
        yield Recording(name, path.parent.name, path.name.partition("_nohash_")[0], split)


def speech_coco(root: Path) -> Iterator[Recording]:
    for path in sorted(root.glob("*2014/json/*.json")):
        about = read_json(path)
        part = path.parent.parent.name
        try:
            text, speaker, sound = about["synthesisedCaption"], about["speaker"], about["wavFilename"]
        except KeyError as error:
            raise UserError(f"{path}: no key {error} (expected SPEECH-COCO's)") from error
        # Captions of val2014 are of other pictures than train2014's: they are both other splits.
        split = "train" if part == "train2014" else split_of(str(about.get("imgID", text)), {"test": 0.5})
        yield Recording(f"{part}/wav/{Path(sound).stem}.wav", text, speaker,
                        "valid" if part != "train2014" and split == "train" else split)


READERS: dict[str, Callable[[Path], Iterator[Recording]]] = {
    "ljspeech": ljspeech, "libritts_r": libritts_r, "vctk": vctk, "speech_commands": speech_commands,
    "speech_coco": speech_coco}


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines, which parts at characters that no editor shows as the end of a line.
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file (expected the folder as it is published)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable text file ({error})") from error


class CTCAligner:
    """Forced alignment by a recogniser trained here (`experiment=pocket/ctc`)."""

    def __init__(self, recogniser: str | Path):
        self.recogniser = str(recogniser)
        self._parts  # noqa: B018 - loaded now, so that a folder without one is told at once

    def __getstate__(self) -> dict[str, Any]:
        return {"recogniser": self.recogniser}

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        from ..audio.mel import LogMel
        from ..networks.recogniser import PhoneRecogniser

        return PhoneRecogniser.from_pretrained(self.recogniser), LogMel()

    def __call__(self, wave: np.ndarray, text: str) -> list[Phone]:
        import torch

        network, analysis = self._parts
        peak = float(np.abs(wave).max(initial=0))
        if peak < 1e-4 or len(wave) <= MEL.padding:
            raise SpeechError(f"{text!r}: there is no sound to align it to")
        with torch.inference_mode():
            log_probs = network(analysis(torch.from_numpy(wave * np.float32(0.95 / peak))[None]))[0]
        seconds = len(log_probs) * network.seconds_per_frame
        phones = align_emissions(log_probs, network.symbols, text, seconds)
        last = len(wave) / MEL.sample_rate
        return [Phone(p.symbol, p.start, min(p.end, last)) for p in phones if p.start < last]


def make_aligner(name: str, recogniser: str | Path | None = None) -> tuple[Aligner, str]:
    """The aligner called pocketsphinx or ctc, and what its times depend on. Raises UserError."""
    if name == "pocketsphinx":
        from importlib.metadata import version

        return PocketsphinxAligner(), f"pocketsphinx-{version('pocketsphinx')}"
    if name != "ctc":
        raise UserError(f"data.aligner={name}: expected pocketsphinx or ctc."
                        + nearest(name, ["pocketsphinx", "ctc"]))
    if recogniser is None:
        raise UserError("data.aligner=ctc: by which recogniser? (expected data.recogniser=DIR)")
    return CTCAligner(recogniser), f"ctc-{file_hash(Path(recogniser) / 'model.safetensors')}"


class Recordings(TTS):
    """The speakers of a published corpus, as a synthesiser that says what they once said."""

    def __init__(self, name: str, folder: Path, voices: Sequence[str], aligner: Aligner, version: str):
        self.name, self.folder, self.aligner, self.version = name, folder, aligner, version
        self.voices = tuple(voices)

    def speak(self, text: str, voice: str) -> Utterance:
        raise SpeechError(f"tts={self.name}: a corpus says only what was recorded")

    def say(self, prompt: Prompt) -> Utterance:
        """The recording of a prompt at 16 kHz, aligned with its words."""
        path = self.folder / prompt.recording
        try:
            seconds = soundfile.info(path).duration
            if seconds > LONGEST:
                raise DoesNotFit(f"{seconds:.2f} s of sound in a picture of {MEL.seconds} s")
            wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            raise SpeechError(f"{path}: not a readable sound file ({error})") from error
        if not len(wave) or not np.isfinite(wave).all():
            raise SpeechError(f"{path}: holds {'NaN or infinity' if len(wave) else 'no sound at all'}")
        try:
            sound = resample(wave.mean(1), rate)
            return Utterance(sound, self.aligner(sound, prompt.text))
        except SpeechError:
            raise
        except (RuntimeError, ValueError, MemoryError) as error:  # one odd file must not end a build of hours
            raise SpeechError(f"{path}: {len(wave)} samples at {rate} Hz cannot be used ({error})") from error


def plan_recordings(name: str, folder: Path, seed: int = 0, limit: int | None = None,
                    speakers: Sequence[str] | None = None, splits: dict[str, float] | None = None
                    ) -> tuple[list[Prompt], list[tuple[str, str]]]:
    """What of a published corpus is to be made, in random order; (path, reason) of what cannot be said."""
    if name not in READERS:
        raise UserError(f"data.recordings={name}: expected one of {', '.join(READERS)}."
                        + nearest(name, READERS))
    if not folder.is_dir():
        raise UserError(f"data.folder={folder}: no such folder (expected {name} as it is published)")
    fractions = split_fractions(splits)
    prompts, unsaid = [], []
    listed = list(dict.fromkeys(READERS[name](folder)))  # a line said twice is one recording
    said: dict[str, set[tuple[str, str]]] = {}
    for recording in listed:
        said.setdefault(recording.path, set()).add((recording.text, recording.speaker))
    unsure = {path: texts for path, texts in said.items() if len(texts) > 1}
    unsaid += [(path, f"named {len(texts)} times, with different texts") for path, texts in unsure.items()]
    for recording in listed:
        if recording.path in unsure or speakers is not None and recording.speaker not in speakers:
            continue
        try:
            text = normalise_text(recording.text)
        except UserError as error:
            unsaid.append((recording.path, str(error)))
            continue
        number = int(content_hash([seed, recording.path], 12), 16)
        split = recording.split or split_of(text, fractions, seed)
        prompts.append(Prompt(number, text, recording.speaker, split, number % 2**31, recording.path))
    if not prompts:
        why = f"; of {len(unsaid)} none can be said, the first: {unsaid[0][1]}" if unsaid else ""
        raise UserError(f"data.folder={folder}: no recordings of {name} (expected its published layout"
                        + (f", and speakers {', '.join(speakers)})" if speakers else ")") + why)
    return sorted(prompts, key=lambda prompt: prompt.index)[:limit], unsaid


def build_recordings(root: str | Path, recordings: str, folder: str | Path, aligner: str = "pocketsphinx",
                     recogniser: str | Path | None = None, speakers: Sequence[str] | None = None,
                     limit: int | None = None, splits: dict[str, float] | None = None, seed: int = 0,
                     workers: int = 0, verify: int = 200) -> CorpusSummary:
    """Build, or go on building, a corpus in `root` from a published one in `folder`; see `build_corpus`.

    aligner: pocketsphinx, or ctc with the `recogniser` of a folder. speakers: only these. limit: so many
    recordings, chosen at random. splits: fractions of valid and test, for corpora that come undivided.

    A recording that does not fit the picture at natural speed is left out and reported, never cut.
    """
    begun, folder = time.monotonic(), Path(folder)
    if limit is not None:
        check_ranges({"data.limit": limit})
    align, version = make_aligner(aligner, recogniser)
    plan, unsaid = plan_recordings(recordings, folder, seed, limit, speakers, splits)
    voices = sorted({prompt.voice for prompt in plan})
    tts = Recordings(recordings, folder, voices, align, version)
    recipe = {"tts": recordings, "tts_version": version, "mel_spec": MEL.hash, "seed": seed}
    return build_plan(root, plan, tts, recipe, workers=workers, verify=verify, begun=begun,
                      unsaid=[BadClip(path, reason) for path, reason in unsaid])
