"""Where things lie in a picture, as a condition: the image branch's counterpart of phonemes with their times.

A caption alone says what is drawn; where, how large and how bright is then left to the noise, and a small
network learns what the words mean only after it has learnt all of that. A scene tells it: squares in which
the copies lie. At every latent cell of a square the text is joined with the cell's place within the square,
so that drawing becomes looking up (what, where), as speaking became looking up (phoneme, how far it has
gone).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ..errors import UserError
from ..weights import finite
from .condition import Condition, Conditioner, Input
from .squares import COPIES, FIELDS, cell_coordinates, scene_cells
from .text import TextConditioner


class SceneAdapter(ModelMixin, ConfigMixin):
    """Squares and a pooled text → a residual on the UNet's first feature map.

    A perceptron at every cell of a square reads the place within it (Fourier features, Tancik et al. 2020),
    the square's size and brightness; the text scales and shifts each of its layers (FiLM, Perez et al.
    2018). A mirrored copy has the place it had before, and what is odd about a patch changes its sign. The
    last layer starts at zero.

    Args:
        channels: of the UNet's first feature map. width: of the pooled text. rows, columns: the latent's
        height and width. hidden, layers: of the perceptron. octaves: of the Fourier features.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, channels: int = 96, width: int = 128, rows: int = 16, columns: int = 64,
                 hidden: int = 256, layers: int = 4, octaves: int = 6):
        super().__init__()
        self.first = nn.Linear(4 * octaves + 4, hidden)
        self.mix = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.film = nn.Linear(width, 2 * hidden * (layers + 1))
        self.last = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def modulation(self, pooled: Tensor) -> Tensor:
        """(…, width) pooled texts → (…, layers + 1, 2, hidden) scales and shifts."""
        return self.film(pooled.to(self.film.weight.dtype)).unflatten(-1, (len(self.mix) + 1, 2, -1))

    def describe(self, place: Tensor, square: Tensor, film: Tensor) -> Tensor:
        """What is at cells: places (…, 2), their squares (…, 5), their modulation → (…, channels)."""
        octave = math.pi * 2.0 ** torch.arange(-1, self.config.octaves - 1, device=place.device)
        waves = (place[..., None] * octave).flatten(-2)
        features = torch.cat([waves.sin(), waves.cos(), place, square[..., 2:3], square[..., 4:5]], -1)
        hidden = self.first(features.to(film.dtype))
        hidden = nn.functional.gelu(hidden * (1 + film[..., 0, 0, :]) + film[..., 0, 1, :])
        for number, layer in enumerate(self.mix, 1):
            said = layer(hidden) * (1 + film[..., number, 0, :]) + film[..., number, 1, :]
            hidden = hidden + nn.functional.gelu(said)
        even, odd = self.last(hidden).chunk(2, -1)
        return even + odd * (1 - 2 * square[..., 3:4]).to(odd.dtype)

    def forward(self, scene: Tensor, pooled: Tensor, columns: int | None = None) -> Tensor:
        """(B, N, 5) squares (FIELDS), (B, width) pooled texts → (B, channels, rows, columns)."""
        rows, columns = self.config.rows, columns or self.config.columns
        place, nearest = cell_coordinates(scene, rows, columns)
        cells = scene_cells(scene, rows, columns)[:, 0]
        owner = torch.arange(len(scene), device=scene.device)[:, None, None].expand_as(cells)[cells]
        said = self.describe(place.permute(0, 2, 3, 1)[cells], scene[owner, nearest[:, 0][cells]],
                             self.modulation(pooled)[owner])
        residual = said.new_zeros(len(scene), rows, columns, self.config.channels)
        residual[cells] = said
        return residual.permute(0, 3, 1, 2)


def pocket_scene_conditioner(text_encoder: str | Path, tokenizer: str | Path,
                             scene: str | Path | None = None, **adapter: Any) -> SceneConditioner:
    """A trained text encoder with its tokenizer, and a scene adapter from a folder or, without one, fresh.

    adapter: sizes of a fresh one, as SceneAdapter takes them. Raises UserError on a missing folder.
    """
    for key, folder in (("text_encoder", text_encoder), ("tokenizer", tokenizer), ("scene", scene)):
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"model.conditioner.{key}={folder}: no such folder (python train.py "
                            f"experiment=pocket/{'image' if key == 'scene' else 'text'} makes it)")
    text = TextConditioner(finite(CLIPTextModel.from_pretrained(text_encoder, torch_dtype=torch.float32),
                                  text_encoder), CLIPTokenizer.from_pretrained(tokenizer))
    if scene is not None:
        return SceneConditioner(
            text, finite(SceneAdapter.from_pretrained(scene, torch_dtype=torch.float32), scene))
    return SceneConditioner(text, SceneAdapter(width=text.text_encoder.config.hidden_size, **adapter))


class SceneConditioner(Conditioner):
    """A text encoder, or whatever else says in one vector what is drawn, and a scene adapter.

    A batch carries what `text` reads, "input_ids" (B, L) where it is a text encoder; perhaps "scene"
    (B, COPIES, 5) (without it nothing has a place); and, where a window is wanted, "columns".
    """

    def __init__(self, text: Conditioner, scene: SceneAdapter):
        super().__init__()
        self.text, self.scene = text, scene

    @property
    def text_encoder(self) -> Any:
        assert isinstance(self.text, TextConditioner)
        return self.text.text_encoder

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        return self.text.tokenizer

    @property
    def inputs(self) -> dict[str, Input]:
        squares = Input(0, (COPIES, len(FIELDS)), torch.float32, need="training")
        return {**self.text.inputs, "scene": squares}

    def tokenize(self, captions: list[str]) -> Tensor:
        assert isinstance(self.text, TextConditioner)
        return self.text.tokenize(captions)

    def encode(self, batch: dict[str, Any]) -> Condition:
        condition = self.text.encode(batch)
        assert condition.pooled is not None
        scene = batch.get("scene")
        if scene is None:
            scene = condition.pooled.new_zeros(len(condition), COPIES, len(FIELDS))
        condition.residual = self.scene(scene.float(), condition.pooled, batch.get("columns"))
        return condition

    def export(self, folder: Path, save: Callable[[Any, Path], None]) -> None:
        self.text.export(folder, save)
        if any(weight.requires_grad for weight in self.scene.parameters()):
            save(self.scene, folder / "scene")
