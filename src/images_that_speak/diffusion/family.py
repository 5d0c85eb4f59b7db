"""A family: an image branch and a speech branch in one latent space, and what turns latents into sound.

layout.py says where the parts lie; `Family.load` loads those that are asked for. After that the families are
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..audio.mel import MEL
from ..data.counts import spelled
from ..errors import UserError, gathered, nearest
from ..kept import kept, stamp
from ..networks.codec import decode, encode
from ..networks.condition import Condition
from ..speech.alignment import frame_index, frame_phones, speech_activity
from ..speech.phonemes import PHONE_IDS, UNKNOWN
from ..speech.plbert import PhonemeBERT
from .layout import Layout, pocket_layout
from .loading import DTYPES, adapter_class, apply_lora, load_model, reading
from .predictor import NoiseSchedule, Predictor

if TYPE_CHECKING:
    from ..speech.tts import Phone

PARTS = ("image", "speech", "vae", "vocoder")


@dataclass
class Family:
    """The loaded parts of a family; those not asked for are None or absent.

    Everything here is inference: no gradients, `eval` mode.
    """

    layout: Layout
    device: torch.device
    predictors: dict[str, Predictor] = field(default_factory=dict)
    conditioners: dict[str, Any] = field(default_factory=dict)
    vae: Any = None
    vocoder: Any = None
    phoneme_bert: PhonemeBERT | None = None

    @classmethod
    def load(cls, source: Layout | str | Path | None = None, parts: Iterable[str] = PARTS, *,
             device: str = "cpu", dtype: str = "float32", vocoder: str | Path | None = None,
             weights: bool = True) -> Family:
        """Load `parts` of a layout, or of a pocket family's folder (None: the embedded one).

        Args:
            parts: of "image", "speech", "vae", "vocoder".
            device: "cpu", "cuda", "cuda:1", … or "auto".
            dtype: of the UNets and text encoders, a key of DTYPES. The VAE stays in float32 on the CPU.
            vocoder: another vocoder folder, or "griffin_lim".
            weights: with False the networks are on torch's meta device and take no memory; their files are
                compared with them. The vocoder and a PL-BERT, which are small, are loaded all the same.

        Raises one UserError for all parts whose weights are missing, truncated or foreign, or on an unknown
        part, device or dtype.
        """
        layout = source if isinstance(source, Layout) else pocket_layout(source)
        parts = tuple(parts)
        if unknown := [part for part in parts if part not in PARTS]:
            raise UserError(f"parts: {unknown[0]!r}: expected some of {', '.join(PARTS)}."
                            f"{nearest(unknown[0], PARTS)}")
        if dtype not in DTYPES:
            raise UserError(f"precision.dtype={dtype!r}: expected one of {', '.join(DTYPES)}."
                            f"{nearest(dtype, DTYPES)}")
        place = find_device(device)
        family = cls(layout, place if weights else torch.device("meta"))
        with gathered() as step:
            for branch in ("image", "speech"):
                if branch in parts:
                    with step():
                        family._take_branch(branch, dtype)
            if "speech" in parts and layout.phoneme_bert is not None:
                with step():
                    family.phoneme_bert = kept(("PL-BERT", stamp(layout.phoneme_bert), str(place)),
                                               lambda: PhonemeBERT.from_pretrained(str(layout.phoneme_bert)))
            if "vae" in parts:
                with step():
                    family._take_autoencoder(DTYPES[dtype] if place.type == "cuda" else torch.float32)
            if "vocoder" in parts:
                from ..audio.vocoder import load_vocoder

                chosen = vocoder or layout.vocoder
                with step():
                    family.vocoder = kept(("vocoder", stamp(chosen), str(place)),
                                          lambda: load_vocoder(chosen).to(place))
        return family

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The loaded networks by name."""
        found = {f"{branch} UNet": predictor.unet for branch, predictor in self.predictors.items()}
        found |= {f"{branch} conditioner": made for branch, made in self.conditioners.items()}
        found |= {"autoencoder": self.vae, "vocoder": self.vocoder}
        return {name: network for name, network in found.items() if network is not None}

    def adopt(self, other: Family) -> None:
        """Take the parts that another one of the same layout has loaded."""
        self.predictors.update(other.predictors)
        self.conditioners.update(other.conditioners)
        self.vae = self.vae if other.vae is None else other.vae
        self.vocoder = self.vocoder if other.vocoder is None else other.vocoder
        self.phoneme_bert = self.phoneme_bert if other.phoneme_bert is None else other.phoneme_bert

    def _take_autoencoder(self, dtype: torch.dtype) -> None:
        from ..networks.autoencoder import autoencoder_class

        folder, running = self.layout.vae, self.layout.running
        self.vae = self._kept(("vae", stamp(folder), dtype, running), lambda: running.autoencoder(
            self._load(autoencoder_class(folder), folder, dtype), self.device))

    def _kept(self, key: tuple[Hashable, ...], load: Callable[[], Any]) -> Any:
        """`kept` on this device; what was loaded without weights is not worth its place."""
        return load() if self.device.type == "meta" else kept((*key, str(self.device)), load)

    def _load(self, cls: Any, folder: Path, dtype: torch.dtype) -> Any:
        return load_model(cls, folder, dtype, weights=self.device.type != "meta")

    def _take_branch(self, branch: str, dtype: str) -> None:
        key = (branch, _determining(self.layout, branch), dtype)
        self.predictors[branch], self.conditioners[branch] = self._kept(
            key, lambda: self._load_branch(branch, DTYPES[dtype]))

    def _load_branch(self, branch: str, dtype: torch.dtype) -> tuple[Predictor, Any]:
        layout, running = self.layout, self.layout.running
        with gathered() as step:
            with step():
                unet = running.unet(self._load_unet(branch, dtype), self.device)
            with step():
                conditioner = running.module(self._load_conditioner(branch, dtype), self.device)
        config = layout.schedule
        schedule = NoiseSchedule(int(config.get("num_train_timesteps", 1000)), float(config["beta_start"]),
                                 float(config["beta_end"]))
        return Predictor(unet, schedule, layout.prediction_type[branch]), conditioner

    def _load_unet(self, branch: str, dtype: torch.dtype) -> Any:
        from diffusers import UNet2DConditionModel

        layout = self.layout
        unet = self._load(UNet2DConditionModel, layout.unet[branch], dtype)
        if unet.config.in_channels != layout.latent_shape[0]:
            raise UserError(f"{layout.unet[branch]}: made for {unet.config.in_channels} latent channels "
                            f"(expected {layout.latent_shape[0]}, as the autoencoder has)")
        if branch == "speech" and layout.lora is not None:
            apply_lora(unet, layout.lora)
        return unet

    def _load_conditioner(self, branch: str, dtype: torch.dtype) -> nn.Module:
        from transformers import CLIPTextModel, CLIPTokenizer

        from ..networks.auffusion import AdaptedTextConditioner
        from ..networks.scene import SceneAdapter, SceneConditioner
        from ..networks.text import TextConditioner

        layout = self.layout
        if branch in layout.text_encoder:
            encoder = self._load(CLIPTextModel, layout.text_encoder[branch], dtype)
            words = layout.tokenizer[branch]
            with reading(words):
                text = TextConditioner(encoder, CLIPTokenizer.from_pretrained(
                    str(words), local_files_only=True))
            if branch == "speech" or layout.scene is None:
                return text
            return SceneConditioner(text, self._load(SceneAdapter, layout.scene, dtype))
        if layout.conditions is not None:
            with reading(layout.conditions):
                return AdaptedTextConditioner.from_pretrained(
                    layout.conditions, dtype, weights=self.device.type != "meta")
        assert layout.adapter is not None
        return self._load(adapter_class(layout.adapter), layout.adapter, dtype)

    @torch.no_grad()
    def text_condition(self, branch: str, prompts: Sequence[str],
                       scenes: np.ndarray | None = None) -> Condition:
        """The condition of B texts; the image branch's are put into the template first.

        scenes: (B, COPIES, 5) squares, where the branch takes them.
        """
        conditioner = self.conditioners[branch]
        if branch == "image":
            if self.layout.scene is not None:  # its captions say numbers in words
                prompts = [spelled(prompt) for prompt in prompts]
            prompts = [self.layout.template.replace("{}", prompt) for prompt in prompts]
        batch = {"input_ids": conditioner.tokenize(list(prompts)).to(self.device)}
        if scenes is not None:
            batch["scene"] = torch.as_tensor(scenes, dtype=torch.float32, device=self.device)
        return conditioner.encode(batch)

    @torch.no_grad()
    def phone_condition(self, plans: Sequence[Sequence[Phone]], voices: Sequence[int],
                        texts: Sequence[str] | None = None, pitch: float = 1.0) -> Condition:
        """The condition of B phrases, each a list of phones with times, spoken by voices (numbers from 1).

        texts: what they say; a PL-BERT sees from them where words begin. pitch: times the one that the
        adapter expects of the voice, for adapters that are told it.
        """
        batch = phone_batch(plans, voices)
        if self.phoneme_bert is not None:
            embedded = self.phoneme_bert.embed([[phone.symbol for phone in plan] for plan in plans], texts)
            batch["phone_embedding"] = nn.utils.rnn.pad_sequence(embedded, batch_first=True)
            index = [torch.from_numpy(frame_index(plan, MEL.frames)) for plan in plans]
            batch["frame_index"] = torch.stack(index)
        batch = {key: value.to(self.device) for key, value in batch.items()}
        adapter = self.conditioners["speech"]
        if pitch != 1:
            batch["frame_pitch"] = adapter.expected(batch).exp() * pitch
        return adapter.encode(batch)

    @torch.no_grad()
    def null(self, branch: str, n: int) -> Condition:
        """The condition of n samples about which nothing is said."""
        return self.conditioners[branch].null(n)

    def latents(self, pictures: Tensor) -> Tensor:
        """`encode` through which gradients reach the pictures."""
        z = encode(self.vae, pictures[:, None].to(self.device, self.vae.dtype)).mean.float()
        mean, std = self._statistics(z)
        return (z - mean) / std

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 256, 1024) pictures in [0, 1] → (B, C, H, W) normalised latents, the posterior's mean."""
        return self.latents(pictures)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) normalised latents → (B, 256, 1024) pictures in [0, 1], on the CPU.

        A colour autoencoder's picture is the mean of its channels. One at a time: the decoder's feature maps
        are by far the largest tensors of a generation.
        """
        mean, std = self._statistics(latents)
        z = (latents * std + mean).to(self.device, self.vae.dtype)
        decoded = [decode(self.vae, one[None])[:, 0] for one in z]
        return torch.cat(decoded).clamp(0, 1).cpu()

    @torch.no_grad()
    def encode_colour(self, rgb: Tensor) -> Tensor:
        """(B, 3, 256, 1024) colour pictures in [0, 1] → (B, C, H, W) normalised latents, where the
        autoencoder knows colours."""
        z = self.vae.encode((rgb * 2 - 1).to(self.device, self.vae.dtype)).latent_dist.mean.float()
        mean, std = self._statistics(z)
        return (z - mean) / std

    @torch.no_grad()
    def decode_colour(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) normalised latents → (B, 3, 256, 1024) colour pictures, about [0, 1]."""
        mean, std = self._statistics(latents)
        z = (latents * std + mean).to(self.device, self.vae.dtype)
        return self.vae.decode(z).sample.float() / 2 + 0.5

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(x, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
                     for x in (self.layout.mean, self.layout.std))
        return mean, std


# What no branch is made of, and what only the other branch is.
ELSEWHERE = {"image": ("adapter", "adapter_in_memory", "lora", "conditions"), "speech": ("scene",)}
BESIDE = ("name", "template", "vae", "vocoder", "durations", "voices", "mean", "std", "scheduler",
          "phoneme_bert")


def _determining(layout: Layout, branch: str) -> Hashable:
    """All of a layout that a loaded branch depends on: folders by what lies there, all else as it is."""
    found: list[Hashable] = []
    for name, value in vars(layout).items():
        if name not in (*BESIDE, *ELSEWHERE[branch]):
            value = value.get(branch) if isinstance(value, dict) and "image" in value else value
            found.append(stamp(value) if isinstance(value, Path) else repr(value))
    return tuple(found)


def find_device(device: str) -> torch.device:
    """"auto" is the first GPU, or else the CPU. Raises UserError on a device this machine lacks."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device={device!r}: expected auto, cpu, cuda or mps") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device!r}: torch finds {torch.cuda.device_count()} GPUs here "
                        "(device=cpu does without)")
    return found


def phone_batch(plans: Sequence[Sequence[Phone]], voices: Sequence[int]) -> dict[str, Tensor]:
    """What the phoneme adapters read of B phrases: "phones", "phone_mask", "frame_phones", "frame_position",
    "voice". L is the longest phrase; padding has id 0."""
    ids = [torch.tensor([PHONE_IDS.get(p.symbol, PHONE_IDS[UNKNOWN]) for p in plan]) for plan in plans]
    phones = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(plan) for plan in plans])
    frames = [frame_phones(plan, MEL.frames) for plan in plans]
    return {"phones": phones, "phone_mask": torch.arange(phones.shape[1])[None] < lengths[:, None],
            "frame_phones": torch.stack([torch.from_numpy(ids) for ids, _ in frames]),
            "frame_position": torch.stack([torch.from_numpy(position) for _, position in frames]),
            "voice": torch.tensor(list(voices))}


def activity(plans: Sequence[Sequence[Phone]]) -> Tensor:
    """(B, 1024) in [0, 1]: the share of each frame in which a phone sounds."""
    return torch.stack([torch.from_numpy(speech_activity(plan, MEL.frames)) for plan in plans])
