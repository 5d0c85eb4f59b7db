"""Each sample beside a recording or spectrogram of the same phrase: SSIM, HSS, PESQ, STOI, MCD."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio.distance import available, pesq, stoi, warped_cepstral_distortion
from ..audio.mel import MEL, LogMel, logmel_to_picture
from ..audio.picture import quantise, read_picture
from ..audio.wave import read_wave
from ..errors import UserError
from ..figures import of
from ..packages import how
from ..runs.sample import Sample, is_sample, samples_below
from ..speech.phonemes import PAUSE, text_to_phones
from ..speech.tts import Flite, Phone, Utterance
from .metric import Clip, Metric, Scores, Unfit

TTS = "tts"
SLACK = MEL.sample_rate // 4  # samples by which two sounds of the same speech may differ in length
FADE = 80  # samples, 5 ms: half of what two words are faded over
LOUD = 40.0  # dB below a wave's loudest 10 ms within which it speaks
SPAN = "from the reference's first sound to its last, 0.1 s around them"


class References:
    """What samples are compared with, one by one.

    source: "tts", and flite speaks each phrase anew; or a folder that holds samples (a run of generate.py, a
    folder of anchors), of which each sample has the one of its own sample_id or else of its own phrase; or a
    folder of sounds and pictures named as the samples are: the sound of `a/x_img.png` is `a/x.wav`, or
    `x.wav` wherever it lies, if there is one only. voice: flite's, for samples that name none of flite's.

    Raises UserError when flite is not installed or lacks the voice, the folder holds nothing, or it holds two
    samples of one sample_id, as several runs of the same prompts do.
    """

    def __init__(self, source: str | None, voice: str = "slt"):
        if source is None:
            raise UserError("reference: no value (expected tts, and flite speaks each phrase, or a folder "
                            "with samples of the same phrases)")
        self.source, self.voice = str(source), voice
        self.flite = Flite() if source == TTS else None
        self.by_id: dict[str, Path] = {}
        self.by_phrase: dict[str, Path] = {}
        self.used: set[Path | str] = set()
        if self.flite is None:
            self._find(Path(source))
        else:
            self.flite.check_voice(voice)
        self.log_mel = LogMel()

    def _find(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"reference={folder}: no such folder (expected tts, or a folder with samples)")
        for place in samples_below(folder):
            phrase = Sample.read(place).record.get("audio_prompt")
            other = self.by_id.setdefault(place.name, place)
            if other != place:
                raise UserError(f"reference={folder}: two samples {place.name}, {other} and {place} "
                                "(expected one run, or one anchor)")
            if phrase:
                self.by_phrase.setdefault(phrase, place)
        sounds = [path for path in sorted(folder.rglob("*"))
                  if path.suffix in (".wav", ".flac") and not is_sample(path.parent)]
        namesakes = Counter(path.stem for path in sounds)
        for path in sounds:
            self.by_id.setdefault(str(path.relative_to(folder).with_suffix("")), path)
            if namesakes[path.stem] == 1:
                self.by_id.setdefault(path.stem, path)
        if not self.by_id:
            raise UserError(f"reference={folder}: holds neither samples (sample.json) nor sounds")

    def of(self, clip: Clip) -> tuple[np.ndarray, np.ndarray] | None:
        """(wave, picture) to compare `clip` with, the picture (256, F) uint8; None where there is none.

        Raises Unfit where flite would speak elsewhere in time than `clip`, as wide as it is, can say.
        """
        if self.flite and clip.picture.shape[1] != MEL.frames:
            raise Unfit(f"reference={TTS} speaks clips of {MEL.seconds} s (pictures of {MEL.frames} columns)")
        return self._spoken(clip) if self.flite else self._stored(clip)

    def _spoken(self, clip: Clip) -> tuple[np.ndarray, np.ndarray] | None:
        assert self.flite is not None
        if not clip.audio_prompt:
            return None
        record = clip.record or {}
        voice = (record.get("settings") or {}).get("voice")
        if voice not in self.flite.voices:  # a family that learnt from recordings has voices of its own
            voice = self.voice
        planned = [Phone(*phone) for phone in record.get("phones") or ()]
        try:
            utterance = self.flite.speak(clip.audio_prompt, voice)
            words = text_to_phones(clip.audio_prompt) if planned else []
        except UserError:  # in another script, say: the others still have their figures
            return None
        wave = place(utterance, planned, words)
        self.used.add(clip.audio_prompt)
        return wave, self._picture(wave)

    def _stored(self, clip: Clip) -> tuple[np.ndarray, np.ndarray] | None:
        place_ = next((self.by_id[name] for name in _names(clip.name) if name in self.by_id),
                      self.by_phrase.get(clip.audio_prompt or ""))
        if place_ is None:
            return None
        self.used.add(place_)
        if place_.is_dir():
            sound, pictures = place_ / "speech.wav", [place_ / "image.png"]
        else:
            sound = place_
            pictures = [place_.with_name(place_.stem + ending) for ending in (".png", "_img.png")]
        wave = read_wave(sound)
        drawn = next((path for path in pictures if path.exists()), None)
        return wave, (quantise(read_picture(drawn)) if drawn is not None
                      else self._picture(wave, clip.picture.shape[1]))

    def _picture(self, wave: np.ndarray, frames: int = MEL.frames) -> np.ndarray:
        samples = frames * MEL.hop
        wave = np.pad(wave, (0, max(0, samples - len(wave))))[:samples]
        return quantise(logmel_to_picture(self.log_mel(torch.from_numpy(wave)[None]))[0].numpy())


def _names(name: str) -> Iterator[str]:
    """What the reference of a clip may be called: a sample_id, or a picture's name with less and less to it.

    `a/x_img.png` → itself, `a/x_img`, `a/x`, and the same without `a/`.
    """
    for whole in (name, Path(name).name):
        bare = whole.removesuffix(".png").removesuffix(".npy")
        yield from (whole, bare, bare.removesuffix("_img"))


def place(utterance: Utterance, planned: Sequence[Phone], words: Sequence[Sequence[str]]) -> np.ndarray:
    """A synthesiser's speech in a clip of 10.24 s, each word moved to where the plan has it.

    Words are cut apart at their first phones, which are found by comparing the synthesiser's phones with the
    planned ones, and are moved, not stretched; neighbours are faded over 10 ms. Without a plan, or where it
    is not one of these `words`, the speech lies in the middle. Its peak is 0.95.

    Returns (163840,) float32.
    """
    said = [phone for phone in utterance.phones if phone.symbol != PAUSE]
    wanted = [phone for phone in planned if phone.symbol != PAUSE]
    firsts = np.cumsum([0, *(len(word) for word in words)])
    rate = MEL.sample_rate
    wave = np.pad(utterance.wave, (0, max(0, round(said[-1].end * rate) - len(utterance.wave))))
    cuts, places = [said[0].start, said[-1].end], [(MEL.seconds - said[-1].end + said[0].start) / 2]
    if wanted and firsts[-1] == len(wanted):
        blocks = SequenceMatcher(None, [p.symbol for p in said], [p.symbol for p in wanted],
                                 autojunk=False).get_matching_blocks()
        same = [(wanted[b.b + k].start, said[b.a + k].start) for b in blocks for k in range(b.size)]
        # Beginnings and ends belong together, whatever the phones between are called.
        same = [(wanted[0].start, said[0].start), *same, (wanted[-1].end, said[-1].end)]
        places = [wanted[first].start for first in firsts[:-1]]
        times = np.interp(places, [time for time, _ in same], [time for _, time in same])
        cuts = [said[0].start, *times[1:], said[-1].end]
    clip = np.zeros(MEL.samples + 2 * FADE, np.float32)
    padded = np.pad(wave, FADE)
    for start, end, at in zip(cuts, cuts[1:], places, strict=False):
        first, last = round(start * rate), round(end * rate)
        piece = padded[first:last + 2 * FADE].copy()
        ramp = (np.arange(2 * FADE) + 0.5) / (2 * FADE)
        if len(piece) < 4 * FADE:
            continue
        piece[:2 * FADE] *= ramp
        piece[-2 * FADE:] *= ramp[::-1]
        where = min(max(round(at * rate), 0), MEL.samples)
        piece = piece[:len(clip) - where]
        clip[where:where + len(piece)] += piece
    clip = clip[FADE:-FADE]
    return clip * (0.95 / max(float(np.abs(clip).max()), 1e-6))


def span(wave: np.ndarray, margin: float = 0.1) -> slice:
    """The samples from the first to the last 10 ms within `LOUD` dB of the loudest, and `margin` seconds."""
    frames = wave[:len(wave) // MEL.hop * MEL.hop].reshape(-1, MEL.hop)
    level = 10 * np.log10((frames.astype(np.float64) ** 2).mean(1) + 1e-12)
    loud = np.flatnonzero(level > level.max() - LOUD)
    around = round(margin * MEL.sample_rate)
    return slice(max(0, loud[0] * MEL.hop - around), (loud[-1] + 1) * MEL.hop + around)


class Pairs(Metric):
    """A metric of sample and reference. A clip without a reference has no figure.

    reference, voice: see `References`.
    """

    package: str | None = None  # that it needs beside the usual ones

    def __init__(self, reference: str | None, voice: str = "slt"):
        if self.package is not None and not available(self.package):
            raise UserError(f"metrics={self.package.removeprefix('py')}: the package {self.package} is not "
                            f"installed ({how('quality')} brings it)")
        self.references = References(reference, voice)
        self.reference = self.references.source

    def add(self, clips: Sequence[Clip]) -> list[Scores]:
        found: list[Scores] = []
        for clip in clips:
            other = self.references.of(clip)
            found.append({} if other is None else self.compare(clip, *other))
        return found

    @abstractmethod
    def compare(self, clip: Clip, wave: np.ndarray, picture: np.ndarray) -> Scores:
        ...

    def total(self) -> dict[str, float]:
        # Where flite speaks, phrases that it cannot speak, or none at all, are no mistake in `reference`.
        if not self.references.used and self.references.flite is None:
            raise UserError(f"reference={self.reference}: has no sample of these phrases or names")
        return {}

    def counted(self) -> int:
        return len(self.references.used)


class PictureSimilarity(Pairs):
    """`ssim` and `hss`: how alike the picture and the reference's spectrogram look."""

    figures = of("ssim", "hss")
    protocol = ("whole 8-bit pictures; SSIM with a Gaussian window of 11 (σ 1.5), HSS the correlation of "
                "their histograms of 256 levels")

    def compare(self, clip: Clip, wave: np.ndarray, picture: np.ndarray) -> Scores:
        if clip.picture.shape != picture.shape:
            raise Unfit("its picture and the reference's are of different shapes")
        from torchmetrics.functional.image import structural_similarity_index_measure

        made, real = (torch.from_numpy(pixels.astype(np.float32) / 255)[None, None]
                      for pixels in (clip.picture, picture))
        similarity: Any = structural_similarity_index_measure(made, real, data_range=1.0)
        return {"ssim": float(similarity),
                "hss": histogram_similarity(clip.picture, picture)}


def histogram_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two 8-bit pictures' histograms, 1 for equal ones."""
    counts = [np.bincount(pixels.ravel(), minlength=256) for pixels in (a, b)]
    return float(np.asarray(np.corrcoef(counts))[0, 1])


class Intelligibility(Pairs):
    """`stoi` (Taal et al. 2011): about 1 for speech that is understood, 0 for noise."""

    figures = of("stoi")
    protocol = f"pystoi; {SPAN}; frames 40 dB below the loudest left out"
    package = "pystoi"

    def compare(self, clip: Clip, wave: np.ndarray, picture: np.ndarray) -> Scores:
        real, made = _cut(wave, clip.wave)
        return {"stoi": _finite(stoi(made, real))}


class SpeechQuality(Pairs):
    """`pesq` (ITU-T P.862.2, wide band): 1.0 to 4.64."""

    figures = of("pesq")
    protocol = f"pesq, wide band at 16 kHz; {SPAN}"
    package = "pesq"

    def compare(self, clip: Clip, wave: np.ndarray, picture: np.ndarray) -> Scores:
        real, made = _cut(wave, clip.wave)
        return {"pesq": _finite(pesq(made, real))}


class CepstralDistortion(Pairs):
    """`mcd_dtw`: mel-cepstral distortion in dB along the best warping of time, 0 for equal speech."""

    figures = of("mcd_dtw")
    protocol = (f"cepstrum of the 256-band log-mel, coefficients 1 to 13, every 10 ms; {SPAN}; mean over the "
                "path of dynamic time warping")

    def compare(self, clip: Clip, wave: np.ndarray, picture: np.ndarray) -> Scores:
        real, made = _cut(wave, clip.wave)
        return {"mcd_dtw": warped_cepstral_distortion(made, real, analysis=self.references.log_mel)}


def _cut(reference: np.ndarray, made: np.ndarray) -> tuple[Tensor, Tensor]:
    """Both from the reference's first to its last sound: (1, T) each.

    Raises Unfit where one is longer than the other.
    """
    if abs(len(reference) - len(made)) > SLACK:
        raise Unfit("its sound and the reference's are of different lengths")
    size = min(len(reference), len(made))
    part = span(reference[:size])
    real, other = (torch.from_numpy(np.ascontiguousarray(wave[:size][part]))[None]
                   for wave in (reference, made))
    return real, other


def _finite(value: Tensor) -> float | None:
    return float(value) if torch.isfinite(value).all() else None
