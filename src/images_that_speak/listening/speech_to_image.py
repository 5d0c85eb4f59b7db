"""`method=speech_to_image`: the image branch draws what is said, from noise or from a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..audio.mel import MEL
from ..data.nearest import nearest_drawing
from ..diffusion.family import Family
from ..diffusion.guidance import Branch
from ..diffusion.layout import Layout
from ..diffusion.loading import load_model
from ..diffusion.method import Job, Method, Settings, check_schedule
from ..diffusion.sampling import Callback, make_scheduler, noise, sample, set_steps
from ..errors import UserError, nearest
from ..files import read_json
from ..networks.condition import Condition
from ..networks.scene import SceneConditioner
from ..networks.speech_bottleneck import SpeechBottleneck, SpeechConditioner
from ..networks.speech_encoder import SpeechEncoder, load_speech_encoder
from ..ranges import check_ranges
from ..scoring.faster_whisper import FasterWhisperReader
from ..speaking.paint import LUMA
from ..speaking.photographs import Framing
from ..speaking.voices import read_recording

WAYS = ("bottleneck", "cascade")


@dataclass(frozen=True)
class SpeechToImage(Method):
    """Recordings → drawings of what they say.

    by: "bottleneck" conditions the image branch on speech itself (VoxStudio, and the mapping to text
        embeddings, which is another training of the same network); "cascade" writes down what it hears and
        draws that.
    bottleneck: folder of a SpeechBottleneck, which names the speech encoder it reads. encoder: folder of that
        encoder where it lies elsewhere; features of another are refused. asr: for the cascade, a Whisper of
        CTranslate2 as `scoring.faster_whisper` takes it.
    strength: of editing, the share of the schedule that a given picture is noised to, above 0, at most 1;
        None draws from noise. fit: how that picture is fitted, as `Framing` takes it.
    """

    by: str = "bottleneck"
    bottleneck: str | None = None
    encoder: str | None = None
    asr: str = "tiny"
    strength: float | None = None
    fit: str = "auto"
    name: ClassVar[str] = "speech to image"
    unused: ClassVar[tuple[str, ...]] = ("composition", "style", "phonemes", "voice", "pitch", "rate",
                                         "guidance.audio_scale", "guidance.audio_weight",
                                         "guidance.audio_start", "guidance.image_start")
    listens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.by not in WAYS:
            raise UserError(f"method.by={self.by}: expected {' or '.join(WAYS)}.{nearest(self.by, WAYS)}")
        if self.strength is not None:
            check_ranges({"strength": self.strength})

    def check(self, settings: Settings, layout: Layout) -> None:
        check_schedule(settings, layout)
        if self.strength is not None and settings.scheduler["name"] != "ddim":
            raise UserError(f"scheduler.name={settings.scheduler['name']}: strength={self.strength:g} begins "
                            "in the middle of the schedule (expected ddim; the others look back)")
        if self.by == "bottleneck" and not (Path(self.bottleneck or "") / "config.json").is_file():
            raise UserError(f"method.bottleneck={self.bottleneck}: no such folder (expected a speech "
                            "bottleneck; python train.py experiment=pocket/voxstudio makes one, and of the "
                            "mapping experiment=pocket/speech_mapping)")
        if self.by == "bottleneck":
            self.hears()

    def hears(self, device: str = "cpu") -> SpeechEncoder:
        """The speech encoder that the bottleneck reads.

        Raises UserError where it is not there, its package is missing, or it is another one.
        """
        told = read_json(Path(str(self.bottleneck)) / "config.json")
        source = self.encoder or str(told.get("encoder"))
        encoder = load_speech_encoder(source, device=device)
        if encoder.identity != told.get("encoder_identity"):
            raise UserError(f"method.encoder={source}: {self.bottleneck} reads the features of another one "
                            f"({told.get('encoder')})")
        return encoder

    def branches(self, settings: Settings) -> tuple[str, ...]:
        return ("image",)

    def first(self, steps: int) -> int:
        """How many of the steps are left out."""
        return 0 if self.strength is None else steps - max(1, round(self.strength * steps))

    def evaluations(self, settings: Settings) -> int:
        return sum(settings.guidance["image"].passes(i / settings.steps, False)
                   for i in range(self.first(settings.steps), settings.steps))

    def condition(self, family: Family, jobs: Sequence[Job]) -> tuple[Condition, Condition]:
        """What B recordings say to the image branch, and what nothing says."""
        scenes = (None if family.layout.scene is None
                  else np.array([job.scene for job in jobs], np.float32))
        waves = [read_recording(Path(str(job.recording))) for job in jobs]
        if self.by == "cascade":
            heard = [written(self.asr).read(wave).text for wave in waves]
            said = [drawn(text) if family.layout.drawings else text for text in heard]
            return family.text_condition("image", said, scenes), family.null("image", len(jobs))
        conditioner, encoder = self.listener(family)
        features = [encoder.features(wave) for wave in waves]
        batch: dict[str, Tensor] = {
            "speech": pad_sequence(features, batch_first=True).to(family.device),
            "speech_length": torch.tensor([len(found) for found in features], device=family.device)}
        if scenes is not None:
            batch["scene"] = torch.as_tensor(scenes, device=family.device)
        with torch.no_grad():
            return conditioner.encode(batch), conditioner.null(len(jobs))

    def listener(self, family: Family) -> tuple[Any, SpeechEncoder]:
        """The conditioner that takes the text encoder's place, and what it reads.

        Raises UserError where the bottleneck was made for another UNet.
        """
        bottleneck: SpeechBottleneck = load_model(SpeechBottleneck, Path(str(self.bottleneck)), torch.float32)
        wanted = family.predictors["image"].unet.config.cross_attention_dim
        if (made := bottleneck.config.tokens) != wanted:
            raise UserError(f"method.bottleneck={self.bottleneck}: makes tokens of {made} numbers (expected "
                            f"{wanted}, as the image UNet attends to)")
        speech = SpeechConditioner(bottleneck.to(family.device))
        encoder = self.hears(str(family.device))
        text = family.conditioners["image"]
        return (SceneConditioner(speech, text.scene) if family.layout.scene is not None else speech), encoder

    def __call__(self, family: Family, settings: Settings, jobs: Sequence[Job],
                 callback: Callback | None = None, kept: Path | None = None) -> Tensor:
        condition, null = self.condition(family, jobs)
        branch = Branch(family.predictors["image"], condition, null, settings.guidance["image"])
        scheduler = make_scheduler(schedule=family.layout.schedule, **settings.scheduler)
        x = noise([job.seed for job in jobs], family.layout.latent_shape).to(family.device)
        first = self.first(settings.steps)
        if self.strength is not None:
            given = torch.from_numpy(np.stack([self.given(Path(str(job.picture))) for job in jobs]))
            set_steps(scheduler, settings.steps)
            at = torch.full((len(jobs),), int(scheduler.timesteps[first]))
            x = family.predictors["image"].schedule.add_noise(family.encode(given), x, at.to(family.device))

        def predict(x: Tensor, t: Tensor, progress: float) -> Tensor:
            return branch(x, t, progress, False).guided

        with settings.casting(family.device):
            return family.decode(sample(predict, x, scheduler, settings.steps, callback, first))

    def given(self, path: Path) -> np.ndarray:
        """The luminance of a picture, (256, 1024) float32 in [0, 1]."""
        framing = Framing(rows=MEL.n_mels, fit=self.fit, ground="black")
        return (framing.framed(framing.read(path), MEL.frames) @ LUMA).astype(np.float32)


@cache
def written(model: str) -> FasterWhisperReader:
    """The recogniser of a cascade."""
    return FasterWhisperReader(model, beam=1)


def drawn(text: str) -> str:
    """What a painter that knows a list of things draws for a text; where nothing is near it, the text."""
    try:
        return nearest_drawing(text).caption
    except UserError:
        return text
