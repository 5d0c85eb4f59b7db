"""The networks that speaking pictures take, each loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from omegaconf import DictConfig

from ..audio.vocoder import load_vocoder
from ..diffusion.family import Family, find_device
from ..diffusion.layout import Layout
from ..speech.durations import DurationModel
from .draw import load_colorizer


@dataclass
class Networks:
    """What `cfg` names: parts of the family, its vocoder, its model of durations and the colorizer.

    One that is kept serves any number of makers whose configurations differ in nothing of this. Not to be
    used from several threads at once.
    """

    cfg: DictConfig
    layout: Layout
    _family: Family | None = field(default=None, repr=False)
    _parts: set[str] = field(default_factory=set, repr=False)

    def family(self, parts: Iterable[str]) -> Family:
        """The family with at least `parts`. Raises UserError as `Family.load`."""
        lacking = [part for part in parts if part not in self._parts]
        if self._family is None or lacking:
            torch.set_float32_matmul_precision(self.cfg.precision.matmul)
            loaded = Family.load(self.layout, lacking, device=self.cfg.device, dtype=self.cfg.precision.dtype)
            if self._family is None:
                self._family = loaded
            else:
                self._family.adopt(loaded)
            self._parts.update(lacking)
        return self._family

    @cached_property
    def colorizer(self) -> Any:
        """The colour model of drawings; None where the configuration has none."""
        return load_colorizer(self.cfg.get("colorizer"), self.cfg.device)

    @cached_property
    def vocoder(self) -> Any:
        """What plays the pictures."""
        return load_vocoder(self.cfg.vocoder.path or self.layout.vocoder).to(find_device(self.cfg.device))

    @cached_property
    def durations(self) -> DurationModel | None:
        """What says how long phones sound; None where the speech branch is not told."""
        return DurationModel.from_pretrained(self.layout.durations) if self.layout.durations else None
