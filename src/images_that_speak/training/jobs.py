"""The steps of a family that Lightning does not train: `model.job` of an experiment, (cfg, run) → result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..config import instantiate
from ..errors import UserError
from ..figures import declares
from ..runs import Run


def _options(cfg: DictConfig) -> dict[str, Any]:
    """What `model` says beside which job it is."""
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    return {key: value for key, value in model.items() if key != "job"}


def tokenizer(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Learn the text encoder's codes from the captions."""
    from ..data.tokenizer import build_tokenizer

    built = build_tokenizer(run.dir / "weights" / "tokenizer", cfg.model.vocab_size)
    return {"tokens": len(built)}


@declares("phone_error", "word_error")
def letters(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Count what letters sound like, in the dictionary."""
    from .letters import fit_dictionary

    model, (phone_error, word_error) = fit_dictionary(seed=cfg.seed, **_options(cfg))
    model.save_pretrained(run.dir / "weights" / "letters")
    return {"phone_error": phone_error, "word_error": word_error}


def autoencoders(cfg: DictConfig) -> tuple[Any, Any]:
    """The patch autoencoder that `basis` computes, not computed yet, and the one that it extends or None."""
    from ..networks.autoencoder import PatchAutoencoder
    from ..weights import finite

    options = _options(cfg)
    extends = options.pop("extends")
    if extends is not None and not (Path(extends) / "config.json").exists():
        raise UserError(f"model.extends={extends}: no autoencoder (expected a folder with its config.json)")
    base = None if extends is None else finite(PatchAutoencoder.from_pretrained(extends), extends)
    return PatchAutoencoder(**options), base


@declares("variance_kept")
def basis(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Compute the patch autoencoder's transform from crops; its correction is trained afterwards."""
    import torch

    from .export import save_half

    torch.manual_seed(cfg.seed)
    vae, base = autoencoders(cfg)
    pictures = torch.cat([batch["picture"] for batch in instantiate(cfg.data)])
    kept = vae.fit(pictures * 2 - 1, base)
    if base is not None and vae.correction is not None and base.correction is not None:
        vae.correction.load_state_dict(base.correction.state_dict())
    save_half(vae, run.dir / "weights" / "vae")
    return {"variance_kept": kept, "crops": len(pictures)}


def family_folder(folder: str | None) -> Path:
    """The folder whose parts `bind` binds. Raises UserError where it is none."""
    if folder is None or not Path(folder).is_dir():
        raise UserError(f"model.folder={folder or 'null'}: expected the folder of a family's parts, such as "
                        "weights/pocket")
    return Path(folder)


def bind(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Write `family.json` and `scheduler/` beside the parts of `cfg.model.folder`; check that all are there.

    Raises UserError where no folder is named, and naming the first part that is missing there.
    """
    from ..diffusion.layout import pocket_layout, write_card

    folder = family_folder(cfg.model.folder)
    write_card(folder, voices=list(cfg.model.voices), prediction_type=dict(cfg.model.prediction_type),
               template=cfg.model.template)
    return {"folder": str(folder), "latent_shape": list(pocket_layout(folder).latent_shape)}


def _bound(cfg: DictConfig) -> dict[str, Any]:
    """No network; raises UserError where `bind` has no folder, or one that was bound before and lacks a part.
    """
    from ..diffusion.layout import pocket_layout

    folder = family_folder(cfg.model.folder)
    if (folder / "family.json").exists():  # else the job writes it first
        pocket_layout(folder)
    return {}


# What check=true builds of a job: {name: network}.
BUILT: dict[Any, Callable[[DictConfig], dict[str, Any]]] = {
    basis: lambda cfg: {"autoencoder": autoencoders(cfg)[0]}, bind: _bound}
