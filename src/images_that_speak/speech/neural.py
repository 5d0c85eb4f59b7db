"""Synthesisers with trained networks: hibari, Tacotron2, SpeechT5, Kokoro and piper.

None of them says when each phone sounds, so that is found by forced alignment. Their packages and weights
are loaded when the first phrase is spoken, once in every process.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import content_hash, file_hash
from ..hub import out_of_reach
from ..packages import how
from ..weights import finite
from .forced import Aligner, PocketsphinxAligner
from .phonemes import normalise_text
from .tts import TTS, SpeechError, Utterance, resample


class NeuralTTS(TTS):
    """A synthesiser that gives sound alone; `aligner` finds the phones in it."""

    def __init__(self, aligner: Aligner | None = None):
        self.aligner = aligner or PocketsphinxAligner()

    @abstractmethod
    def synthesise(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        """The wave (T,) of a normalised text, and its sampling rate."""

    def speak(self, text: str, voice: str) -> Utterance:
        """See `TTS.speak`."""
        wave = self.sound(text, voice)
        return Utterance(wave, self.aligner(wave, normalise_text(text)))

    def sound(self, text: str, voice: str) -> np.ndarray:
        """See `TTS.sound`."""
        self.check_voice(voice)
        wave, rate = self.synthesise(normalise_text(text), voice)
        wave = np.asarray(wave, np.float32)
        if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
            raise SpeechError(f"tts={self.name}: {text!r} could not be spoken (a wave of shape {wave.shape})")
        return resample(wave, rate)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was loaded: another process loads its own."""
        lazy = {name for kind in type(self).__mro__ for name, value in vars(kind).items()
                if isinstance(value, cached_property)}
        return {name: value for name, value in self.__dict__.items() if name not in lazy}


def needs(package: str, backend: str, extra: str | None = None) -> str:
    """The version of an installed package; UserError naming what brings it."""
    try:
        return installed(package)
    except PackageNotFoundError as error:
        raise UserError(f"tts={backend}: the package {package} is not installed "
                        f"({how(extra or backend)})") from error


def existing(folder: str | Path, backend: str, *names: str, key: str = "folder") -> Path:
    """`folder`, when the files `names` (patterns) are in it; else a UserError that names what lacks."""
    folder = Path(folder)
    lacking = [name for name in names if not any(folder.glob(name))]
    if lacking:
        raise UserError(f"tts.{key}={folder}: holds no {', '.join(lacking)} (expected the files of "
                        f"tts={backend})")
    return folder


def short(error: Exception) -> str:
    """An error of a library on one line."""
    return " ".join(str(error).split())[:200]


class Hibari(NeuralTTS):
    """hibari, from the package hibari-tts, which carries its weights: one voice, heart.

    Args:
        speed: 0.25 to 4.
    """

    name = "hibari"
    voices = ("heart",)
    RATE = 24_000

    def __init__(self, speed: float = 1.0, aligner: Aligner | None = None):
        super().__init__(aligner)
        package = needs("hibari-tts", self.name, "voices")
        if not 0.25 <= speed <= 4:
            raise UserError(f"tts.speed={speed}: expected 0.25 to 4")
        self.speed, self.version = speed, f"{package}-{speed:g}"

    @cached_property
    def _model(self) -> Any:
        import hibari

        return hibari.Hibari()

    def synthesise(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        return np.asarray(self._model(text, speed=self.speed, seed=0)), self.RATE


class Tacotron2(NeuralTTS):
    """Tacotron 2 of torchaudio's bundles, trained on LJSpeech, fed with letters.

    Args:
        vocoder: wavernn, or griffin_lim, which is faster and rougher.
        folder: where the published files lie (tacotron2_english_characters_1500_epochs_….pth and, for
            wavernn, wavernn_10k_epochs_8bits_ljspeech.pth); None fetches them once into torch's cache.
    """

    name = "tacotron2"
    voices = ("ljspeech",)
    BUNDLES = {"wavernn": "TACOTRON2_WAVERNN_CHAR_LJSPEECH",
               "griffin_lim": "TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH"}

    def __init__(self, vocoder: str = "wavernn", folder: str | None = None, aligner: Aligner | None = None):
        super().__init__(aligner)
        if vocoder not in self.BUNDLES:
            raise UserError(f"tts.vocoder={vocoder}: expected one of {', '.join(self.BUNDLES)}")
        self.vocoder, self.folder = vocoder, folder
        self.version = f"{installed('torchaudio')}-{vocoder}"

    def bundle(self) -> Any:
        """torchaudio's bundle of this vocoder."""
        import torchaudio

        return getattr(torchaudio.pipelines, self.BUNDLES[self.vocoder])

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        bundle = self.bundle()
        files = [Path(getattr(bundle, key)).name for key in ("_tacotron2_path", "_wavernn_path")
                 if getattr(bundle, key, None)]
        options: dict[str, Any] = {"weights_only": True, "progress": False}
        if self.folder is not None:
            options["model_dir"] = str(existing(self.folder, self.name, *files))
        try:
            return (bundle.get_text_processor(), bundle.get_tacotron2(dl_kwargs=options),
                    bundle.get_vocoder(dl_kwargs=options))
        except (OSError, RuntimeError) as error:
            raise UserError(f"tts=tacotron2: its weights could not be loaded ({short(error)}; without a "
                            f"network put {' and '.join(files)} into tts.folder=DIR)") from error

    def synthesise(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        import torch

        processor, network, vocoder = self._parts
        # Its dropout is on when it speaks, as published: seeded, so that a phrase is always the same sound.
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(int(content_hash(text, 8), 16))
            mel, lengths, _ = network.infer(*processor(text))
            with torch.enable_grad():  # its Griffin-Lim inverts the mel scale by gradient descent
                waves, _ = vocoder(mel, lengths)
        return waves[0].detach().numpy(), vocoder.sample_rate


class SpeechT5(NeuralTTS):
    """SpeechT5 of transformers, with its HiFi-GAN.

    Args:
        model, vocoder: folders or hub ids.
        speakers: a folder of x-vectors, one .npy of 512 floats a voice (as published with CMU ARCTIC); the
            files' names are the voices.
        offline: never ask the hub, use what it has cached.
    """

    name = "speecht5"

    def __init__(self, speakers: str, model: str = "microsoft/speecht5_tts",
                 vocoder: str = "microsoft/speecht5_hifigan", offline: bool = False,
                 aligner: Aligner | None = None):
        super().__init__(aligner)
        needs("sentencepiece", self.name, "asr")
        self.model, self.vocoder, self.offline = model, vocoder, offline
        self.speakers = existing(speakers, self.name, "*.npy", key="speakers")
        self.voices = tuple(sorted(path.stem for path in self.speakers.glob("*.npy")))
        weights = [file_hash(path) for source in (model, vocoder)
                   for path in sorted(Path(source).glob("*.safetensors"))]
        self.version = content_hash(weights or [model, vocoder])

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5Tokenizer

        options: dict[str, Any] = {"local_files_only": self.offline or any(
            map(out_of_reach, (self.model, self.vocoder)))}
        try:
            return (SpeechT5Tokenizer.from_pretrained(self.model, **options),
                    finite(SpeechT5ForTextToSpeech.from_pretrained(self.model, **options), self.model).eval(),
                    finite(SpeechT5HifiGan.from_pretrained(self.vocoder, **options), self.vocoder).eval())
        except UserError:
            raise
        # Everything that a missing, truncated or foreign folder makes these libraries raise.
        except Exception as error:
            raise UserError(f"tts.model={self.model}, tts.vocoder={self.vocoder}: no SpeechT5 can be loaded "
                            "from there (expected folders or hub ids such as microsoft/speecht5_tts and "
                            f"microsoft/speecht5_hifigan; {short(error)})") from error

    def speaker(self, voice: str) -> np.ndarray:
        """The x-vector (1, D) of a voice. Raises UserError naming a file that holds none."""
        path = self.speakers / f"{voice}.npy"
        try:
            vector = np.load(path, allow_pickle=False).astype(np.float32).reshape(1, -1)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: not a readable npy file ({error})") from error
        size = self._parts[1].config.speaker_embedding_dim
        if vector.shape[1] != size or not np.isfinite(vector).all():
            raise UserError(f"{path}: {vector.shape[1]} numbers (expected {size} finite ones)")
        return vector

    def synthesise(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        import torch

        tokenizer, network, vocoder = self._parts
        tokens = tokenizer(text, return_tensors="pt")
        # The decoder's prenet keeps its dropout, as published: seeded by what is said.
        with torch.random.fork_rng([]):
            torch.manual_seed(int(content_hash(text, 8), 16))
            wave = network.generate(tokens["input_ids"], vocoder=vocoder,
                                    speaker_embeddings=torch.from_numpy(self.speaker(voice)))
        return wave.detach().numpy(), vocoder.config.sampling_rate


class Kokoro(NeuralTTS):
    """Kokoro-82M, from the package kokoro. Voices that begin with b are British.

    Args:
        folder: kokoro-v1_0.pth, config.json and voices/*.pt; None fetches from the hub what is needed.
        speed: 0.5 to 2.
    """

    name = "kokoro"
    HUB = "hexgrad/Kokoro-82M"
    RATE = 24_000

    def __init__(self, folder: str | None = None, speed: float = 1.0, aligner: Aligner | None = None):
        super().__init__(aligner)
        package = needs("kokoro", self.name)
        if not 0.5 <= speed <= 2:
            raise UserError(f"tts.speed={speed}: expected 0.5 to 2")
        self.folder = None if folder is None else existing(
            folder, self.name, "config.json", "kokoro-v1_0.pth", "voices/*.pt")
        self.speed = speed
        self.voices = (("af_heart", "af_bella", "am_fenrir", "am_michael", "bf_emma", "bm_george")
                       if self.folder is None
                       else tuple(sorted(path.stem for path in self.folder.glob("voices/*.pt"))))
        weights = self.HUB if self.folder is None else file_hash(self.folder / "kokoro-v1_0.pth")
        self.version = f"{package}-{weights}-{speed:g}"

    @cached_property
    def _model(self) -> Any:
        from kokoro import KModel

        if self.folder is None:
            return KModel(repo_id=self.HUB).eval()
        return KModel(repo_id=self.HUB, config=str(self.folder / "config.json"),
                      model=str(self.folder / "kokoro-v1_0.pth")).eval()

    @cached_property
    def _pipelines(self) -> dict[str, Any]:
        return {}

    def synthesise(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        from kokoro import KPipeline

        language = "b" if voice.startswith("b") else "a"
        try:
            if language not in self._pipelines:
                self._pipelines[language] = KPipeline(language, repo_id=self.HUB, model=self._model)
            source = voice if self.folder is None else str(self.folder / "voices" / f"{voice}.pt")
            parts = [part.audio for part in self._pipelines[language](text, voice=source, speed=self.speed)]
        except OSError as error:  # the hub cannot be reached, among others
            raise UserError(f"tts=kokoro: its weights could not be loaded ({short(error)}; without a "
                            "network give tts.folder=DIR)") from error
        sounds = [part.numpy() for part in parts if part is not None]
        return np.concatenate(sounds or [np.zeros(0)]), self.RATE


class Piper(NeuralTTS):
    """piper, from the package piper-tts.

    Args:
        folder: of voices, each NAME.onnx and NAME.onnx.json (python -m piper.download_voices fetches them).
        length: of every sound, in multiples of the voice's own; above 1 is slower.
    """

    name = "piper"

    def __init__(self, folder: str, length: float = 1.0, aligner: Aligner | None = None):
        super().__init__(aligner)
        package = needs("piper-tts", self.name)
        if not 0.25 <= length <= 4:
            raise UserError(f"tts.length={length}: expected 0.25 to 4")
        self.folder, self.length = existing(folder, self.name, "*.onnx", "*.onnx.json"), length
        self.voices = tuple(sorted(path.stem for path in self.folder.glob("*.onnx")))
        self.version = content_hash([package, length, *(file_hash(self.folder / f"{voice}.onnx")
                                                        for voice in self.voices)])

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        return {}

    def synthesise(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        from piper import PiperVoice, SynthesisConfig

        if voice not in self._loaded:
            path = self.folder / f"{voice}.onnx"
            try:
                self._loaded[voice] = PiperVoice.load(path)
            # Everything that a broken model or description makes onnxruntime raise.
            except Exception as error:
                raise UserError(f"{path}: not a readable voice ({short(error)})") from error
        # Without its own noise a phrase is always the same sound.
        settings = SynthesisConfig(length_scale=self.length, noise_scale=0.0, noise_w_scale=0.0)
        chunks = list(self._loaded[voice].synthesize(text, settings))
        if not chunks:
            raise SpeechError(f"tts=piper: {text!r} could not be spoken")
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), chunks[0].sample_rate
