"""The steps of a family that Lightning does not train: `model.job` of an experiment, (cfg, run) → result."""

from __future__ import annotations

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


@declares("variance_kept")
def basis(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Compute the patch autoencoder's transform from crops; its correction is trained afterwards."""
    import torch

    from ..networks.autoencoder import PatchAutoencoder
    from ..weights import finite
    from .export import save_half

    torch.manual_seed(cfg.seed)
    options = _options(cfg)
    extends = options.pop("extends")
    base = None if extends is None else finite(PatchAutoencoder.from_pretrained(extends), extends)
    vae = PatchAutoencoder(**options)
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
