"""Methods: how a batch of jobs becomes pictures. What all of them are given, and joint denoising.

The others are the baselines that joint denoising is read against: imprint.py and score_distillation.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..files import content_hash, file_hash
from ..prompts import Pair
from ..speech.tts import Phone
from .composition import BOTH, NO_PHONES, Composition
from .family import Family, activity
from .guidance import Branch, Guidance, Joint, Said, check_starts, evaluations
from .layout import Layout
from .outputs import sample_id
from .sampling import Callback, make_scheduler, noise, sample, set_steps


@dataclass(frozen=True)
class Job:
    """One sample to make.

    phones: empty when the speech branch reads the prompt as a text. scene: rows of networks.squares.FIELDS,
    one a copy; None when the image branch takes no scenes. caption: what is drawn, where the painter knows a
    list of things. spoken: the words that are said, where the family reads phonemes. recording: a file that
    says what is to be drawn; picture: one that is changed into it.
    """

    pair: Pair
    seed: int
    phones: tuple[Phone, ...] = ()
    scene: tuple[tuple[float, ...], ...] | None = None
    caption: str | None = None
    spoken: str | None = None
    recording: Path | None = None
    picture: Path | None = None

    @property
    def drawn(self) -> str:
        """The sentence that the image branch is given."""
        return self.pair.image_prompt if self.caption is None else self.caption

    @property
    def sample_id(self) -> str:
        if self.recording is not None:
            return content_hash({"recording": file_hash(self.recording), "seed": self.seed,
                                 "picture": self.picture and file_hash(self.picture)})
        return sample_id(self.pair.image_prompt, self.pair.audio_prompt, self.seed)


@dataclass(frozen=True)
class Settings:
    """How samples are made, whatever they show and say.

    guidance, starts: by branch, "image" and "speech". scheduler: `make_scheduler`'s name and options.
    audio_weight: the share of the speech branch, for methods without a composition. pitch: times what the
    voice would speak at.
    """

    method: Method
    compose: Composition
    guidance: dict[str, Guidance]
    starts: dict[str, float]
    scheduler: dict[str, Any]
    steps: int
    audio_weight: float
    voice: str | None = None
    pitch: float = 1.0
    autocast: torch.dtype | None = None

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that are called."""
        return self.method.branches(self)

    @property
    def evaluations(self) -> int:
        """UNet passes a sample takes."""
        return self.method.evaluations(self)

    def casting(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context in which the networks are called."""
        return torch.autocast(device.type, self.autocast) if self.autocast else nullcontext()


class Method(ABC):
    """A way of making pictures, chosen by configuration.

    name: as it is told. unused: sections and keys of the configuration that it does not read; where they are
    set they are refused. listens: whether it draws recordings, and not prompts. pastes: whether a composition
    that joins pictures, not predictions, may take the branches from it.
    """

    name: ClassVar[str]
    unused: ClassVar[tuple[str, ...]] = ()
    listens: ClassVar[bool] = False
    pastes: ClassVar[bool] = False

    def check(self, settings: Settings, layout: Layout) -> None:
        """Raise UserError on settings that do not fit the method or the family."""
        check_schedule(settings, layout)

    def branches(self, settings: Settings) -> tuple[str, ...]:
        """The branches that it calls."""
        return BOTH

    def calls(self, settings: Settings) -> int:
        """How often it calls back while it makes a batch."""
        return settings.steps

    @abstractmethod
    def evaluations(self, settings: Settings) -> int:
        """UNet passes a sample takes; a pass with and one without a condition count one each."""

    @abstractmethod
    def __call__(self, family: Family, settings: Settings, jobs: Sequence[Job],
                 callback: Callback | None = None, kept: Path | None = None) -> Tensor:
        """Pictures (len(jobs), 256, 1024) in [0, 1], on the CPU; none depends on the others.

        callback: called after every step with at least {"i": calls so far, "x": latents (B, C, H, W)}; where
        earlier calls are gone on from, "i" begins beyond 0.
        kept: a file for what is under way, where making a batch takes hours; it is gone on from.
        """


def bound(family: Family, settings: Settings, jobs: Sequence[Job], names: Iterable[str]) -> dict[str, Branch]:
    """Those of the family's branches, each bound to what the jobs ask of it and to its guidance."""
    conditions: dict[str, Callable[[], Any]] = {
        "image": lambda: family.text_condition(
            "image", [job.drawn for job in jobs],
            None if family.layout.scene is None else np.array([job.scene for job in jobs], np.float32)),
        "speech": lambda: (
            family.phone_condition([job.phones for job in jobs],
                                   [family.layout.voice_id(settings.voice)] * len(jobs),
                                   [job.pair.audio_prompt for job in jobs], settings.pitch)
            if family.layout.speaks_phonemes
            else family.text_condition("speech", [job.pair.audio_prompt for job in jobs]))}
    return {name: Branch(family.predictors[name], conditions[name](), family.null(name, len(jobs)),
                         settings.guidance[name])
            for name in names}


def denoise(family: Family, settings: Settings, compose: Composition, jobs: Sequence[Job],
            callback: Callback | None = None) -> Tensor:
    """Pictures (len(jobs), 256, 1024) in [0, 1] of what `compose` joins, all denoised together."""
    return JointDenoising()(family, replace(settings, compose=compose), jobs, callback)


def mean_of_draws(branch: Branch, family: Family, settings: Settings, jobs: Sequence[Job], draws: int,
                  steps: int, callback: Callback | None = None) -> Tensor:
    """(B, C, H, W) mean of `draws` samples of one branch alone, each from noise of its own.

    The more draws, the nearer to what the branch expects of the clean latent given its condition alone: what
    the draws do not agree on, which is the fine structure of a voice, averages out, and words are plainer.
    """
    scheduler = make_scheduler(schedule=family.layout.schedule, **settings.scheduler)
    noises = noise([job.seed for job in jobs], (draws, *family.layout.latent_shape)).to(family.device)

    def predict(x: Tensor, t: Tensor, progress: float) -> Tensor:
        return branch(x, t, progress, False).guided

    with settings.casting(family.device):
        return torch.stack([sample(predict, x, scheduler, steps, counting_on(callback, steps * number))
                            for number, x in enumerate(noises.unbind(1))]).mean(0)


def counting_on(callback: Callback | None, done: int) -> Callback | None:
    """`callback`, told of the calls that were made before."""
    return callback and (lambda state: callback({**state, "i": state["i"] + done}))


def check_schedule(settings: Settings, layout: Layout) -> None:
    """Raise UserError on a scheduler or a number of steps that the family's schedule does not allow."""
    set_steps(make_scheduler(schedule=layout.schedule, **settings.scheduler), settings.steps)


@dataclass(frozen=True)
class JointDenoising(Method):
    """Both branches denoise one latent; a composition joins what they predict at every step."""

    name: ClassVar[str] = "joint denoising"
    pastes: ClassVar[bool] = True

    def check(self, settings: Settings, layout: Layout) -> None:
        if settings.compose.needs_phones and not layout.speaks_phonemes:
            raise UserError(NO_PHONES.format(settings.compose.name))
        if settings.compose.branches == BOTH:
            check_starts(settings.starts)
        check_schedule(settings, layout)
        check_schedule(replace(settings, steps=settings.compose.speech_draws[1]), layout)

    def branches(self, settings: Settings) -> tuple[str, ...]:
        return settings.compose.branches

    def calls(self, settings: Settings) -> int:
        draws, draw_steps = settings.compose.speech_draws
        return settings.steps + draws * draw_steps

    def evaluations(self, settings: Settings) -> int:
        return evaluations(settings.compose, settings.guidance, settings.starts, settings.steps)

    def __call__(self, family: Family, settings: Settings, jobs: Sequence[Job],
                 callback: Callback | None = None, kept: Path | None = None) -> Tensor:
        compose = settings.compose
        sounding = (activity([job.phones for job in jobs]).to(family.device)
                    if family.layout.speaks_phonemes else None)
        bindings = bound(family, settings, jobs, compose.branches)
        branches: dict[str, Branch | Said] = {**bindings}
        draws, draw_steps = compose.speech_draws
        if draws:
            branches["speech"] = Said(mean_of_draws(bindings["speech"], family, settings, jobs, draws,
                                                    draw_steps, callback))
            callback = counting_on(callback, draws * draw_steps)
        joint = Joint(compose, branches, settings.starts, sounding)
        scheduler = make_scheduler(schedule=family.layout.schedule, **settings.scheduler)
        x = noise([job.seed for job in jobs], family.layout.latent_shape).to(family.device)
        with settings.casting(family.device):
            pictures = family.decode(sample(joint, x, scheduler, settings.steps, callback))
        return pictures if sounding is None else compose.finish(pictures, sounding)
