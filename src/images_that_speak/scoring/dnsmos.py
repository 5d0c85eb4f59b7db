"""DNSMOS: how a listener would rate speech in noise, guessed by a network; no reference is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..audio.mel import MEL
from ..errors import UserError
from ..figures import of
from ..packages import need
from .metric import Clip, Metric, Scores

FILES = ("DNSMOS/model_v8.onnx", "DNSMOS/sig_bak_ovr.onnx")
NAMES = ("dnsmos_p808", "dnsmos_sig", "dnsmos_bak", "dnsmos_ovr")


class Dnsmos(Metric):
    """`dnsmos_p808`, and P.835's `dnsmos_sig` (speech), `dnsmos_bak` (background), `dnsmos_ovr`: 1 to 5.

    weights: a folder with DNSMOS/model_v8.onnx and DNSMOS/sig_bak_ovr.onnx of Microsoft's DNS-Challenge
    repository. Nothing is fetched.
    """

    figures = of(*NAMES)
    protocol = "windows of 9.01 s a second apart (two in a clip), P.808 and P.835, not personalised"

    def __init__(self, weights: str | None):
        need("onnxruntime", "librosa", "requests", where="metrics=dnsmos", extra="metrics")
        expected = (f"expected a folder with {' and '.join(FILES)} (the folder DNSMOS of "
                    "microsoft/DNS-Challenge)")
        if weights is None:
            raise UserError(f"metrics.dnsmos.weights: no value; {expected}")
        absent = [file for file in FILES if not (Path(weights) / file).is_file()]
        if absent:
            raise UserError(f"metrics.dnsmos.weights={weights}: no {absent[0]} there; {expected}")
        self.folder = Path(weights).absolute()
        self.weights = ", ".join(FILES)

    def load(self) -> None:
        from torchmetrics.functional.audio import dnsmos

        # torchmetrics would fetch what it does not find in the one folder it knows.
        dnsmos.DNSMOS_DIR = str(self.folder)
        dnsmos._cached_load_session.cache_clear()

    def add(self, clips: Sequence[Clip]) -> list[Scores]:
        from torchmetrics.functional.audio.dnsmos import deep_noise_suppression_mean_opinion_score

        found: list[Scores] = []
        for clip in clips:
            try:
                values = deep_noise_suppression_mean_opinion_score(
                    torch.from_numpy(clip.wave.copy()), MEL.sample_rate, personalized=False)
            except Exception as error:  # onnxruntime has a kind of its own for each trouble
                raise UserError(f"{self.folder}: not DNSMOS's models ({str(error)[:200]})") from error
            found.append(dict(zip(NAMES, map(float, values), strict=True)))
        return found
