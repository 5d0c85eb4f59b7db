"""A family's speech branch as one pipeline that stock diffusers loads: the LoRA is part of its weights.

    python -m images_that_speak.diffusion.export OUT family=sd15 family.lora=logs/train/<run>/weights

OUT holds unet/, vae/, scheduler/ and vocoder/, and text_encoder/ and tokenizer/ where the branch reads texts:
then `StableDiffusionPipeline.from_pretrained(OUT, safety_checker=None)` is all it takes. A phoneme adapter
goes to adapter/; the UNet alone is loaded by `UNet2DConditionModel.from_pretrained(OUT, subfolder="unet")`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import UserError
from ..files import write_json
from .family import Family
from .layout import Layout


def export_pipeline(layout: Layout, folder: str | Path, dtype: str = "float32") -> Path:
    """Write the speech branch of `layout` to `folder`, which must not be there.

    dtype: of the UNet, "float32" or "float16". Raises UserError when the folder exists, or the branch is one
    that a stock pipeline cannot express (several text encoders).
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder}: is there already (expected a new folder)")
    if layout.conditions is not None:
        raise UserError(f"{layout.conditions}: reads texts through condition adapters, which no stock "
                        "pipeline has (family.speech=auffusion/auffusion-full-no-adapter can be exported)")
    family = Family.load(layout, ("speech",), dtype=dtype)
    folder.mkdir(parents=True)
    unet = family.predictors["speech"].unet
    # What fusing leaves behind are layers that no longer do anything, under names of their own.
    if layout.lora is not None:
        unet.unload_lora()
    unet.save_pretrained(folder / "unet")
    parts = {"vae": layout.vae, "scheduler": layout.scheduler, "adapter": layout.adapter,
             "durations": layout.durations,
             "vocoder": layout.vocoder if isinstance(layout.vocoder, Path) else None,
             "text_encoder": layout.text_encoder.get("speech"), "tokenizer": layout.tokenizer.get("speech")}
    for name, source in parts.items():
        if source is not None:
            shutil.copytree(source, folder / name)
    if "speech" in layout.text_encoder:
        write_json(folder / "model_index.json", {
            "_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None],
            "image_encoder": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"]})
    return folder


def main(arguments: list[str]) -> None:
    """The command: a folder and overrides of configs/generate.yaml."""
    from ..config import compose, instantiate

    if not arguments or "=" in arguments[0]:
        raise UserError("expected a new folder and then family=…: python -m "
                        "images_that_speak.diffusion.export OUT family=sd15 family.lora=DIR")
    cfg = compose("generate", arguments[1:])
    print(export_pipeline(instantiate(cfg.family), arguments[0], cfg.precision.dtype))


if __name__ == "__main__":
    import sys

    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
