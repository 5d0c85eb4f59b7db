"""The fine-tune of Auffusion by its experiments, on tiny weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from omegaconf import OmegaConf
from test_datamodule import make_corpus
from tiny_family import WIDTH, tiny_pocket_family, tiny_stable_diffusion
from transformers import AlbertConfig, AlbertModel

from images_that_speak import config
from images_that_speak.audio.play import play
from images_that_speak.audio.wave import read_wave
from images_that_speak.checks import train as check_train
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.layout import pocket_layout
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.training.diffusion import LatentDiffusionTraining
from images_that_speak.training.fit import fit
from images_that_speak.training.lora import LoraSettings
from images_that_speak.training.pretrained import pretrained_text, pretrained_unet
from images_that_speak.training.read_back import ReadBack
from images_that_speak.training.train import train


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> tuple[Path, Path]:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Two clips in the published layout, with embeddings eight wide."""
    root = tmp_path_factory.mktemp("published")
    (root / "spectograms").mkdir()
    for i in range(2):
        np.save(root / f"spectograms/{i}.npy", np.random.default_rng(i).uniform(-11, 0, (256,
                                                                                         1024)).astype("f4"))
    pandas.DataFrame({"audio_prompt": ["happy baby", "cold river"], "mel_npy": ["0.npy", "1.npy"]}
                     ).to_csv(root / "manifest.csv", index=False)
    (root / "prompts_2.txt").write_text("happy baby\ncold river\n")
    np.savez(root / "plbert_sentence_emb_2.npz", emb=np.eye(2, 8, dtype=np.float32))
    return root


def tiny(pipelines: tuple[Path, Path], folder: Path) -> list[str]:
    """Overrides that bring a fine-tune of Auffusion down to the tiny pipelines."""
    return [f"model.unet.source={pipelines[1]}", f"paths.logs={folder / 'logs'}", "device=cpu",
            "precision=32-true", f"data.train.latents={folder / 'latents'}", "steps=2", "data.batch_size=1"]


def test_the_published_fine_tune_runs_and_generates(pipelines, published, tmp_path):
    """From the published data to weights that a generation speaks with."""
    cfg = config.compose("train", ["experiment=auffusion_lora_published", f"data.train.root={published}",
                                   "adapter.features=8", f"adapter.width={WIDTH}",
                                   "model.lora.unfreeze=[mid_block]", *tiny(pipelines, tmp_path)])
    assert train(cfg)["steps"] == 2
    weights = next((tmp_path / "logs/train").iterdir()) / "weights"
    assert {path.name for path in weights.iterdir()} == {
        "pytorch_lora_weights.safetensors", "unfrozen.safetensors", "lora.json", "adapter"}
    # Latents are Stable Diffusion's: 4 × 32 × 128, brought to unit deviation by its scaling factor alone.
    assert json.loads((tmp_path / "latents/index.json").read_text())["shape"] == [4, 32, 128]
    shutil.rmtree(weights / "adapter")  # it reads a PL-BERT's embeddings, and there is none
    made = config.compose("generate", [
        "family=sd15", f"family.image={pipelines[0]}", f"family.speech={pipelines[1]}",
        f"family.lora={weights}", "composition=images_that_sound", "steps=2",
        f"paths.logs={tmp_path / 'logs'}", "device=cpu"])
    OmegaConf.update(made, "reader", None)
    assert generate(made)["made"] == 1


def test_a_fine_tune_with_plbert_goes_from_clips_to_speech(pipelines, tmp_path):
    """Nothing is there but a corpus and a PL-BERT: latents and embeddings are made on the way."""
    corpus, bert = make_corpus(tmp_path / "corpus"), tmp_path / "bert"
    AlbertModel(AlbertConfig(vocab_size=178, hidden_size=24, num_attention_heads=2, intermediate_size=32,
                             max_position_embeddings=64, num_hidden_layers=1,
                             embedding_size=16)).save_pretrained(bert)
    durations = tiny_pocket_family(tmp_path / "pocket") / "speech/durations"
    kept = {split: tmp_path / f"plbert_{split}.safetensors" for split in ("train", "valid")}
    generated = ["family=sd15", f"family.image={pipelines[0]}", f"family.speech={pipelines[1]}",
                 f"family.durations={durations}", "steps=2", "composition=speech_only",
                 "audio_prompt=happy music", "reader.picture=null", "device=cpu"]
    cfg = config.compose("train", [
        "experiment=auffusion_lora", "adapter.features=24", f"adapter.width={WIDTH}", "adapter.channels=16",
        "adapter.hidden=16", "adapter.embedding=8", "adapter.layers=1", f"data.train.root={corpus}",
        f"data.train.phoneme_bert={bert}", f"data.train.embeddings={kept['train']}",
        f"data.valid.embeddings={kept['valid']}", f"data.valid.latents={tmp_path / 'latents_valid'}",
        "model.lora.unfreeze=[mid_block]", "callbacks=auffusion_read_back",
        f"callbacks.read_back.generate={generated}",
        "trainer.validate_every=2", *tiny(pipelines, tmp_path)])
    assert 0 <= train(cfg)["valid/wer"]
    assert all(path.exists() for path in kept.values())
    run = next((tmp_path / "logs/train").iterdir())
    weights = run / "weights"
    assert next((run / "read_back/step-2").glob("*/speech.wav")).exists()
    made = config.compose("generate", [
        "family=sd15", f"family.image={pipelines[0]}", f"family.speech={pipelines[1]}",
        f"family.lora={weights}", f"family.durations={durations}", f"family.phoneme_bert={bert}",
        "composition=speech_only", "steps=2", f"paths.logs={tmp_path / 'logs'}", "device=cpu"])
    OmegaConf.update(made, "reader", None)
    assert generate(made)["made"] == 1


@pytest.mark.parametrize("adapter", ["aligned", "sequence", "pooled", "published", "text"])
def test_check_builds_a_fine_tune_with_every_adapter(adapter, pipelines, tmp_path):
    width = [] if adapter == "text" else [f"adapter.width={WIDTH}"]
    more = {"sequence": ["adapter.heads=2"], "aligned": ["adapter.channels=16"]}.get(adapter, [])
    cfg, _ = config.examine("train", ["experiment=auffusion_lora", f"adapter=auffusion/{adapter}",
                                      f"paths.data={tmp_path}", *width, *more, *tiny(pipelines, tmp_path)])
    lines, problems = check_train.check(cfg)
    assert problems and all("manifest" in problem for problem in problems)  # there is no corpus here
    trained = next(line for line in lines if "conditioner" in line)
    assert (", 0 of them trained" in trained) == (adapter == "text")
    assert any("optimiser" in line for line in lines)


def test_check_of_a_fine_tune_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg, _ = config.examine("train", ["experiment=auffusion_lora", f"paths.data={tmp_path}"])
    problems = "\n".join(check_train.check(cfg)[1])
    assert "model.unet.source=auffusion/auffusion-full-no-adapter" in problems and "hf download" in problems


@pytest.mark.parametrize("offline", [True, False])
def test_a_fine_tune_asks_the_hub_only_where_it_may(offline, pipelines, tmp_path, monkeypatch):
    """For the UNet, the text encoder, the tokenizer and the autoencoder."""
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda *_, **options: asked.append(options["local_files_only"]) or pipelines[1])
    corpus = make_corpus(tmp_path / "corpus")
    train(config.compose("train", [
        "experiment=auffusion_lora", "adapter=auffusion/text", f"data.train.root={corpus}", "data.valid=null",
        f"model.unet.offline={offline}", "model.lora.unfreeze=[mid_block]",
        *tiny(pipelines, tmp_path)[1:]]))
    assert asked == [offline] * 4


def test_gradient_checkpointing_changes_no_gradient(pipelines):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        unet = pretrained_unet(str(pipelines[1]), gradient_checkpointing=checkpointing)
        module = LatentDiffusionTraining(unet, pretrained_text(str(pipelines[1])), prediction_type="epsilon",
                                         lora=LoraSettings(rank=2, unfreeze=("mid_block",)))
        assert unet.is_gradient_checkpointing == checkpointing
        batch = {"latent": torch.randn(1, 4, 8, 16), "input_ids": module.conditioner.tokenize(["hello"])}
        module.loss(batch, drop=False).backward()
        found.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and not any("text_encoder" in name for name in found[0])
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


# --- validation by generating

class Loader(list):
    """Batches that a Trainer takes as they are."""


def test_a_validation_generates_and_reads_back(tmp_path):
    """What is generated is made with the weights in training, not with those on disk."""
    pocket = tiny_pocket_family(tmp_path / "pocket")
    family = Family.load(pocket_layout(pocket), ("speech",))
    module = LatentDiffusionTraining(family.predictors["speech"].unet, family.conditioners["speech"], lr=0.0,
                                     warmup=0).requires_grad_(True)
    callback = ReadBack([f"family.weights={pocket}", "steps=2", "reader=pocketsphinx", "device=cpu",
                         "reader.picture=null", "composition=speech_only"])
    phones = torch.full((1, 1024), 5)
    batch = {"latent": torch.randn(1, 8, 16, 64), "phones": phones[:, :4], "phone_mask": torch.ones(1,
                                                                                                    4).bool(),
             "frame_phones": phones, "frame_position": torch.zeros(1, 1024), "voice": torch.tensor([1])}
    logged = {}
    log = module.log
    module.log = lambda name, value, **rest: (logged.update({name: float(value)}), log(name, value, **rest))
    fit(module, Loader([batch]), tmp_path / "run", max_steps=1, valid=Loader([batch]), validate_every=1,
        ema_decay=0.9, callbacks=[callback], accelerator="cpu", progress=False)
    made = next((tmp_path / "run/read_back/step-1").iterdir())
    scores = json.loads((made / "sample.json").read_text())["scores"]
    assert logged["valid/wer"] == pytest.approx(scores["wer"]) and "valid/clip" not in logged
    with torch.no_grad():
        for parameter in module.unet.parameters():
            parameter.mul_(1.5)
    fit(module, Loader([batch]), tmp_path / "other", max_steps=1, valid=Loader([batch]), validate_every=1,
        ema_decay=None, callbacks=[callback], accelerator="cpu", progress=False)
    other = next((tmp_path / "other/read_back/step-1").iterdir())
    assert (other / "image.png").read_bytes() != (made / "image.png").read_bytes()


@pytest.mark.parametrize(("overrides", "options", "told"), [
    (["stepz=1"], {}, "Did you mean 'steps'"), ([], {"branch": "sound"}, "expected image or speech"),
    ([], {"every": 0}, "expected a whole number of at least 1")])
def test_a_read_back_that_cannot_be_is_told_first(overrides, options, told):
    with pytest.raises(UserError, match=told):
        ReadBack(overrides, **options)


class Sharded(LatentDiffusionTraining):
    """A training whose networks are in parts."""

    device_mesh: Any = 1

    def __init__(self) -> None:
        pass

    @property
    def conditioner(self) -> None:
        return None


@pytest.mark.parametrize(("module", "told"), [
    (SimpleNamespace(), "is no branch of a family"),
    (Sharded(), "trainer=fsdp: a network in parts cannot generate")])
def test_a_read_back_of_what_cannot_generate_is_told_first(module, told, tmp_path):
    callback = ReadBack([f"family.weights={tiny_pocket_family(tmp_path / 'pocket')}", "device=cpu"])
    with pytest.raises(UserError, match=told):
        callback.on_fit_start(None, module)


# --- playing

def test_a_picture_is_played_by_a_command(pipelines, tmp_path):
    np.save(tmp_path / "picture.npy", np.random.default_rng(0).random((256, 1024), np.float32))
    play(str(tmp_path / "picture.npy"), str(tmp_path / "speech.wav"), str(pipelines[1] / "vocoder"))
    assert len(read_wave(tmp_path / "speech.wav")) == 163_840
    with pytest.raises(UserError, match="no such picture"):
        play(str(tmp_path / "nothing.npy"), str(tmp_path / "speech.wav"))
