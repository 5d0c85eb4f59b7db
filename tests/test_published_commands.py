"""Every command of ours in docs/published.md, run on tiny weights: shortened, and in folders of the test."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
from diffusers import UNet2DConditionModel
from machine import needs_flite
from omegaconf import DictConfig
from test_datamodule import make_corpus
from test_logging import inspect
from test_published_lora import published_unet, save_checkpoint
from tiny_family import WIDTH, tiny_pocket_family, tiny_stable_diffusion

from images_that_speak import cli, config
from images_that_speak.audio.play import play
from images_that_speak.audio.wave import read_wave
from images_that_speak.colour.colouring import colour
from images_that_speak.data.build import build_from_config
from images_that_speak.data.manifest import Corpus
from images_that_speak.diffusion import export
from images_that_speak.generate import generate
from images_that_speak.reports.commands import main as reports
from images_that_speak.resources import ROOT
from images_that_speak.training import lora_published
from images_that_speak.training.train import train

TEXT = (ROOT / "docs/published.md").read_text()
TABLES = re.findall(r"^\| .+ \| (.+) \|$", TEXT, re.MULTILINE)
BLOCKS = [line for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
COMMANDS = [command for text in [*TABLES, *(f"`{line}`" for line in BLOCKS)]
            for command in re.findall(r"`(python [^`]+)`", text)]
# What brings adapters and fine-tunes down to the tiny pipelines.
ALIGNED = [f"adapter.width={WIDTH}", "adapter.channels=16", "adapter.hidden=16", "adapter.embedding=8",
           "adapter.layers=1"]
SEQUENCE = [f"adapter.width={WIDTH}", "adapter.heads=2"]
PUBLISHED = ["adapter.features=8", f"adapter.width={WIDTH}"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: sd/, auffusion/, DATA/, LORA/, RUN/, DIR/, checkpoints/ and a corpus."""
    root = tmp_path_factory.mktemp("published")
    image, speech = tiny_stable_diffusion(root)
    image.rename(root / "sd")
    tiny_pocket_family(root / "weights/pocket")
    make_corpus(root / "corpus")
    (root / "DATA/spectograms").mkdir(parents=True)
    for i in range(2):
        values = np.random.default_rng(i).uniform(-11, 0, (256, 1024)).astype(np.float32)
        np.save(root / f"DATA/spectograms/{i}.npy", values)
    pandas.DataFrame({"audio_prompt": ["happy baby", "cold river"], "mel_npy": ["0.npy", "1.npy"]}
                     ).to_csv(root / "DATA/manifest.csv", index=False)
    (root / "DATA/prompts_2.txt").write_text("happy baby\ncold river\n")
    np.savez(root / "DATA/plbert_sentence_emb_2.npz", emb=np.eye(2, 8, dtype=np.float32))
    np.save(root / "spec.npy", np.random.default_rng(0).random((256, 1024), np.float32))
    (root / "checkpoints/latest").mkdir(parents=True)
    save_checkpoint(published_unet(UNet2DConditionModel.from_pretrained(speech / "unet")),
                    root / "checkpoints/latest")
    lora_published.import_published(root / "checkpoints/latest", root / "LORA")
    shutil.rmtree(root / "LORA/adapter")  # it reads embeddings of a PL-BERT, and there is none
    (root / "pairs.csv").write_text("image_prompt,audio_prompt\na cat,happy baby\n")
    return root


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    """The run folder of a fine-tune with phonemes."""
    train(composed("train", ["experiment=auffusion_lora"], work, "trained"))
    run, = (work / "trained/train").iterdir()
    return run


def composed(task: str, words: list[str], work: Path, logs: str = "logs") -> DictConfig:
    """A command's configuration, with what makes it short and brings it down to the tiny weights."""
    line = " ".join(words)
    if task == "generate":
        more = [f"family.image={work}/sd", f"family.speech={work}/auffusion", "num_samples=1", "reader=none",
                *(["steps=1", "method.features=4", "method.hidden=8"] if "method=sds" in line
                  else ["steps=2"]),
                *([f"prompts={work}/pairs.csv"] if "prompts=" in line else [])]
    elif task == "corpus":
        more = ["data.prompts=3", "data.verify=0", f"data.root={work}/built{len(words)}",
                "data.voices=[slt]"]
    else:
        text = "adapter=auffusion/text" in line
        sizes = [] if text else (PUBLISHED if "published" in line else
                                 SEQUENCE if "sequence" in line else ALIGNED)
        more = [f"model.unet.source={work}/auffusion", "steps=1", "precision=32-true", "data.batch_size=1",
                *sizes,
                f"data.train.latents={work}/latents/{'published' if 'published' in line else 'train'}",
                *([] if "unfreeze=[]" in line else ["model.lora.unfreeze=[mid_block]"])]
        if "published" not in line:
            more += [f"data.train.root={work}/corpus", f"data.valid.latents={work}/latents/valid",
                     "trainer.validate_every=1"]
        if "read_back" in line:
            spoken = ["family=sd15", f"family.image={work}/sd", f"family.speech={work}/auffusion", "steps=1",
                      f"family.durations={work}/weights/pocket/speech/durations", "composition=speech_only",
                      f"prompts={work}/pairs.csv", "reader=pocketsphinx", "device=cpu"]
            more.append(f"callbacks.read_back.generate={spoken}")
    device = [] if task == "corpus" else ["device=cpu"]
    return config.compose(task, [*(config.quoted(word, False) for word in words), *more, *device,
                                 f"paths.logs={work / logs}", f"paths.data={work}/data"])


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 20
    theirs = re.findall(r"^\| `([^`]+)`", TEXT, re.MULTILINE)
    for program in ("environment.yml", "huggingface_login.py", "run.sh", "train_auffusion.py",
                    "imprint_joint_denoise.py", "--lora_path", "decode_spec_to_audio.py", "main_denoise.py",
                    "main_imprint.py", "main_sds.py", "create_color_video.py"):
        assert any(program in command for command in theirs), program


@pytest.mark.parametrize("command", [
    pytest.param(command, marks=[needs_flite] if "images_that_speak.data" in command else [])
    for command in COMMANDS])
def test_a_published_command_runs(
        command: str, work: Path, request: pytest.FixtureRequest, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("DATA", "LORA", "AUFFUSION", "checkpoints/latest", "weights/pocket/speech/durations"):
        place = work / name.replace("AUFFUSION", "auffusion")
        command = re.sub(rf"(?<![\w/]){name}(?!\w)", str(place), command)
    if "lora_published export" in command:  # of a fine-tune with the published settings
        command = command.replace("RUN/weights", f"{work}/LORA")
    elif "RUN" in command:
        command = command.replace("RUN", str(request.getfixturevalue("trained")))
    if "DIR" in command:
        generate(composed("generate", ["family=sd15", "composition=images_that_sound", "seed=9"], work))
        made, = (path.parent for path in (work / "logs/generate").glob("*seed-9*/result.json"))
        command = command.replace("DIR", str(made))
    program, *words = shlex.split(command)[1:]
    if program == "-m":
        program, *words = words
    if program.endswith(".py"):
        task = program.removesuffix(".py")
        cfg = composed(task, words, work)
        # Several processes are started anew with the command line, which here is pytest's; see test_ddp.
        if cfg.check or "trainer=ddp" in words:
            cli.report(cfg, task, [])
            assert "all is well" in capsys.readouterr().out
        else:
            result = (generate if task == "generate" else train)(cfg)
            assert result["samples" if task == "generate" else "steps"] == 1
        if "logger=wandb" in words:
            logged, = inspect(next((work / "logs/train").glob("*/wandb")).parent)
            assert logged["summary"]["samples"]["nrows"] == 1
            assert all(result[key] == logged["summary"][key] for key in ("valid/wer", "valid/clip"))
    elif program == "images_that_speak.data":
        build_from_config(composed("corpus", words, work))
        assert len(Corpus.open(work / f"built{len(words)}")) == 3
    elif program == "images_that_speak.diffusion.export":
        export.main([str(tmp_path / words[0]), *words[1:], f"family.image={work}/sd",
                     f"family.speech={work}/auffusion", "composition=images_that_sound"])
        assert UNet2DConditionModel.from_pretrained(tmp_path / words[0], subfolder="unet")
    elif program == "images_that_speak.training.lora_published":
        lora_published.main([*words[:2], str(tmp_path / "out")])
        assert (tmp_path / "out" / {"import": "pytorch_lora_weights.safetensors",
                                    "export": "lora.pt"}[words[0]]).exists()
    elif program == "images_that_speak.audio.play":
        play(str(work / "spec.npy"), str(tmp_path / "speech.wav"), words[2])
        assert len(read_wave(tmp_path / "speech.wav")) == 163_840
    elif program == "images_that_speak.colour":
        colour(config.compose("colour", [*words, f"colorizer.family.image={work}/sd", "colorizer.steps=2",
                                         f"colorizer.family.speech={work}/auffusion", "colorizer.start=0",
                                         "device=cpu"]))
        assert list(made.glob("samples/*/colour.png"))
    else:
        assert program == "images_that_speak.reports"
        assert reports(words) == 0 and list(made.glob("samples/*/video.mp4"))
