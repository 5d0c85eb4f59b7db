"""Whether what is trained and what it learns from fit together: told before anything is computed."""

from __future__ import annotations

from ..data.datamodule import BatchDataset, PictureData
from ..errors import UserError
from ..networks.condition import Conditioner
from .diffusion import LatentDiffusionTraining


def match(module: LatentDiffusionTraining, data: PictureData) -> None:
    """Bring the data sets of `data` and a latent diffusion together.

    Raises UserError when its adapter is not as wide as the UNet's first feature map, when a data set gives
    pictures, and whatever `match_conditioner` raises.
    """
    first, channels = module.unet.config.block_out_channels[0], module.conditioner.channels
    if channels not in (None, first):
        raise UserError(f"adapter.channels={channels}: expected {first}, as of the UNet's first feature map, "
                        "where the condition is added")
    for name, dataset in data.sets.items():
        if dataset.latents is None and not dataset.streamed:
            raise UserError(f"data.{name}.latents=null: a latent diffusion learns from latents (expected a "
                            "folder, which is made when it is not there)")
    match_conditioner(module.conditioner, data, module.reads)


def match_conditioner(conditioner: Conditioner, data: PictureData, more: tuple[str, ...] = ()) -> None:
    """Have the data sets of `data` prepare what `conditioner` reads, and `more` where they have it.

    A conditioner that reads texts lends its tokenizer to data sets that have none. Raises UserError when it
    has fewer voices than the data, when training and validation number voices differently, or when a data set
    lacks what it reads.
    """
    for dataset in data.sets.values():
        dataset.tokenizer = conditioner.tokenizer if dataset.tokenizer is None else dataset.tokenizer
    if conditioner.voices:
        _check_voices({name: dataset.numbered() for name, dataset in data.sets.items()}, conditioner.voices)
    for name, dataset in data.sets.items():
        if lacks := conditioner.lacks(dataset.gives()):
            raise UserError(_lacking(f"data.{name}", lacks, conditioner, dataset))
        dataset.want({*conditioner.inputs, *more})


def _lacking(key: str, lacks: list[str], conditioner: Conditioner, dataset: BatchDataset) -> str:
    """A data set lacks something: what, and what to set."""
    told = f"{type(conditioner).__name__} reads {', '.join(lacks)}"
    if (advice := dataset.advice(lacks[0])) is not None:
        return f"{key}.{advice}; {told}"
    return f"{key}: {told}; {type(dataset).__name__} gives {', '.join(sorted(dataset.gives()))}"


def _check_voices(voices: dict[str, list[str]], known: int) -> None:
    for name, found in voices.items():
        if len(found) > known:
            raise UserError(f"adapter.voices={known}: data.{name} has {len(found)} ({_few(found)}; expected "
                            f"at least adapter.voices={len(found)}, or data.{name}.voices with fewer)")
    train, valid = voices.get("train", []), voices.get("valid", [])
    if any(a != b for a, b in zip(train, valid, strict=False)):
        raise UserError(f"data.valid.voices: {_few(valid)} where data.train has {_few(train)} (expected the "
                        "same in the same order, for a voice has one number)")


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
