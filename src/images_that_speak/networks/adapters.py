"""Phonemes → condition, in four ways: without order, with order, with time, and with time and pitch.

Every adapter is a conditioner: `encode(batch) -> Condition`, `drop(batch, rows)` for condition dropout and
`null(n)` for guidance. Id 0 (`<pad>`) everywhere is the null condition, voice 0 is no voice.

Phonemes are looked up in a table that is learnt with the adapter. With `features` the adapter reads
embeddings of that width in its place (speech.plbert): a batch then also carries "phone_embedding" (B, L,
features) and, for the aligned adapter, "frame_index" (B, frames), the phone that sounds in each frame, -1 for
none. Nothing is zero there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_unshuffle

from ..audio.mel import MEL, LogMel
from ..errors import UserError
from ..files import read_json
from ..speech.phonemes import PAUSE, PHONE_IDS
from .autoencoder import PatchAutoencoder
from .condition import Condition


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) sine and cosine position codes (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=-1).flatten(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B, L, D), (B, L) bool → (B, D); the mean over nothing is 0."""
    weight = mask[..., None].to(values)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


class PhonemeAdapter(ModelMixin, ConfigMixin):
    """What the adapters share. Voices are numbered from 1; 0 means none."""

    config_name = "config.json"

    def drop(self, batch: dict[str, Any], rows: Tensor) -> dict[str, Any]:
        """The batch with phonemes and voice of `rows` (B,) bool taken away."""
        keep = ~rows
        dropped = dict(batch)
        for key in ("phones", "frame_phones", "phone_embedding", "embedding", "voice"):
            if key in batch:
                dropped[key] = batch[key] * keep.view(-1, *[1] * (batch[key].ndim - 1))
        if "phone_mask" in batch:
            dropped["phone_mask"] = batch["phone_mask"] & keep[:, None]
        if "frame_index" in batch:
            dropped["frame_index"] = batch["frame_index"].masked_fill(rows[:, None], -1)
        return dropped

    def null(self, n: int) -> Condition:
        """The condition of `n` samples about which nothing is said."""
        device = self.device
        zeros = torch.zeros(n, 1, dtype=torch.long, device=device)
        frames = zeros.expand(n, self.config.get("frames", 1024))
        nothing = torch.zeros(n, 1, self.config.get("features") or 1, device=device)
        return self.encode({"phones": zeros, "phone_mask": zeros.bool(), "frame_phones": frames,
                            "frame_position": frames.float(), "frame_index": frames - 1, "voice": zeros[:, 0],
                            "phone_embedding": nothing})

    def vectors(self, batch: dict[str, Any]) -> Tensor:
        """(B, L, width): each phone's entry of the table, or its embedding brought to that width."""
        if self.config.features:
            return self.phone(batch["phone_embedding"].to(self.dtype))
        return self.phone(batch["phones"])

    def encode(self, batch: dict[str, Any]) -> Condition:
        raise TypeError(f"{type(self).__name__} does not say how it encodes a batch")

    def forward(self, batch: dict[str, Any]) -> Condition:
        return self.encode(batch)


def phone_table(phones: int, width: int, features: int | None) -> nn.Module:
    """What brings a phone to `width`: a table of its own, or a map of embeddings `features` wide."""
    return nn.Linear(features, width) if features else nn.Embedding(phones, width)


class PooledAdapter(PhonemeAdapter):
    """The published adapter: the mean phoneme embedding, projected and repeated. Order is lost.

    Kept as the baseline. A batch carries "phones" (B, L), "phone_mask" (B, L) and "voice" (B,).
    """

    @register_to_config
    def __init__(self, phones: int, voices: int, width: int = 128, tokens: int = 77,
                 features: int | None = None):
        super().__init__()
        self.phone = phone_table(phones, width, features)
        self.voice = nn.Embedding(voices + 1, width)
        self.project = nn.Linear(width, width)

    def encode(self, batch: dict[str, Any]) -> Condition:
        mean = masked_mean(self.vectors(batch), batch["phone_mask"])
        token = self.project(mean) + self.voice(batch["voice"])
        tokens = token[:, None].expand(-1, self.config.tokens, -1)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


class SequenceAdapter(PhonemeAdapter):
    """Phonemes in order: embeddings with positions, a small Transformer, masked cross-attention.

    The first token is the voice. A batch carries what PooledAdapter's does.
    """

    @register_to_config
    def __init__(self, phones: int, voices: int, width: int = 128, layers: int = 2, heads: int = 4,
                 dropout: float = 0.0, features: int | None = None):
        super().__init__()
        self.phone = phone_table(phones, width, features)
        self.voice = nn.Embedding(voices + 1, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True,
                                           norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width),
                                                 enable_nested_tensor=False)

    def encode(self, batch: dict[str, Any]) -> Condition:
        phones = self.vectors(batch)
        phones = phones + sinusoids(phones.shape[1], phones.shape[2]).to(phones)
        voice = self.voice(batch["voice"])[:, None]
        mask = torch.cat([torch.ones_like(batch["phone_mask"][:, :1]), batch["phone_mask"]], dim=1)
        tokens = self.transformer(torch.cat([voice, phones], dim=1), src_key_padding_mask=~mask)
        return Condition(tokens, mask)


class ResidualConv(nn.Module):
    """x + conv(gelu(conv(gelu(norm x)))) along time, (B, C, L) → (B, C, L)."""

    def __init__(self, width: int, kernel: int = 5):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.GELU(), nn.Conv1d(width, width, kernel, padding=kernel // 2),
            nn.GELU(), nn.Conv1d(width, width, kernel, padding=kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def progress(position: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, frames) how far a phoneme has gone, 0 to 1 → (B, frames, 4): so that begin and end count alike."""
    return torch.stack([position, 1 - position, (torch.pi * position).sin(),
                        (2 * torch.pi * position).sin()], dim=-1).to(dtype)


class PitchModel(nn.Module):
    """Phonemes with their times → the pitch expected of them, ln Hz (B, frames): a voice's own, and what
    convolutions along time add to it. A batch carries what AlignedAdapter's does."""

    def __init__(self, phones: int, voices: int, width: int = 96, layers: int = 3):
        super().__init__()
        self.phone = nn.Embedding(phones, width)
        self.position = nn.Linear(4, width)
        self.level = nn.Embedding(voices + 1, 1)
        self.voice = nn.Embedding(voices + 1, width)
        self.first = nn.Conv1d(width, width, 8, stride=4, padding=2)
        self.mix = nn.Sequential(*(ResidualConv(width) for _ in range(layers)), nn.GELU())
        self.last = nn.Conv1d(width, 1, 1)
        nn.init.constant_(self.level.weight, math.log(140.0))
        nn.init.zeros_(self.last.weight)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        dtype = self.last.weight.dtype
        frames = self.phone(batch["frame_phones"]) + self.position(progress(batch["frame_position"], dtype))
        hidden = self.first(frames.transpose(1, 2)) + self.voice(batch["voice"])[..., None]
        contour = interpolate(self.last(self.mix(hidden)), scale_factor=4, mode="linear")
        return contour[:, 0] + self.level(batch["voice"])


def band_frequencies() -> Tensor:
    """(n_mels,) float32 Hz: the middle of each band of the picture, the highest first."""
    usual = torch.get_default_dtype()
    # Weights that are loaded in half precision have their module made in it.
    torch.set_default_dtype(torch.float32)
    try:
        filters = LogMel().filters
        hertz = torch.arange(filters.shape[1]) * (MEL.sample_rate / MEL.n_fft)
        return ((filters @ hertz) / filters.sum(1)).flip(0)
    finally:
        torch.set_default_dtype(usual)


def harmonics(pitch: Tensor, frequencies: Tensor) -> Tensor:
    """(B, F) Hz, (H,) Hz → (B, H, F) in [-1, 1]: 1 at the pitch's multiples, -1 between them."""
    return (2 * torch.pi * frequencies[None, :, None] / pitch[:, None].clamp(min=1)).cos()


def spoken(frame_phones: Tensor) -> Tensor:
    """(B, F) ids → bool: where a phone sounds, neither padding nor a pause."""
    return frame_phones > PHONE_IDS[PAUSE]


class AlignedAdapter(PhonemeAdapter):
    """Phonemes expanded by their durations onto the latent's columns.

    At every mel frame the phoneme sounding there and how far it has gone (0 to 1) are embedded, brought
    down to one vector a latent column by strided convolutions, mixed along time, and spread over the
    latent's rows by a linear map of its own per row: so a formant's place in the picture can be read off
    the phoneme without the UNet having to know at which frequency it stands.

    The residual starts at zero, that a pretrained UNet starts from what it knew. A batch carries
    "frame_phones" (B, frames) ids, "frame_position" (B, frames) in [0, 1) and "voice" (B,).

    Args:
        channels: of the UNet's first feature map. rows, columns: the latent's height and width.
    """

    @register_to_config
    def __init__(self, phones: int, voices: int, channels: int, rows: int = 16, columns: int = 64,
                 frames: int = 1024, width: int = 128, hidden: int = 192, embedding: int = 64,
                 layers: int = 3, features: int | None = None):
        super().__init__()
        ratio = frames // columns
        if frames % columns or ratio % 8:
            raise ValueError(f"frames={frames}, columns={columns}: expected a multiple of 8 frames a column")
        self.phone = phone_table(phones, embedding, features)
        self.voice = nn.Embedding(voices + 1, hidden)
        self.position = nn.Linear(4, embedding)
        self.down = nn.Sequential(
            nn.Conv1d(embedding, hidden, 8, stride=4, padding=2), nn.GELU(),
            nn.Conv1d(hidden, hidden, 2 * (ratio // 4), stride=ratio // 4, padding=ratio // 8))
        self.mix = nn.Sequential(*(ResidualConv(hidden) for _ in range(layers)))
        self.spread = nn.Conv1d(hidden, channels * rows, 1)
        nn.init.zeros_(self.spread.weight)
        nn.init.zeros_(self.spread.bias)  # type: ignore[arg-type]
        self.token = nn.Linear(hidden, width)

    def encode(self, batch: dict[str, Any]) -> Condition:
        frames = self.frames(batch) + self.position(progress(batch["frame_position"],
                                                             self.position.weight.dtype))
        voice = self.voice(batch["voice"])
        hidden = self.down(frames.transpose(1, 2)) + voice[..., None]
        hidden = self.mix(hidden)
        residual = self.spread(hidden)
        residual = residual.unflatten(1, (self.config.channels, self.config.rows))
        tokens = self.token(torch.cat([voice[:, None], hidden.transpose(1, 2)], dim=1))
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device),
                         residual)

    def frames(self, batch: dict[str, Any]) -> Tensor:
        """(B, frames, embedding): what sounds in each frame."""
        if not self.config.features:
            return self.phone(batch["frame_phones"])
        index = batch["frame_index"][..., None]
        vectors = self.vectors(batch)
        sounding = vectors.gather(1, index.clamp(min=0).expand(-1, -1, vectors.shape[-1]))
        nothing: Any = self.phone.bias
        return torch.where(index < 0, nothing.to(vectors), sounding)


class PitchedAdapter(AlignedAdapter):
    """AlignedAdapter that is also told where the harmonics lie: the picture of a voice of that pitch.

    What of a picture of speech phonemes, times and voice do not determine is nearly all harmonics; those of
    neighbouring patches must fit together. A batch that carries "frame_pitch" (B, frames) Hz is spoken at
    that pitch, another at the one that a PitchModel expects. Saying nothing has no harmonics.

    Args:
        patch: pixels of the picture that a latent cell is wide and high. waves: features of a cell's
            harmonics. pitch_width, pitch_layers: sizes of the PitchModel. The others are AlignedAdapter's.
    """

    @register_to_config
    def __init__(self, phones: int, voices: int, channels: int, rows: int = 16, columns: int = 64,
                 frames: int = 1024, width: int = 128, hidden: int = 192, embedding: int = 64,
                 layers: int = 3, features: int | None = None, patch: int = 16, waves: int = 32,
                 pitch_width: int = 96, pitch_layers: int = 3):
        super().__init__(phones, voices, channels, rows, columns, frames, width, hidden, embedding, layers,
                         features)
        if rows * patch != MEL.n_mels or columns * patch != frames:
            raise ValueError(f"patch={patch}: expected {MEL.n_mels} / rows={rows} and frames={frames} / "
                             f"columns={columns}")
        self.expected = PitchModel(phones, voices, pitch_width, pitch_layers)
        self.look = nn.Conv2d(patch**2, waves, 1, bias=False)
        self.join = nn.Conv2d(waves, channels, 3, padding=1)
        nn.init.orthogonal_(self.look.weight)
        nn.init.zeros_(self.join.weight)
        nn.init.zeros_(self.join.bias)  # type: ignore[arg-type]
        # Whole numbers, which no half precision rounds: an error counts at every multiple of the pitch.
        self.register_buffer("millihertz", (1000 * band_frequencies()).round().long(), persistent=False)

    def encode(self, batch: dict[str, Any]) -> Condition:
        condition = super().encode(batch)
        pitch = batch.get("frame_pitch")
        if pitch is None:
            pitch = self.expected(batch).exp()
        picture = harmonics(pitch.float(), self.millihertz / 1000) * spoken(batch["frame_phones"])[:, None]
        patches = pixel_unshuffle(picture[:, None].to(self.dtype), self.config.patch)
        condition.residual = condition.residual + self.join(self.look(patches))
        return condition

    def own_loss(self, batch: dict[str, Any]) -> Tensor:
        """Mean |ln Hz| by which the expected pitch is off where something is said; added to a training's.

        Raises UserError when the batch does not say the pitch.
        """
        if "frame_pitch" not in batch:
            raise UserError("data.train.pitch=null: the adapter is told the pitch (expected a file, which is "
                            "made when it is not there; adapter=aligned does without)")
        weight = spoken(batch["frame_phones"]).float()
        off = (self.expected(batch).float() - batch["frame_pitch"].clamp(min=1).log()).abs()
        return (off * weight).sum() / weight.sum().clamp(min=1)


def pitched_adapter(base: str | Path | None = None, autoencoder: str | Path | None = None,
                    **adapter: Any) -> PitchedAdapter:
    """A PitchedAdapter that looks at harmonics as the autoencoder looks at pictures.

    Args:
        base: folder of a trained adapter, aligned or pitched, to go on from; what an aligned one says stays
            the same until more is trained. Without one the adapter is fresh, of the sizes in `adapter`.
        autoencoder: folder of a PatchAutoencoder whose coefficients are the features of harmonics at first;
            None leaves them as they are in a pitched base, or random.

    Raises UserError on a folder that is not there or does not fit.
    """
    for key, folder in (("base", base), ("autoencoder", autoencoder)):
        if folder is not None and not (Path(folder) / "config.json").exists():
            raise UserError(f"model.conditioner.{key}={folder}: no such folder")
    if base is None:
        made = PitchedAdapter(**adapter)
    else:
        name = read_json(Path(base) / "config.json")["_class_name"]
        trained = (PitchedAdapter if name == "PitchedAdapter" else AlignedAdapter).from_pretrained(
            base, torch_dtype=torch.float32)
        sizes = {key: value for key, value in trained.config.items() if not key.startswith("_")}
        made = PitchedAdapter(**{**adapter, **sizes})
        if not made.spread.weight.is_meta:  # check=true counts parameters and holds none
            made.load_state_dict(trained.state_dict(), strict=False)
    if autoencoder is not None:
        basis = PatchAutoencoder.from_pretrained(autoencoder, torch_dtype=torch.float32).basis
        if basis.shape != made.look.weight.shape[:2]:
            raise UserError(f"model.conditioner.autoencoder={autoencoder}: {tuple(basis.shape)} coefficients "
                            f"of pixels (expected {tuple(made.look.weight.shape[:2])}: waves, patch²)")
        made.look.weight.data.copy_(basis[:, :, None, None])
    return made


class PublishedAdapter(PhonemeAdapter):
    """The published adapter to the letter: norm(W e + b) of one embedding of the whole phrase, repeated.

    Its parameters have the published names. A batch carries "embedding" (B, features), or phones' embeddings,
    whose mean is taken. It knows no voices.
    """

    @register_to_config
    def __init__(self, features: int = 768, width: int = 768, tokens: int = 77):
        super().__init__()
        self.proj = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)

    def encode(self, batch: dict[str, Any]) -> Condition:
        embedding = (batch["embedding"] if "embedding" in batch
                     else masked_mean(batch["phone_embedding"], batch["phone_mask"]))
        token = self.norm(self.proj(embedding.to(self.proj.weight.dtype)))
        tokens = token[:, None].expand(-1, self.config.tokens, -1)
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


ADAPTERS = {"pooled": PooledAdapter, "sequence": SequenceAdapter, "aligned": AlignedAdapter,
            "pitched": PitchedAdapter, "published": PublishedAdapter}
