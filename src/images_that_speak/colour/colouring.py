"""Colouring the samples of a run: image.png → colour.png, of the same luminance and so of the same sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch.nn.functional import interpolate
from tqdm import tqdm

from ..audio.picture import SHAPE, luminance, quantise, read_pixels, to_grid
from ..config import instantiate
from ..diffusion.colorization import Colorizer, paint
from ..errors import UserError
from ..files import atomic_path, content_hash, file_hash, read_json, shortest, write_json
from ..runs.sample import Sample, samples_of


def colour(cfg: DictConfig) -> dict[str, Any]:
    """Write colour.png, and colour.json which says what it was made from, into every sample folder.

    Samples that have theirs, from the same picture by the same settings, are left alone. The networks are
    loaded only when there is something to do. Raises UserError on bad input before that.
    """
    colorizer: Colorizer = instantiate(cfg.colorizer)
    identity = {"saturation": float(cfg.saturation), **colorizer.identity}
    folders = samples_of(cfg.run)
    if not folders:
        raise UserError(f"run={cfg.run}: holds no sample yet; the command that made it goes on with it")
    folders = colourless(folders)
    wanted = {folder: {**identity, "image": file_hash(folder / "image.png")} for folder in folders}
    missing = [folder for folder in folders if not _is_there(folder, wanted[folder])]
    if missing:
        colorizer.load(cfg.device)
    for folder in tqdm(missing, unit="sample", desc="colouring", leave=False):
        record = Sample.read(folder).record
        gray = luminance(read_pixels(folder / "image.png"))
        prompt = record.get("drawn") or record["image_prompt"]
        chroma = chroma_of(colorizer, gray, prompt, int(record["seed"]))
        write_colour(folder, gray, cfg.saturation * chroma, wanted[folder])
    where = shortest(cfg.run)
    print(f"{len(missing)} of {len(folders)} samples coloured, the others are there already: {where}"
          if len(missing) < len(folders) else f"{len(folders)} samples coloured: {where}")
    return {"samples": len(folders), "made": len(missing)}


def colourless(folders: Sequence[Path]) -> list[Path]:
    """The samples that can be coloured; of the others it is printed why they are left as they are."""
    why: dict[str, list[str]] = {}
    found = []
    for folder in folders:
        pixels, record = read_pixels(folder / "image.png"), Sample.read(folder).record
        if (pixels != pixels[..., :1]).any():
            why.setdefault("in colour already", []).append(folder.name)
        elif not (record.get("drawn") or record.get("image_prompt")):
            why.setdefault("no image prompt says what they show", []).append(folder.name)
        else:
            found.append(folder)
    for reason, names in why.items():
        print(f"left as they are, {len(names)} of {len(folders)} samples ({reason}): {', '.join(names[:5])}"
              + (" …" if len(names) > 5 else ""))
    return found


def chroma_of(colorizer: Colorizer, gray: np.ndarray, prompt: str, seed: int) -> np.ndarray:
    """(H, W) uint8 of any size → (3, H, W), what a colorizer gives to the picture on the families' grid."""
    if gray.shape == SHAPE:
        return colorizer.chroma(gray, prompt, seed)
    small = quantise(to_grid(gray)[:, :SHAPE[1]] / 255)
    frames = small.shape[1]
    whole = np.pad(small, ((0, 0), (0, SHAPE[1] - frames)))
    chroma = torch.from_numpy(np.asarray(colorizer.chroma(whole, prompt, seed))[:, :, :frames]).float()
    return interpolate(chroma[None], gray.shape, mode="bilinear")[0].numpy()


def write_colour(folder: Path, gray: np.ndarray, chroma: np.ndarray, identity: dict[str, Any]) -> None:
    """Write colour.png of (H, W) uint8 and (3, H, W) chroma, then colour.json."""
    with atomic_path(folder / "colour.png") as temporary:
        Image.fromarray(paint(gray, chroma)).save(temporary, format="PNG")
    write_json(folder / "colour.json", {"settings": identity, "identity": content_hash(identity)})


def _is_there(folder: Path, identity: dict[str, Any]) -> bool:
    if not ((folder / "colour.png").is_file() and (folder / "colour.json").is_file()):
        return False
    try:
        return read_json(folder / "colour.json").get("identity") == content_hash(identity)
    except UserError:
        return False
