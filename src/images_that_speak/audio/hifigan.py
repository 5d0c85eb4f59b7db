"""The HiFi-GAN generator (Kong et al. 2020), and reading and writing its published checkpoints."""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils import parametrizations

from ..errors import UserError, nearest
from ..files import atomic_path, read_json, write_json
from .mel import MEL
from .vocoder_base import CONFIG, Vocoder, load_strictly

# What the published vocoders call the keys of the mel spec; they do not store floor, ceil and frames.
PUBLISHED_SPEC = {"sampling_rate": "sample_rate", "n_fft": "n_fft", "hop_size": "hop", "win_size": "win",
                  "num_mels": "n_mels", "fmin": "fmin", "fmax": "fmax"}

SLOPE = 0.1  # of the leaky ReLUs, except the last one

# Settings of the three published sizes, with upsampling rates that multiply to our hop of 160.
VARIANTS: dict[str, dict[str, Any]] = {
    "v1": {"resblock": "1", "upsample_rates": [5, 4, 4, 2], "upsample_kernel_sizes": [10, 8, 8, 4],
           "upsample_initial_channel": 512, "resblock_kernel_sizes": [3, 7, 11],
           "resblock_dilation_sizes": [[1, 3, 5]] * 3},
    "v2": {"resblock": "1", "upsample_rates": [5, 4, 4, 2], "upsample_kernel_sizes": [10, 8, 8, 4],
           "upsample_initial_channel": 128, "resblock_kernel_sizes": [3, 7, 11],
           "resblock_dilation_sizes": [[1, 3, 5]] * 3},
    "v3": {"resblock": "2", "upsample_rates": [8, 5, 4], "upsample_kernel_sizes": [16, 10, 8],
           "upsample_initial_channel": 256, "resblock_kernel_sizes": [3, 5, 7],
           "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]]},
}


def normed(layer: nn.Module, weight_norm: bool, std: float | None = None) -> nn.Module:
    """`layer`, its weight drawn with deviation `std` if given, with weight normalisation if asked."""
    if std is not None:
        nn.init.normal_(layer.weight, std=std)  # type: ignore[arg-type]
    return parametrizations.weight_norm(layer) if weight_norm else layer


class ResBlock1(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a shortcut. (B, C, T) → (B, C, T)."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], weight_norm: bool):
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            return normed(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding="same"),
                          weight_norm, 0.01)

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(leaky_relu(dilated(leaky_relu(x, SLOPE)), SLOPE))
        return x


class ResBlock2(nn.Module):
    """Dilated convolutions, each with a shortcut. (B, C, T) → (B, C, T)."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], weight_norm: bool):
        super().__init__()
        self.convs = nn.ModuleList(
            normed(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding="same"),
                   weight_norm, 0.01) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(leaky_relu(x, SLOPE))
        return x


class HiFiGAN(Vocoder):
    """Transposed convolutions up to the sampling rate, after each the mean of several residual blocks.

    Parameter names and order are the published ones. The arguments are called as in its config.json.

    Args:
        upsample_rates: must multiply to the hop, 160.
        upsample_kernel_sizes: one for each rate, at least as large; odd differences are allowed.
        upsample_initial_channel: halved by every upsampling.
        resblock: "1" or "2".
        weight_norm: for training; a generator that only plays has plain weights.
    """

    architecture = "hifigan"

    def __init__(self, resblock: str = "1", upsample_rates: Sequence[int] = (5, 4, 4, 2),
                 upsample_kernel_sizes: Sequence[int] = (10, 8, 8, 4), upsample_initial_channel: int = 512,
                 resblock_kernel_sizes: Sequence[int] = (3, 7, 11),
                 resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
                 weight_norm: bool = True):
        super().__init__()
        self.config = {
            "resblock": str(resblock), "upsample_rates": list(upsample_rates),
            "upsample_kernel_sizes": list(upsample_kernel_sizes),
            "upsample_initial_channel": upsample_initial_channel,
            "resblock_kernel_sizes": list(resblock_kernel_sizes),
            "resblock_dilation_sizes": [list(dilations) for dilations in resblock_dilation_sizes]}
        check_generator(self.config, self.spec.hop)
        block = ResBlock1 if str(resblock) == "1" else ResBlock2
        channels = upsample_initial_channel
        self.conv_pre = normed(nn.Conv1d(self.spec.n_mels, channels, 7, padding=3), weight_norm)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            # T frames must give exactly rate · T: (T − 1)·rate − 2·padding + kernel + output_padding.
            odd = (kernel - rate) % 2
            self.ups.append(normed(nn.ConvTranspose1d(channels, channels // 2, kernel, rate,
                                                      padding=(kernel - rate + odd) // 2, output_padding=odd),
                                   weight_norm, 0.01))
            channels //= 2
            self.resblocks.extend(block(channels, size, dilations, weight_norm) for size, dilations
                                  in zip(resblock_kernel_sizes, resblock_dilation_sizes, strict=True))
        self.conv_post = normed(nn.Conv1d(channels, 1, 7, padding=3), weight_norm, 0.01)

    @classmethod
    def variant(cls, name: str, **changes: Any) -> HiFiGAN:
        """The published size `v1`, `v2` or `v3`, with changed settings if given."""
        if name not in VARIANTS:
            raise UserError(f"HiFi-GAN variant {name!r}: expected one of {', '.join(VARIANTS)}."
                            f"{nearest(name, VARIANTS)}")
        return cls(**{**VARIANTS[name], **changes})

    def forward(self, logmel: Tensor) -> Tensor:
        """(B, n_mels, F) → (B, F · hop) in (-1, 1)."""
        self.check_logmel(logmel)
        x = self.conv_pre(logmel)
        kinds = len(self.config["resblock_kernel_sizes"])
        for i, up in enumerate(self.ups):
            x = up(leaky_relu(x, SLOPE))
            x = sum(block(x) for block in self.resblocks[i * kinds: (i + 1) * kinds]) / kinds
        return torch.tanh(self.conv_post(leaky_relu(x)))[:, 0]


def check_generator(config: Mapping[str, Any], hop: int) -> None:
    """Raise UserError, naming every key that is wrong, when `config` makes no generator of this hop."""
    rates, kernels = config["upsample_rates"], config["upsample_kernel_sizes"]
    wrong = []
    if config["resblock"] not in ("1", "2"):
        wrong.append(f"resblock={config['resblock']!r} (expected 1 or 2)")
    if math.prod(rates) != hop:
        wrong.append(f"upsample_rates={rates} multiply to {math.prod(rates)} (expected the hop, {hop})")
    if len(kernels) != len(rates) or any(k < r for k, r in zip(kernels, rates, strict=False)):
        wrong.append(f"upsample_kernel_sizes={kernels} (expected one for each of upsample_rates={rates}, "
                     "none smaller)")
    if config["upsample_initial_channel"] % 2 ** len(rates):
        wrong.append(f"upsample_initial_channel={config['upsample_initial_channel']} (expected a multiple of "
                     f"{2 ** len(rates)}: it is halved {len(rates)} times)")
    if len(config["resblock_kernel_sizes"]) != len(config["resblock_dilation_sizes"]):
        wrong.append("resblock_dilation_sizes (expected one list for each of resblock_kernel_sizes)")
    if any(size % 2 == 0 for size in config["resblock_kernel_sizes"]):
        wrong.append(f"resblock_kernel_sizes={config['resblock_kernel_sizes']} (expected odd sizes)")
    if wrong:
        raise UserError("HiFi-GAN generator: " + "; ".join(wrong))


# Published checkpoints were written with torch's old weight normalisation, later ones with its
# parametrisation; spectral normalisation (of one discriminator) likewise.
_WEIGHT = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
_SPECTRAL = {"weight_orig": "parametrizations.weight.original", "weight_u": "parametrizations.weight.0._u",
             "weight_v": "parametrizations.weight.0._v"}


def new_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with old weight-norm and spectral-norm names → torch's parametrisation names.

    Names that are new already stay. `weight_v` is a direction under weight norm and a singular vector under
    spectral norm; a `weight_orig` beside it tells which.
    """
    renamed = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        names = _SPECTRAL if f"{stem}.weight_orig" in state else _WEIGHT
        renamed[f"{stem}.{names[leaf]}" if leaf in names else name] = value
    return renamed


def old_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `new_names`: the names that the published code loads."""
    endings = {new: old for names in (_WEIGHT, _SPECTRAL) for old, new in names.items()}
    renamed = {}
    for name, value in state.items():
        stem, marker, rest = name.partition("parametrizations.")
        renamed[stem + endings[marker + rest] if marker else name] = value
    return renamed


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace every normalised pair g, v (old or new names) by the weight g · v / ‖v‖ it stands for."""
    state = new_names(state)
    g_name, v_name = _WEIGHT["weight_g"], _WEIGHT["weight_v"]
    folded = {}
    for name, value in state.items():
        if name.endswith(g_name):
            stem = name[: -len(g_name)]
            # The private function is what both of torch's weight norms compute, so folding changes no bit.
            folded[f"{stem}weight"] = torch._weight_norm(state[stem + v_name], value, 0)
        elif not name.endswith(v_name):
            folded[name] = value
    return folded


def published_files(path: Path) -> tuple[Path, Path]:
    """The config.json and the generator's checkpoint that `path`, a folder or the checkpoint, stands for."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        found = [*sorted(folder.glob("g_????????")), *folder.glob("vocoder.pt")]
        if not found:
            raise UserError(f"{folder}: holds no vocoder (expected model.safetensors, vocoder.pt or "
                            "g_<steps>)")
        path = found[-1]
    return folder / CONFIG, path


def check_published_spec(config: dict[str, Any], where: object) -> None:
    """Compare the mel keys of a published vocoder's config.json with ours; UserError when they differ.

    A key the file lacks is taken as agreeing, except the number of bands.
    """
    theirs = {**MEL.to_dict(), "n_mels": None}
    for name, key in PUBLISHED_SPEC.items():
        if name in config:
            theirs[key] = MEL.fmax if name == "fmax" and config[name] is None else config[name]
    MEL.check(theirs, where)


def read_generator_config(path: Path) -> dict[str, Any]:
    """The generator's settings in a published config.json, its mel spec checked."""
    config = read_json(path)
    check_published_spec(config, path)
    keys = VARIANTS["v1"]
    lacking = [key for key in keys if key not in config]
    if lacking:
        raise UserError(f"{path}: no key {', '.join(lacking)} (expected a HiFi-GAN config)")
    return {key: config[key] for key in keys}


def torch_load(path: Path, mapped: bool = False) -> Any:
    """`torch.load` of tensors and plain containers only; anything else is a UserError naming the file.

    mapped: leave the numbers in the file until they are used, where its format allows it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True,
                          mmap=mapped and zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except pickle.UnpicklingError as error:  # whose advice is to load it all the same
        raise UserError(f"{path}: not a readable checkpoint of plain weights (it is damaged, or holds more "
                        "than weights)") from error
    except (RuntimeError, EOFError, OSError, json.JSONDecodeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a readable checkpoint of plain weights ({reason})") from error


def load_published(path: str | Path, weight_norm: bool = False) -> HiFiGAN:
    """A generator from a checkpoint {"generator": state} beside its config.json; see `load_vocoder`.

    With `weight_norm` it is ready to be trained on. Raises UserError on files that do not fit.
    """
    config, checkpoint = published_files(Path(path))
    generator = HiFiGAN(**read_generator_config(config), weight_norm=weight_norm)
    content = torch_load(checkpoint)
    if not isinstance(content, dict) or "generator" not in content:
        raise UserError(f"{checkpoint}: no key generator (expected a HiFi-GAN generator's checkpoint)")
    state = content["generator"]
    load_strictly(generator, new_names(state) if weight_norm else fold_weight_norm(state), checkpoint)
    return generator


def save_published(generator: HiFiGAN, folder: str | Path, steps: int = 0, name: str | None = None) -> Path:
    """Write config.json and `g_<steps>` (or `name`, such as vocoder.pt) as the published code reads them.

    The generator must carry weight norm, as the published code expects it. Returns the checkpoint's path.
    """
    state = old_names(generator.state_dict())
    if not any(key.endswith("weight_g") for key in state):
        raise UserError(f"{folder}: the published layout holds weight norm (expected a generator with it)")
    spec = generator.spec.to_dict()
    path = Path(folder) / (name or f"g_{steps:08d}")
    with atomic_path(path) as temporary:
        torch.save({"generator": {key: value.detach().cpu() for key, value in state.items()}}, temporary)
    write_json(Path(folder) / CONFIG, {
        **generator.config, **{theirs: spec[ours] for theirs, ours in PUBLISHED_SPEC.items()},
        "segment_size": 8192, "num_freq": MEL.n_fft // 2 + 1})
    return path
