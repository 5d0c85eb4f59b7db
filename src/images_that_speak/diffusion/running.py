"""How a family's networks are run on a device: attention, compilation, memory layout, tiling, offloading.

None of it changes what is generated beyond rounding, but for the autoencoder's tiles, whose borders are
blended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import UserError, nearest

ATTENTION = ("sdpa", "eager", "sliced")
COMPILE = ("default", "reduce-overhead", "max-autotune")


@dataclass(frozen=True)
class Running:
    """Settings of the UNets and of the autoencoder.

    attention: of the UNets. "sdpa" is torch's fused attention, "eager" plain products, "sliced" one head
        after the other (least memory without fused kernels).
    compile: mode of torch.compile for the UNets, or None. The first batch of each size then takes minutes.
    channels_last: weights and feature maps with channels last, which tensor cores like.
    vae_tiling: the autoencoder decodes tiles of the picture one after the other.
    offload: weights wait in the CPU's memory and every layer is brought to the device when it is needed.
    """

    attention: str = "sdpa"
    compile: str | None = None
    channels_last: bool = False
    vae_tiling: bool = False
    offload: bool = False

    def __post_init__(self) -> None:
        if self.attention not in ATTENTION:
            raise UserError(f"family.running.attention={self.attention!r}: expected one of "
                            f"{', '.join(ATTENTION)}.{nearest(self.attention, ATTENTION)}")
        if self.compile is not None and self.compile not in COMPILE:
            raise UserError(f"family.running.compile={self.compile!r}: expected null or one of "
                            f"{', '.join(COMPILE)}.{nearest(self.compile, COMPILE)}")
        if self.compile is not None and self.offload:
            raise UserError(f"family.running.compile={self.compile}, family.running.offload=true: layers "
                            "that move cannot be compiled; give one of them")

    def unet(self, unet: Any, device: torch.device) -> Any:
        """`unet` on `device`, run as said."""
        from diffusers.models import attention_processor as processors

        if self.attention == "eager":
            unet.set_attn_processor(processors.AttnProcessor())
        elif self.attention == "sliced":
            unet.set_attn_processor(processors.SlicedAttnProcessor(slice_size=1))
        unet = self.module(unet, device)
        if self.compile is not None and device.type != "meta":
            unet.compile(mode=self.compile)
        return unet

    def autoencoder(self, vae: Any, device: torch.device) -> Any:
        """`vae` on `device`, run as said. Raises UserError where it cannot be tiled."""
        if self.vae_tiling:
            if not hasattr(vae, "enable_tiling"):
                raise UserError(f"family.running.vae_tiling=true: {type(vae).__name__} has no tiles")
            vae.enable_tiling()
        return self.module(vae, device)

    def module(self, module: nn.Module, device: torch.device) -> nn.Module:
        """`module` on `device`, or ready to be brought there layer by layer."""
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if not self.offload or device.type == "meta":
            return module.to(device)
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(module, onload_device=device, offload_type="leaf_level",
                               use_stream=device.type == "cuda")
        return module
