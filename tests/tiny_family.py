"""Families with random weights and a few thousand parameters, in the layouts of the real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

from images_that_speak.audio.hifigan import HiFiGAN, old_names
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.vocoder import save_vocoder
from images_that_speak.diffusion.layout import write_card
from images_that_speak.networks.adapters import ADAPTERS, AlignedAdapter
from images_that_speak.networks.auffusion import ConditionAdapter
from images_that_speak.networks.scene import SceneAdapter
from images_that_speak.speech.durations import DurationModel
from images_that_speak.speech.phonemes import PHONES

VOICES = ("slt", "rms")
WIDTH = 16


def tiny_unet(channels: int) -> UNet2DConditionModel:
    """Two levels, about 40 thousand parameters."""
    return UNet2DConditionModel(
        in_channels=channels, out_channels=channels, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=4)


def tiny_autoencoder(channels: int, down: int, colours: int = 1, scaling: float = 1.0,
                     attention: bool = False) -> AutoencoderKL:
    """`down` levels halve the picture; with `attention` in the middle, as Stable Diffusion's."""
    levels = down + 1
    return AutoencoderKL(
        in_channels=colours, out_channels=colours, latent_channels=channels, block_out_channels=(4,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1, norm_num_groups=2, mid_block_add_attention=attention, scaling_factor=scaling)


def tiny_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=32
                  ).save_pretrained(str(folder))


def tiny_text_encoder(folder: Path) -> None:
    CLIPTextModel(CLIPTextConfig(
        vocab_size=514, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )).save_pretrained(str(folder))


def save_schedule(folder: Path, **changes: object) -> None:
    DDIMScheduler(**{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                     "clip_sample": False, **changes}).save_pretrained(str(folder))


def tiny_vocoder() -> HiFiGAN:
    return HiFiGAN(resblock="2", upsample_rates=[8, 5, 4], upsample_kernel_sizes=[16, 10, 8],
                   upsample_initial_channel=16, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 2]])


def tiny_pocket_family(folder: Path, adapter: str = "aligned") -> Path:
    """A family folder as `make pocket` writes it: 8 latent channels of 16 × 64."""
    torch.manual_seed(0)
    channels = 8
    for branch in ("image", "speech"):
        tiny_unet(channels).save_pretrained(str(folder / branch / "unet"))
    tiny_text_encoder(folder / "image/text_encoder")
    tiny_tokenizer(folder / "image/tokenizer")
    scene = SceneAdapter(channels=16, width=WIDTH, hidden=16, layers=1)
    # Trained, this is no longer zero either.
    torch.nn.init.normal_(scene.last.weight, std=0.2)
    scene.save_pretrained(str(folder / "image/scene"))
    sizes = {"phones": len(PHONES), "voices": len(VOICES), "width": WIDTH}
    speech = (AlignedAdapter(**sizes, channels=16, hidden=16, embedding=8, layers=1) if adapter == "aligned"
              else ADAPTERS[adapter](**sizes))
    if adapter == "aligned":
        # Trained, this is no longer zero; and a test should see what the phonemes change.
        torch.nn.init.normal_(speech.spread.weight, std=0.2)
    speech.save_pretrained(str(folder / "speech/adapter"))
    DurationModel(VOICES, width=16, layers=1).save_pretrained(folder / "speech/durations")
    vae = tiny_autoencoder(channels, 4)
    vae.register_to_config(latents_mean=[0.1] * channels, latents_std=[2.0] * channels)
    vae.save_pretrained(str(folder / "vae"))
    save_vocoder(tiny_vocoder(), folder / "vocoder")
    write_card(folder)
    return folder


def tiny_stable_diffusion(folder: Path) -> tuple[Path, Path]:
    """Stable Diffusion and Auffusion in diffusers layout, 4 latent channels; the vocoder as published."""
    torch.manual_seed(0)
    image, speech = folder / "stable-diffusion", folder / "auffusion"
    for root in (image, speech):
        tiny_unet(4).save_pretrained(str(root / "unet"))
        tiny_text_encoder(root / "text_encoder")
        tiny_tokenizer(root / "tokenizer")
        tiny_autoencoder(4, 3, colours=3, scaling=0.18215, attention=True).save_pretrained(str(root / "vae"))
        save_schedule(root / "scheduler", steps_offset=1, set_alpha_to_one=False)
    vocoder = tiny_vocoder()
    (speech / "vocoder").mkdir()
    config = {**vocoder.config, "sampling_rate": MEL.sample_rate, "num_mels": MEL.n_mels, "hop_size": MEL.hop,
              "win_size": MEL.win, "n_fft": MEL.n_fft, "fmin": 0, "fmax": 8000}
    (speech / "vocoder/config.json").write_text(json.dumps(config))
    torch.save({"generator": old_names(vocoder.state_dict())}, speech / "vocoder/vocoder.pt")
    return image, speech


def as_published(root: Path, pickled: bool = False) -> Path:
    """Rewrite a pipeline's files as the libraries of 2022 and 2023 wrote them: so the hub still has them.

    The autoencoder's attention and the text encoder have other names, the tokenizer other files, the
    scheduler is PNDM's; with `pickled` the weights are in .bin files, not in safetensors.
    """
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                       ("text_encoder", "model")):
        file = root / part / f"{name}.safetensors"
        state = load_file(file)
        if part == "vae":
            for now, then in {"to_q": "query", "to_k": "key", "to_v": "value",
                              "to_out.0": "proj_attn"}.items():
                state = {key.replace(f"attentions.0.{now}.", f"attentions.0.{then}."): value
                         for key, value in state.items()}
        if part == "text_encoder":
            state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}
            state["text_model.embeddings.position_ids"] = torch.arange(32)[None]
        file.unlink()
        if pickled:
            torch.save(state, root / part / f"{'pytorch_' if part == 'text_encoder' else ''}{name}.bin")
        else:
            save_file(state, file)
    tokenizer = json.loads((root / "tokenizer/tokenizer.json").read_text())
    (root / "tokenizer/tokenizer.json").unlink()
    (root / "tokenizer/vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (root / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    (root / "tokenizer/special_tokens_map.json").write_text(json.dumps(
        {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
         "unk_token": "<|endoftext|>"}))
    (root / "tokenizer/tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": 32, "do_lower_case": True}))
    (root / "scheduler/scheduler_config.json").write_text(json.dumps(
        {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
         "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
         "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
         "trained_betas": None}))
    return root


def tiny_auffusion_full(folder: Path) -> Path:
    """Auffusion's full layout: two text encoders of their own widths with condition adapters, and the
    rest."""
    _, speech = tiny_stable_diffusion(folder)
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(speech / part)
    entries = []
    for i, width in enumerate((WIDTH, 8)):
        names = f"text_encoder_{i}", f"condition_adapter_{i}"
        if i == 0:
            tiny_text_encoder(speech / names[0])
        else:
            T5EncoderModel(T5Config(vocab_size=600, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
                           ).save_pretrained(str(speech / names[0]))
        tiny_tokenizer(speech / names[0])
        sizes = {"condition_dim": width, "cross_attention_dim": WIDTH}
        adapter = ConditionAdapter(**sizes)
        torch.nn.init.normal_(adapter.norm.bias)
        (speech / names[1]).mkdir()
        torch.save(adapter.state_dict(), speech / names[1] / "condition_adapter.pt")
        (speech / names[1] / "config.json").write_text(json.dumps(sizes))
        entries.append({"text_encoder_name": names[0], "condition_adapter_name": names[1],
                        "condition_type": "text", "condition_max_length": 32, **sizes})
    (speech / "condition_config.json").write_text(json.dumps(entries))
    return speech
