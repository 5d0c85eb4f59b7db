"""What is to be made: pairs of a picture and something to say, checked before any network is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..diffusion.layout import Layout
from ..diffusion.outputs import sample_id
from ..errors import UserError, nearest
from ..files import content_hash, file_hash, read_text
from ..prompts import Source, read_sources
from ..speech.normalisation import normalise_text
from .photographs import find_photographs
from .voices import SPEAKERS, default_voice, find_recordings


@dataclass(frozen=True)
class SpeakingJob:
    """One sample to make."""

    picture: Source
    speech: Source
    seed: int

    @property
    def sample_id(self) -> str:
        """The sample's name: by its prompts and seed as everywhere, by content where there are files."""
        if self.picture.file is None and self.speech.file is None:
            return sample_id(str(self.picture.prompt), str(self.speech.prompt), self.seed)
        return content_hash({"picture": self.picture.content, "speech": self.speech.content,
                             "seed": self.seed})


def plan_jobs(cfg: DictConfig) -> list[SpeakingJob]:
    """The samples that a configuration of generate.py asks for, in order.

    `prompts` is a csv of pairs; else every picture of `image` (or `image_prompt`) says everything of
    `speech`, of the lines of `sentences`, or `audio_prompt`. Raises one UserError on all that cannot be
    found or said.
    """
    if cfg.prompts:
        pairs = read_sources(cfg.prompts)
    else:
        pictures = ([Source(path) for path in find_photographs(cfg.image)] if cfg.image
                    else [Source(prompt=" ".join(cfg.image_prompt.split()))])
        pairs = [(picture, speech) for picture in pictures for speech in _speeches(cfg)]
    pairs = list(dict.fromkeys(pairs))
    wrong = []
    for prompt in dict.fromkeys(speech.prompt for _, speech in pairs if speech.file is None):
        try:
            normalise_text(prompt or "")
        except UserError as error:
            wrong.append(f"audio_prompt={prompt!r}: {error}")
    if wrong:
        raise UserError("\n".join(wrong))
    return [SpeakingJob(picture, speech, cfg.seed + i)
            for picture, speech in pairs for i in range(cfg.num_samples)]


def _speeches(cfg: DictConfig) -> list[Source]:
    if cfg.speech:
        return [Source(path) for path in find_recordings(cfg.speech)]
    if cfg.sentences:
        lines = [" ".join(line.split()) for line in read_text(Path(cfg.sentences)).split("\n")]
        said = [line for line in lines if line and not line.startswith("#")]
        if not said:
            raise UserError(f"sentences={cfg.sentences}: holds no sentence (expected one a line)")
        return [Source(prompt=line) for line in said]
    return [Source(prompt=" ".join(cfg.audio_prompt.split()))]


def chosen_voice(cfg: DictConfig, layout: Layout, needed: bool = True) -> str | None:
    """The voice that speaks the audio prompts: `voice`, or the best there is; None: nobody needs to speak.

    A voice of the family's is one of its speech branch. Raises UserError on an unknown one.
    """
    if not needed:
        return None
    voice = cfg.voice or default_voice() or (layout.voices[0] if layout.voices else "branch")
    known: Sequence[str] = [*SPEAKERS, *layout.voices, "branch"]
    if voice.partition("/")[0] not in known:
        raise UserError(f"voice={voice}: expected one of {', '.join(known)}.{nearest(voice, known)}")
    return voice


def by_branch(voice: str | None, layout: Layout) -> bool:
    """Whether a voice is that of the family's speech branch, and no synthesiser's."""
    return voice is not None and (voice == "branch" or voice in layout.voices)


def record_source(source: Source) -> dict[str, Any] | None:
    """What sample.json says of a file that a sample was made from."""
    if source.file is None:
        return None
    return {"path": str(source.file), "sha": file_hash(source.file)}
