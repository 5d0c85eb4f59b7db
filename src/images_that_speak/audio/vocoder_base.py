"""What every vocoder is: a log-mel, or a picture, comes in and sound goes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..weights import check_finite
from .mel import MEL, LogMel, MelSpec, picture_to_logmel

CONFIG = "config.json"


class Vocoder(nn.Module, ABC):
    """What turns a log-mel into sound.

    architecture: its name in the config.json of its folder; of a class of one's own, "module.Class". trained:
    whether it plays with weights. config: what builds it again.
    """

    architecture: str = ""
    trained: bool = True
    spec: MelSpec = MEL
    config: dict[str, Any]

    @abstractmethod
    def forward(self, logmel: Tensor) -> Tensor:
        """Log-mel (B, n_mels, F) in nats → wave (B, F · hop)."""

    def check_logmel(self, logmel: Tensor) -> None:
        """Raise UserError when `logmel` is not (B, n_mels, F) with at least one frame."""
        if logmel.ndim != 3 or logmel.shape[1] != self.spec.n_mels or not logmel.shape[2]:
            raise UserError(f"log-mel of shape {tuple(logmel.shape)}: expected "
                            f"(batch, {self.spec.n_mels}, frames)")

    @torch.no_grad()
    def decode_picture(self, picture: Tensor | np.ndarray) -> Tensor:
        """Play pictures (B, n_mels, F): uint8 luminance, or floats in [0, 1], which are rounded to 8 bits.

        The picture is the message, so what is played is what an 8-bit file of it holds.

        Returns the wave (B, F · hop) float32 on the vocoder's device. Raises UserError on NaN, other types
        and other shapes.
        """
        return self.decode_message(picture, rounded=True)

    @torch.no_grad()
    def decode_message(self, picture: Tensor | np.ndarray, rounded: bool = False) -> Tensor:
        """`decode_picture` of what `audio.picture.to_grid` made of 8-bit pictures: floats stay as they are.

        rounded: bring floats to 8 bits, as `decode_picture` does.
        """
        if isinstance(picture, np.ndarray) and not picture.flags.writeable:
            picture = picture.copy()  # torch warns of memory that it may not write to
        picture = torch.as_tensor(picture)
        if picture.dtype == torch.uint8:
            picture = picture.float() / 255
        elif not picture.is_floating_point():
            raise UserError(f"picture of {picture.dtype}: expected uint8 or floats in [0, 1]")
        elif not torch.isfinite(picture).all():
            raise UserError("picture: holds NaN or infinity (expected values in [0, 1])")
        else:
            picture = picture.float().clamp(0, 1)
            picture = (picture * 255).round() / 255 if rounded else picture
        if picture.ndim != 3:
            raise UserError(f"picture of shape {tuple(picture.shape)}: expected "
                            f"(batch, {self.spec.n_mels}, frames)")
        device = next(iter([*self.parameters(), *self.buffers()])).device
        return self(picture_to_logmel(picture.to(device), self.spec)).float()


def inverse_filters(spec: MelSpec = MEL) -> Tensor:
    """The pseudo-inverse (n_fft/2+1, n_mels) of the mel filters. Its products with a mel can be negative."""
    # In float64, for the mel it is multiplied with spans seven powers of ten.
    return torch.linalg.pinv(LogMel(spec).filters.double()).float()


def load_strictly(module: nn.Module, state: dict[str, Tensor], where: object) -> None:
    """`module.load_state_dict(state)`; UserError naming the file when names or shapes do not fit, or a
    weight is no number."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{where}: does not fit its config ({detail[:300]})") from error
    check_finite(state, where)
