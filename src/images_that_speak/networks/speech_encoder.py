"""Speech encoders: sound → features of 20 ms each, by a network that is not trained here.

One contract, and three that keep it: Whisper in transformers' layout, Whisper in CTranslate2's, and the
recogniser of phones that the pocket family ships (`weights/pocket/ctc`), for machines with neither.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..audio.mel import MEL, LogMel
from ..errors import UserError
from ..files import content_hash, file_hash, read_json
from ..packages import need
from ..resources import weights_dir
from ..speech.whisper import PACKAGES, whisper_folder
from .recogniser import PhoneRecogniser

STEP = 320  # samples of 16 kHz that a feature stands for
LONGEST = 30.0  # seconds, Whisper's window
BESIDE = 1.0  # seconds of silence after a sound, which Whisper is used to
OWN = "recogniser"


class SpeechEncoder(ABC):
    """What a Speech Information Bottleneck reads.

    width: of a feature. identity: what tells its features from those of any other. Both are known before a
    network of torch is loaded.
    """

    width: int
    identity: str

    @abstractmethod
    def encode(self, wave: np.ndarray) -> np.ndarray:
        """(T,) float32 at 16 kHz → (at least ⌈T / 320⌉, width) float32."""

    def features(self, wave: np.ndarray) -> Tensor:
        """(T,) float32 at 16 kHz, at most 30 s → (⌈T / 320⌉, width) float32. Raises UserError on others."""
        seconds = len(wave) / MEL.sample_rate
        if not 0 < seconds <= LONGEST:
            raise UserError(f"{seconds:.1f} s of speech (expected above 0, at most {LONGEST:g} s)")
        return torch.from_numpy(self.encode(np.asarray(wave, np.float32))[:-(-len(wave) // STEP)].copy())


class _Whisper(SpeechEncoder):
    """Log-mel features as Whisper takes them.

    Published, every sound is filled up with silence to 30 s. `window=None` fills it up by a second alone: the
    features are nearly the same (mean cosine 0.977 for tiny.en), and cost a thirtieth.
    """

    def __init__(self, folder: Path, mels: int, window: float | None):
        from transformers import WhisperFeatureExtractor

        self.window = window
        self.extractor: Any = WhisperFeatureExtractor(feature_size=mels)
        weights = next(path for name in ("model.bin", "model.safetensors", "model.safetensors.index.json")
                       if (path := folder / name).exists())
        # Both layouts of the same weights count as two: CTranslate2 rounds.
        self.identity = content_hash([type(self).__name__, file_hash(weights), window])

    def mels(self, wave: np.ndarray) -> np.ndarray:
        """(T,) → (mels, F) float32, F even, 10 ms a frame."""
        length = min(self.window or len(wave) / MEL.sample_rate + BESIDE, LONGEST)
        samples = max(len(wave), round(length * MEL.sample_rate))
        padded = np.pad(wave, (0, samples + -samples % STEP - len(wave)))
        found = self.extractor(padded, sampling_rate=MEL.sample_rate, padding=False, truncation=False,
                                    return_tensors="np")
        return np.asarray(found.input_features[0], np.float32)


class TransformersWhisper(_Whisper):
    """The encoder of a Whisper of any size, in a folder of transformers."""

    def __init__(self, folder: Path, window: float | None = None, device: str = "cpu"):
        told = read_json(folder / "config.json")
        try:
            super().__init__(folder, int(told["num_mel_bins"]), window)
            self.width = int(told["d_model"])
        except (KeyError, StopIteration) as error:
            raise UserError(f"{folder}: not a Whisper of transformers ({error!r} is missing)") from error
        self.folder, self.device = folder, device

    @cached_property
    def network(self) -> Any:
        from transformers import WhisperModel

        from ..weights import finite

        try:
            network = WhisperModel.from_pretrained(str(self.folder), local_files_only=True).encoder
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.folder}: not a Whisper that transformers loads "
                            f"({' '.join(str(error).split())[:200]})") from error
        return finite(network, self.folder).eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def encode(self, wave: np.ndarray) -> np.ndarray:
        # As WhisperEncoder.forward does it, which refuses windows shorter than 30 s.
        net = self.network
        x = torch.from_numpy(self.mels(wave))[None].to(net.conv1.weight)
        x = nn.functional.gelu(net.conv2(nn.functional.gelu(net.conv1(x)))).mT
        x = x + net.embed_positions.weight[: x.shape[1]]
        for layer in net.layers:
            x = layer(x, None)
        return net.layer_norm(x)[0].float().cpu().numpy()


class CTranslate2Whisper(_Whisper):
    """The encoder of a Whisper of any size, in a folder of CTranslate2."""

    def __init__(self, folder: Path, window: float | None = None, device: str = "cpu"):
        need("ctranslate2", where=f"speech encoder {folder}")
        import ctranslate2

        try:
            self.network = ctranslate2.models.Whisper(
                str(folder), device=device.partition(":")[0],
                compute_type="int8" if device == "cpu" else "default",
                intra_threads=torch.get_num_threads(), inter_threads=1)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{folder}: not a Whisper that CTranslate2 loads "
                            f"({' '.join(str(error).split())[:200]})") from error
        super().__init__(folder, self.network.n_mels, window)
        self.width = self.encode(np.zeros(STEP, np.float32)).shape[1]

    def encode(self, wave: np.ndarray) -> np.ndarray:
        import ctranslate2

        given = ctranslate2.StorageView.from_array(np.ascontiguousarray(self.mels(wave)[None]))
        return np.array(self.network.encode(given, to_cpu=True), np.float32)[0]


class RecogniserEncoder(SpeechEncoder):
    """What the recogniser of phones sees before it decides, in a folder that `PhoneRecogniser` loads."""

    def __init__(self, folder: Path, window: float | None = None, device: str = "cpu"):
        self.folder, self.device = folder, device
        self.width = int(read_json(folder / "config.json")["dim"])
        self.identity = content_hash([type(self).__name__, file_hash(folder / "model.safetensors")])

    @cached_property
    def network(self) -> PhoneRecogniser:
        return PhoneRecogniser.from_pretrained(self.folder).to(self.device)

    @cached_property
    def logmel(self) -> LogMel:
        return LogMel()

    @torch.inference_mode()
    def encode(self, wave: np.ndarray) -> np.ndarray:
        wave = wave * np.float32(0.95 / max(float(np.abs(wave).max()), 1e-4))
        padded = np.pad(wave, (0, max(MEL.padding + 1, len(wave) + STEP) - len(wave)))
        logmel = self.logmel(torch.from_numpy(padded)[None]).to(self.device)
        return self.network.hidden(logmel)[0].cpu().numpy()


@cache
def load_speech_encoder(source: str, window: float | None = None, device: str = "cpu") -> SpeechEncoder:
    """The encoder of a folder, which says itself of what kind it is; or "tiny" or "packages", the Whispers
    that packages carry; or "recogniser", the one that ships.

    window: seconds that a Whisper is given, 30 as published; None: the sound and a second. Raises UserError
    on what is no encoder or whose package is missing.
    """
    if source == OWN:
        return RecogniserEncoder(weights_dir() / "ctc", window, device)
    folder = whisper_folder(source, f"speech encoder {source}") if source in PACKAGES else Path(source)
    if (folder / "model.bin").is_file():
        return CTranslate2Whisper(folder, window, device)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("model_type") == "whisper":
        return TransformersWhisper(folder, window, device)
    if "symbols" in config:
        return RecogniserEncoder(folder, window, device)
    raise UserError(f"speech encoder {source}: expected {', '.join((*PACKAGES, OWN))}, or the folder of a "
                    "Whisper (of transformers or CTranslate2) or of a recogniser of phones")
