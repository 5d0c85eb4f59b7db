"""The open-vocabulary reader of speech: Whisper by faster-whisper (CTranslate2), on a CPU, offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from ..packages import required
from ..speech.whisper import PACKAGES, whisper_folder
from .heard import SAMPLE_RATE, SILENT, Heard, SpeechReader, check_wave
from .text import WHISPER

SHORTEST = SAMPLE_RATE // 10  # no word is shorter


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
        self.name = f"whisper-{PACKAGES.get(model) or Path(model).name}"
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
    if model in PACKAGES:
        return whisper_folder(model, f"reader.speech.model={model}")
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
                        f"{', '.join(PACKAGES)}, a folder, or one of {', '.join(known)}."
                        f"{nearest(model, [*PACKAGES, *known])}")
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
