"""What a generation will take of memory and time, before a weight is read.

The networks are loaded without their weights and called once: their operations are counted, and the bytes of
what lives between them.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from .family import Family, find_device
from .layout import Layout
from .loading import DTYPES

LARGE = 1 << 30  # bytes of UNets from which on a generation says what it takes


@dataclass(frozen=True)
class Cost:
    """Of one call: floating-point operations, and the most bytes of feature maps alive at once."""

    flops: int
    bytes: int


class _Count(TorchDispatchMode):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.flops = self.now = self.peak = 0
        # Parameters and views of them are no feature maps.
        self.alive = {p.untyped_storage()._cdata: 0 for p in [*module.parameters(), *module.buffers()]}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.born(value)
        return out

    def born(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.died, storage._cdata)

    def died(self, key: int) -> None:
        self.now -= self.alive.pop(key)


class _Fused(TorchFunctionMode):
    """Counts attention as fused kernels do it: they never hold the matrix of all pairs, which meta would."""

    def __init__(self, counted: _Count):
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        self.counted.flops += 2 * query.numel() * key.shape[-2] * 2
        return torch.empty_like(query)


@torch.no_grad()
def cost(module: nn.Module, *args: Any, call: Callable[..., Any] | None = None) -> Cost:
    """What `module(*args)`, or a method `call` of it, takes; all its parameters are on the meta device."""
    with _Count(module) as counted, _Fused(counted):
        (call or module)(*args)
    return Cost(counted.flops, counted.peak)


@dataclass(frozen=True)
class Estimate:
    """Of a generation.

    weights: bytes of the networks' weights; 0 where they wait in the CPU's memory. maps: bytes of
    feature maps at the fullest moment. flops: of one sample, decoding included.
    """

    weights: int
    maps: int
    flops: int

    @property
    def memory(self) -> int:
        return self.weights + self.maps

    def lines(self, samples: int, device: torch.device, dtype: torch.dtype) -> list[str]:
        """What to tell a user: memory, and the least time at the speed of this device's matrix products."""
        rate = speed(device, dtype)
        seconds = self.flops * samples / rate
        told = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        lines = [f"about {self.memory / 2**30:.1f} GiB: weights {self.weights / 2**30:.1f}, feature maps "
                 f"{self.maps / 2**30:.1f}",
                 f"{self.flops / 1e12:.3g} TFLOP a sample; at least {told} in all at the {rate / 1e12:.2g} "
                 f"TFLOP/s that {device} does in matrix products"]
        free = free_memory(device)
        if free is not None and self.memory > free:
            lines.append(f"more than the {free / 2**30:.1f} GiB that are free on {device}: a smaller "
                         "batch_size, precision=bf16-true, family.running.vae_tiling=true or "
                         "family.running.offload=true")
        return lines


def parameters(module: nn.Module, trained: bool = False) -> int:
    """How many parameters a module has; with `trained` only those that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def held(module: nn.Module) -> int:
    """The bytes of a module's parameters in memory."""
    return sum(p.nbytes for p in module.parameters())


def estimate(family: Family, evaluations: int, batch_size: int) -> Estimate:
    """What generating with a family takes that was loaded without weights: its branches and autoencoder.

    Args:
        evaluations: UNet passes a sample takes.
        batch_size: samples denoised together; the passes with and without a condition are one call.
    """
    costs: dict[str, Cost] = {}
    shape = family.layout.latent_shape
    for predictor in family.predictors.values():
        unet = predictor.unet
        # Stable Diffusion's UNet and Auffusion's differ in their numbers alone.
        kind = repr({key: value for key, value in unet.config.items() if not key.startswith("_")})
        if kind not in costs:
            with torch.device("meta"):
                latents = torch.empty(2, *shape, dtype=unet.dtype)
                tokens = torch.empty(2, 77, unet.config.cross_attention_dim, dtype=unet.dtype)
                times = torch.empty(2, dtype=torch.long)
            costs[kind] = cost(unet, latents, times, tokens)
    vae = family.vae
    decoding = cost(vae, torch.empty(1, *shape, dtype=vae.dtype, device="meta"), call=vae.decode)
    weights = 0 if family.layout.running.offload else sum(map(held, family.networks.values()))
    dearest = max(costs.values(), key=lambda found: found.flops)
    maps = max(dearest.bytes * batch_size, decoding.bytes)
    return Estimate(weights, maps, dearest.flops * evaluations // 2 + decoding.flops)


def speed(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """Floating-point operations a second of matrix products on `device`, measured for about `seconds`."""
    size = 4096 if device.type == "cuda" else 512
    a = torch.randn(size, size, device=device, dtype=dtype)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    a @ a
    wait()
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        a @ a
        wait()
        done += 1
    return 2 * size**3 * max(done, 1) / spent


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU, or in this machine's memory; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            found = dict(line.split(":", 1) for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def announce(layout: Layout, settings: Any, cfg: Any, samples: int) -> None:
    """Print the estimate of a generation whose UNets are large enough for it to matter, before they are
    loaded.

    settings: of diffusion.planning.
    """
    files = (file for branch in settings.branches for file in layout.unet[branch].iterdir())
    if sum(file.stat().st_size for file in files) < LARGE:
        return
    family = Family.load(replace(layout, lora=None), (*settings.branches, "vae"), device=cfg.device,
                         dtype=cfg.precision.dtype, weights=False)
    guess = estimate(family, settings.evaluations, min(cfg.batch_size, samples))
    print("\n".join(guess.lines(samples, find_device(cfg.device), DTYPES[cfg.precision.dtype])))
