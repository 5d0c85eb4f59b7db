"""The squares of a scene: what is said of each, and which cells of a picture lie in them.

Apart from scene.py, so that planning a scene loads none of the libraries that networks are built with.
"""

from __future__ import annotations

import torch
from torch import Tensor

COPIES = 5  # squares of a scene; those without size are no copies
FIELDS = ("x", "y", "size", "mirrored", "brightness")


def cell_coordinates(scene: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """(B, N, 5) squares → (B, 2, rows, columns) place within the nearest square, and (B, 1, …) its index.

    x, y: a square's middle in units of the picture's height, from the left and from the top; size: its side;
    mirrored: 1 where the copy is flipped left to right. The place runs from −1 to 1 across the square, left
    to right of the copy as it was drawn, and is beyond that outside; "nearest" is the square whose place is
    smallest in magnitude. The picture is `rows` cells high.
    """
    step = 1 / rows
    y = (torch.arange(rows, device=scene.device) + 0.5) * step
    x = (torch.arange(columns, device=scene.device) + 0.5) * step
    size = scene[..., 2].clamp(min=1e-6) / 2
    v = (y - scene[..., 1, None]) / size[..., None]
    u = (x - scene[..., 0, None]) / size[..., None] * (1 - 2 * scene[..., 3, None])
    place = torch.stack([u[..., None, :].expand(-1, -1, rows, -1),
                         v[..., None].expand(-1, -1, -1, columns)], 2)
    far = place.abs().amax(2) + 1e9 * (scene[..., 2] <= 0)[..., None, None]
    nearest = far.argmin(1, keepdim=True)
    return place.gather(1, nearest[:, :, None].expand(-1, -1, 2, -1, -1))[:, 0], nearest


def scene_cells(scene: Tensor, rows: int, columns: int, margin: float = 0.5) -> Tensor:
    """(B, N, 5) squares → (B, 1, rows, columns) bool: cells that a square or its margin
    (in cells) touches."""
    step = 1 / rows
    y = (torch.arange(rows, device=scene.device) + 0.5) * step
    x = (torch.arange(columns, device=scene.device) + 0.5) * step
    reach = (scene[..., 2] / 2 + margin * step)[..., None]
    there = (scene[..., 2] > 0)[..., None]
    near_y = ((y - scene[..., 1, None]).abs() < reach) & there
    near_x = (x - scene[..., 0, None]).abs() < reach
    return (near_y[..., :, None] & near_x[..., None, :]).any(1, keepdim=True)
