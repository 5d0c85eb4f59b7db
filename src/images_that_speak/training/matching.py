"""Whether what is trained and what it learns from fit together: told before anything is computed."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..data.datamodule import BatchDataset, PictureData, SpeechClips
from ..data.manifest import Corpus
from ..data.streamed import StreamedClips
from ..errors import UserError


def match(module: nn.Module, data: Any) -> None:
    """Bring the data sets of `data`, a PictureData, and `module`'s conditioner together.

    A conditioner that reads texts lends its tokenizer to data sets that have none. Raises UserError when an
    adapter is not as wide as the UNet's first feature map or has fewer voices than the data, when a data set
    gives a latent diffusion pictures, when training and validation number voices differently, or when an
    adapter is told what a data set does not have.
    """
    conditioner = getattr(module, "conditioner", None)
    if conditioner is None or not isinstance(data, PictureData):
        return
    sets: dict[str, BatchDataset] = {name: found for name, found in (("train", data.train),
                                                                     ("valid", data.valid))
                                     if found is not None}
    tokenizer, settings = getattr(conditioner, "tokenizer", None), getattr(conditioner, "config", {})
    for dataset in sets.values():
        if tokenizer is not None and getattr(dataset, "tokenizer", tokenizer) is None:
            dataset.tokenizer = tokenizer  # type: ignore[attr-defined]
    unet: Any = getattr(module, "unet", None)
    if unet is not None and settings.get("channels", first := unet.config.block_out_channels[0]) != first:
        raise UserError(f"adapter.channels={settings['channels']}: expected {first}, as of the UNet's first "
                        "feature map, where the condition is added")
    for name, dataset in sets.items() if unet is not None else ():
        if dataset.latents is None and not isinstance(dataset, StreamedClips):
            raise UserError(f"data.{name}.latents=null: a latent diffusion learns from latents (expected a "
                            "folder, which is made when it is not there)")
    if known := settings.get("voices"):
        _check_voices({name: voices_of(dataset) for name, dataset in sets.items()}, int(known))
    wants = [wanted for wanted, there in (
        ("texts", tokenizer is not None), ("embeddings", settings.get("features")),
        ("a pitch", hasattr(conditioner, "own_loss"))) if there]
    for name, dataset in sets.items():
        if isinstance(dataset, StreamedClips):
            dataset.open()
            if lacks := [wanted for wanted in wants if not (wanted == "a pitch" and dataset.has_pitch)]:
                raise UserError(f"data.{name}.folder={dataset.folder}: the adapter is told "
                                f"{', '.join(lacks)} (expected adapter=aligned, records written with --pitch "
                                "for adapter=pitched, or data=pocket_speech_latents)")
    if width := settings.get("features"):
        for name, dataset in sets.items():
            if isinstance(dataset, SpeechClips) and dataset.embeddings is None:
                raise UserError(f"data.{name}.embeddings=null: the adapter reads embeddings (adapter."
                                f"features={width}; expected a file, which a training that names "
                                f"data.{name}.phoneme_bert makes)")


def voices_of(dataset: BatchDataset) -> list[str]:
    """The voices of a data set in the order of their numbers; none where it numbers none."""
    if isinstance(dataset, StreamedClips):
        dataset.open()
        return dataset.voices or []
    if isinstance(dataset, SpeechClips):
        return dataset.voices or Corpus.open(dataset.root).voices()
    return []


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
