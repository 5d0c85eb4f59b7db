"""What is to be drawn of what is said, checked before any network is loaded."""

from __future__ import annotations

from omegaconf import DictConfig

from ..audio.mel import MEL
from ..config import class_of, instantiate
from ..diffusion.layout import Layout
from ..diffusion.method import Job, Method
from ..diffusion.planning import plan
from ..errors import UserError
from ..networks.speech_encoder import LONGEST
from ..prompts import Pair, Source, read_sources
from ..speaking.photographs import find_photographs
from ..speaking.voices import find_recordings, read_recording


def listens(cfg: DictConfig) -> bool:
    """Whether the method of a configuration draws what recordings say."""
    method = class_of(cfg, "method", Method)  # type: ignore[type-abstract]
    return method is not None and method.listens


def planned_jobs(cfg: DictConfig, layout: Layout) -> list[Job]:
    """The samples that a configuration of generate.py asks for, of prompts or of recordings, in order."""
    return plan_recordings(cfg, layout) if listens(cfg) else plan(cfg, layout)


def plan_recordings(cfg: DictConfig, layout: Layout) -> list[Job]:
    """Every recording of `speech`, with every picture of `image` where there is a strength; or the pairs of
    `prompts`, whose image_prompt tells what is said, for reading back alone.

    Raises one UserError on all that cannot be read.
    """
    if cfg.prompts:
        pairs = read_sources(cfg.prompts)
    elif cfg.speech is None:
        raise UserError("speech=null: method=speech_to_image draws what is said (expected a recording, a "
                        "folder of them, or prompts= with a column speech)")
    else:
        pictures = [Source(path) for path in find_photographs(cfg.image)] if cfg.image else [Source()]
        pairs = [(picture, Source(path)) for picture in pictures for path in find_recordings(cfg.speech)]
    wrong = []
    for picture, speech in dict.fromkeys(pairs):
        if speech.file is None:
            wrong.append(f"audio_prompt={speech.prompt!r}: method=speech_to_image needs a recording (speech)")
        if (picture.file is None) != (cfg.strength is None):
            wrong.append(f"strength={cfg.strength}: expected " + (
                "a share above 0, at most 1, of how far the given picture is changed" if picture.file
                else "null where no picture is given (image=FILE)"))
    for path in dict.fromkeys(speech.file for _, speech in pairs if speech.file is not None):
        try:
            seconds = len(read_recording(path)) / MEL.sample_rate
            if seconds > LONGEST:
                wrong.append(f"speech={path}: {seconds:.0f} s long (expected at most {LONGEST:g} s)")
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))
    scenes = instantiate(cfg.scene) if layout.scene is not None else None

    def job(picture: Source, speech: Source, seed: int) -> Job:
        # One thing, in the middle: speech is not asked how many there are.
        scene = None if scenes is None else tuple(
            tuple(round(float(x), 4) for x in square) for square in scenes.plan("a thing", seed))
        return Job(Pair(picture.prompt or "", ""), seed, scene=scene, recording=speech.file,
                   picture=picture.file)

    return [job(picture, speech, cfg.seed + i) for picture, speech in dict.fromkeys(pairs)
            for i in range(cfg.num_samples)]
