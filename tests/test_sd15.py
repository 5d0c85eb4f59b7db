"""The published systems' layouts at tiny size: Auffusion's full models, how networks run, estimates,
exports."""

from __future__ import annotations

import functools
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tiny_family import (
    VOICES,
    WIDTH,
    as_published,
    tiny_auffusion_full,
    tiny_pocket_family,
    tiny_stable_diffusion,
)
from torch.nn.functional import pad
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from images_that_speak import cli, config
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.checks import generate as check_generate
from images_that_speak.checks.findings import run_folder
from images_that_speak.diffusion import export
from images_that_speak.diffusion.estimate import cost, estimate, parameters
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.layout import (
    download_command,
    find_part,
    find_weights,
    split_name,
    stable_diffusion_layout,
)
from images_that_speak.diffusion.loading import load_model
from images_that_speak.diffusion.running import ATTENTION, Running
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.training.lora import LoraSettings, add_lora, export_lora


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> tuple[Path, Path]:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    return tiny_auffusion_full(tmp_path_factory.mktemp("full"))


def answer(family: Family, prompt: str = "a dog barks") -> torch.Tensor:
    """What the speech branch says of one noised latent."""
    x = torch.randn(1, 4, 32, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return family.predictors["speech"].raw(x, torch.tensor([400]), family.text_condition("speech",
                                                                                             [prompt]))


# --- Auffusion's full models

@torch.no_grad()
def test_the_full_layout_conditions_as_published(pipelines, full):
    """Each encoder's features, padded with zeros and adapted, one after the other; nothing said is all
    zeros."""
    layout = stable_diffusion_layout(str(pipelines[0]), str(full))
    family = Family.load(layout, ("speech",))
    said = family.text_condition("speech", ["a dog", "rain"]).tokens
    expected = []
    for i, cls in enumerate((CLIPTextModel, T5EncoderModel)):
        folder = full / f"text_encoder_{i}"
        ids = AutoTokenizer.from_pretrained(folder)("a dog", return_tensors="pt").input_ids
        features = cls.from_pretrained(folder)(ids).last_hidden_state
        state = torch.load(full / f"condition_adapter_{i}/condition_adapter.pt", weights_only=True)
        x = pad(features, (0, 0, 0, 32 - features.shape[1])) @ state["proj.weight"].T + state["proj.bias"]
        expected.append(torch.layer_norm(x, (WIDTH,), state["norm.weight"], state["norm.bias"]))
    torch.testing.assert_close(said[:1], torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)
    assert said.shape == (2, 64, WIDTH)
    assert not family.null("speech", 2).tokens.any()
    batch = {"input_ids": family.conditioners["speech"].tokenize(["a dog", "rain"])}
    dropped = family.conditioners["speech"].drop(batch, torch.tensor([True, False]))
    assert not family.conditioners["speech"].encode(dropped).tokens[0].any()
    assert answer(family).isfinite().all()


@pytest.mark.parametrize(("damage", "told"), [
    (lambda root: shutil.rmtree(root / "text_encoder_1"), "text_encoder_1: missing"),
    (lambda root: (root / "condition_config.json").write_text("{}"), "expected a list of conditions"),
    (lambda root: (root / "condition_config.json").write_text(
        json.dumps([{"text_encoder_name": "../vae", "condition_adapter_name": "vae"}])), "'../vae'"),
    (lambda root: (root / "condition_adapter_0/condition_adapter.pt").write_bytes(b"no weights"),
     "not a readable checkpoint"),
])
def test_damage_to_the_full_layout_is_told(pipelines, full, tmp_path, damage, told):
    broken = Path(shutil.copytree(full, tmp_path / "full"))
    damage(broken)
    with pytest.raises(UserError, match=told):
        Family.load(stable_diffusion_layout(str(pipelines[0]), str(broken)), ("speech",))


def test_the_vocoder_is_read_as_published(pipelines):
    """config.json and vocoder.pt with the old names of weight norm."""
    state = torch.load(pipelines[1] / "vocoder/vocoder.pt", weights_only=True)["generator"]
    vocoder = load_vocoder(pipelines[1])
    g, v = state["conv_pre.weight_g"], state["conv_pre.weight_v"]
    torch.testing.assert_close(vocoder.conv_pre.weight, g * v / v.norm(dim=(1, 2), keepdim=True))


@torch.no_grad()
def test_weights_are_read_under_the_names_that_the_hub_has(pipelines, tmp_path):
    theirs = [as_published(Path(shutil.copytree(root, tmp_path / root.name)), pickled=root == pipelines[1])
              for root in pipelines]
    ours, old = (Family.load(stable_diffusion_layout(*map(str, found)), ("speech", "vae"))
                 for found in (pipelines, theirs))
    torch.testing.assert_close(answer(old), answer(ours), rtol=0, atol=1e-5)
    latent = torch.randn(1, 4, 32, 128, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(old.decode(latent), ours.decode(latent), rtol=0, atol=1e-5)
    lines, problems = checked(theirs)
    counts = [[line.split("parameters")[0] for line in found if "parameters" in line]
              for found in (lines, checked(pipelines)[0])]
    assert not problems and counts[0] == counts[1] and len(counts[0]) == 7


# --- where weights come from

def test_absent_weights_are_told_with_the_command_that_fetches_them():
    name = "nobody/nothing-here@main"
    assert split_name(name) == ("nobody/nothing-here", "main")
    with pytest.raises(UserError) as caught:
        find_weights(name, "family.speech", offline=True)
    assert download_command(name) in str(caught.value) and "--revision main" in str(caught.value)
    assert "4.3 GB" in str(caught.value) and "family.speech=" in str(caught.value)


def test_a_revision_is_asked_for(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda *args, **options: asked.append((args, options)) or str(tmp_path))
    assert find_weights("owner/name@v2", "family.image") == tmp_path
    (tmp_path / "unet").mkdir()
    assert find_part("owner/name/unet", "model.unet.source") == tmp_path / "unet"
    assert [(args[0], options["revision"]) for args, options in asked] == [("owner/name", "v2"),
                                                                           ("owner/name", None)]


# --- how networks run

@pytest.mark.parametrize("running", [
    *(Running(attention=kind) for kind in ATTENTION if kind != "sdpa"),
    Running(channels_last=True), Running(offload=True)], ids=repr)
def test_how_networks_run_changes_no_estimate(pipelines, running):
    plain = Family.load(stable_diffusion_layout(*map(str, pipelines)), ("speech",))
    other = Family.load(stable_diffusion_layout(*map(str, pipelines), running=running), ("speech",))
    torch.testing.assert_close(answer(other), answer(plain), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_tiled_autoencoder_decodes_in_tiles(pipelines):
    tiled = Family.load(stable_diffusion_layout(*map(str, pipelines), running=Running(vae_tiling=True)),
                        ("vae",))
    latent = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(2))
    expected = tiled.vae.tiled_decode(latent / 0.18215).sample.mean(1) / 2 + 0.5
    torch.testing.assert_close(tiled.decode(latent), expected.clamp(0, 1), rtol=1e-4, atol=1e-4)
    tiled.vae.disable_tiling()
    assert not tiled.decode(latent).allclose(expected, atol=1e-3)


def test_a_compiled_unet_says_the_same(pipelines, monkeypatch):
    """Traced in full, the residual's hook too; only the generation of machine code is left out."""
    real = torch.nn.Module.compile
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile",
                        functools.partialmethod(lambda self, mode: real(self, backend=backend)))
    plain = Family.load(stable_diffusion_layout(*map(str, pipelines)), ("speech",))
    layout = stable_diffusion_layout(*map(str, pipelines), running=Running(compile="default"))
    compiled = Family.load(layout, ("speech",))
    torch.testing.assert_close(answer(compiled), answer(plain), rtol=1e-4, atol=1e-4)
    assert traced


@pytest.mark.parametrize(("changes", "told"), [
    ({"attention": "sdp"}, "Did you mean 'sdpa'"), ({"compile": "fast"}, "expected null or one of"),
    ({"compile": "default", "offload": True}, "give one of them")])
def test_settings_that_cannot_be_are_told(changes, told):
    with pytest.raises(UserError, match=told):
        Running(**changes)


# --- estimates

def test_a_convolution_costs_what_it_does():
    with torch.device("meta"):
        conv, x = torch.nn.Conv2d(3, 5, 3, padding=1), torch.empty(2, 3, 8, 8)
    found = cost(conv, x)
    assert found.flops == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3) and found.bytes == 2 * 5 * 8 * 8 * 4


def test_an_estimate_counts_weights_and_grows_with_the_work(pipelines):
    layout = stable_diffusion_layout(*map(str, pipelines))

    def bare(layout, *parts: str, dtype: str = "float32") -> Family:
        return Family.load(layout, (*parts, "vae"), dtype=dtype, weights=False)

    few, many = (estimate(bare(layout, "image", "speech"), *work) for work in ((10, 1), (20, 4)))
    sizes = {(branch, part): sum(v.numel() for v in load_file(next(folder.glob("*.safetensors"))).values())
             for part in ("unet", "text_encoder") for branch, folder in getattr(layout, part).items()}
    vae = sum(v.numel() for v in load_file(next(layout.vae.glob("*.safetensors"))).values())
    assert few.weights == 4 * (sum(sizes.values()) + vae) and many.weights == few.weights
    half = estimate(bare(layout, "speech", dtype="float16"), 10, 1)
    spoken = sum(size for (branch, _), size in sizes.items() if branch == "speech")
    assert half.weights == 2 * spoken + 4 * vae  # on a CPU the autoencoder stays in float32
    assert few.flops < many.flops < 2 * few.flops and few.maps <= many.maps
    offloaded = replace(layout, running=Running(offload=True))
    assert estimate(bare(offloaded, "speech"), 10, 1).weights == 0


def sparse(model: torch.nn.Module, folder: Path, name: str) -> None:
    """The weights of a model on the meta device as a file of zeros, which takes no room on a disk."""
    header: dict = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, value in model.state_dict().items():
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [end, end + value.nbytes]}
        end += value.nbytes
    text = json.dumps(header).encode()
    with open(folder / name, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def test_the_full_size_is_built_by_the_loaders_in_no_memory(tmp_path):
    """Stable Diffusion v1.5's UNet: its published size, and a file that is compared with it."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    unet.save_config(tmp_path)
    sparse(unet, tmp_path, "diffusion_pytorch_model.safetensors")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = load_model(UNet2DConditionModel, tmp_path, torch.float32, weights=False)
    assert parameters(found) == 859_520_964 and all(value.is_meta for value in found.parameters())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def checked(pipelines, *overrides: str) -> tuple[list[str], list[str]]:
    image, speech = pipelines
    cfg = config._compose("generate", [
        "family=sd15", f"family.image={image}", f"family.speech={speech}", "composition=images_that_sound",
        "device=cpu", *overrides])
    OmegaConf.update(cfg, "reader", None)
    return check_generate.check(cfg)


def test_what_it_takes_is_said_before_large_networks_are_loaded(pipelines, tmp_path, monkeypatch, capsys):
    cfg = config.compose("generate", [
        "family=sd15", f"family.image={pipelines[0]}", f"family.speech={pipelines[1]}", "steps=2",
        "composition=images_that_sound", f"paths.logs={tmp_path}", "device=cpu", "reader=none"])
    told, load = [], Family.load

    def loading(*args, weights: bool = True, **options) -> Family:
        return load(*args, **options, weights=False) if not weights else told.append(
            capsys.readouterr().out) or 1 / 0

    monkeypatch.setattr(Family, "load", loading)
    for large in (1 << 30, 1):
        monkeypatch.setattr("images_that_speak.diffusion.estimate.LARGE", large)
        with pytest.raises(ZeroDivisionError):
            generate(cfg)
    assert "GiB" not in told[0]
    assert "GiB: weights" in told[1] and "TFLOP a sample; at least" in told[1]


def test_check_tells_sizes_memory_and_time(pipelines, full):
    lines, problems = checked(pipelines)
    assert not problems
    assert any("GiB: weights" in line for line in lines) and any("TFLOP a sample" in line for line in lines)
    lines, problems = checked((pipelines[0], full))
    assert not problems and any("speech conditioner" in line for line in lines)


def test_check_finds_weights_of_another_config(pipelines, tmp_path):
    speech = Path(shutil.copytree(pipelines[1], tmp_path / "auffusion"))
    card = json.loads((speech / "unet/config.json").read_text())
    (speech / "unet/config.json").write_text(json.dumps({**card, "cross_attention_dim": 8}))
    problems = checked((pipelines[0], speech))[1]
    assert any("unet" in problem and "expected" in problem for problem in problems)


def test_check_finds_all_that_is_wrong_at_once(pipelines, full, tmp_path):
    """In files of every kind, and in settings that a look at the files would have hidden."""
    image, speech = (Path(shutil.copytree(root, tmp_path / name)) for root, name in (
        (pipelines[0], "sd"), (full, "auffusion")))
    (image / "text_encoder/model.safetensors").unlink()
    cut = (image / "vae/diffusion_pytorch_model.safetensors").read_bytes()[:-1]
    (image / "vae/diffusion_pytorch_model.safetensors").write_bytes(cut)
    torch.save({"proj.weight": torch.zeros(2, 2)}, speech / "condition_adapter_1/condition_adapter.pt")
    (speech / "vocoder/vocoder.pt").write_bytes(b"no weights")
    lora = tmp_path / "lora"
    lora.mkdir()
    save_file({"unet.nobody.lora_A.weight": torch.zeros(2, 2)}, lora / "pytorch_lora_weights.safetensors")
    problems = checked((image, speech), f"family.lora={lora}", "guidance.image_start=1")[1]
    expected = ["text_encoder: cannot be loaded (Error no file named",
                "vae: truncated or broken safetensors",
                "condition_adapter_1/condition_adapter.pt: does not fit its config",
                "pytorch_lora_weights.safetensors: unet.nobody",
                "vocoder.pt: not a readable checkpoint",
                "guidance.image_start=1.0: expected a share"]
    assert len(set(problems)) == len(expected), "\n".join(problems)
    for told in expected:
        assert any(told in problem for problem in problems), (told, problems)


def test_check_tells_the_run_folder_beside_what_is_missing(monkeypatch, tmp_path, capsys):
    """Both branches at once, and where it would all be written."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["family=sd15", "family.offline=true", "composition=images_that_sound", "reader=none",
             f"paths.logs={tmp_path}", "device=cpu"]
    cfg = config.compose("generate", [*words, "check=true"])
    with pytest.raises(UserError) as caught:
        cli.report(cfg, "generate", [])
    assert f"run folder   {run_folder(cfg, 'generate')}" in capsys.readouterr().out
    with pytest.raises(UserError) as raised:
        generate(config.compose("generate", words))
    for error in (caught, raised):
        assert [line.split("=")[0] for line in str(error.value).splitlines()] == ["family.image",
                                                                                 "family.speech"]


def test_check_says_what_would_be_fetched(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines, problems = check_generate.check(config._compose("generate", ["family=sd15", "device=cpu"]))
    told = "\n".join(lines)
    assert not problems and "about 8.5 GB" in told
    assert "hf download auffusion/auffusion-full-no-adapter" in told


# --- what is exported

@pytest.fixture(scope="module")
def tuned(pipelines, tmp_path_factory) -> Path:
    """A LoRA of the speech UNet with one block trained whole."""
    folder = tmp_path_factory.mktemp("lora")
    unet = Family.load(stable_diffusion_layout(*map(str, pipelines)), ("speech",)).predictors["speech"].unet
    settings = LoraSettings(rank=2, alpha=6, unfreeze=("mid_block",))
    add_lora(unet, settings)
    torch.manual_seed(3)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    export_lora(unet, folder, settings)
    return folder


@torch.no_grad()
def test_stock_diffusers_loads_what_is_exported(pipelines, tuned, tmp_path):
    """The whole pipeline by from_pretrained, and the same noise estimate within 1e-4."""
    image, speech = map(str, pipelines)
    export.main([str(tmp_path / "out"), "family=sd15", f"family.image={image}", f"family.speech={speech}",
                 f"family.lora={tuned}", "composition=images_that_sound"])
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    family = Family.load(stable_diffusion_layout(image, speech, lora=str(tuned)), ("speech",))
    x = torch.randn(1, 4, 32, 128, generator=torch.Generator().manual_seed(1))
    tokens, _ = pipeline.encode_prompt("a dog barks", "cpu", 1, False)
    stock = pipeline.unet(x, torch.tensor([400]), tokens).sample
    torch.testing.assert_close(stock, answer(family), rtol=0, atol=1e-4)
    plain = Family.load(stable_diffusion_layout(image, speech), ("speech",))
    assert (answer(plain) - stock).abs().max() > 1e-2
    # And what is exported is a speech branch of ours again.
    again = Family.load(stable_diffusion_layout(image, str(tmp_path / "out")), ("speech", "vocoder"))
    torch.testing.assert_close(answer(again), stock, rtol=0, atol=1e-4)


def test_an_export_overwrites_nothing_and_says_what_it_cannot(pipelines, full, tmp_path):
    with pytest.raises(UserError, match="is there already"):
        export.export_pipeline(stable_diffusion_layout(*map(str, pipelines)), tmp_path)
    with pytest.raises(UserError, match="condition adapters, which no stock pipeline has"):
        export.export_pipeline(stable_diffusion_layout(str(pipelines[0]), str(full)), tmp_path / "new")


def test_a_lora_brings_its_adapter(pipelines, tuned, tmp_path):
    folder = Path(shutil.copytree(tuned, tmp_path / "weights"))
    pocket = tiny_pocket_family(tmp_path / "pocket", "sequence")
    shutil.copytree(pocket / "speech/adapter", folder / "adapter")
    with pytest.raises(UserError, match="family.durations=null"):
        stable_diffusion_layout(*map(str, pipelines), lora=str(folder))
    layout = stable_diffusion_layout(*map(str, pipelines), lora=str(folder), voices=VOICES,
                                     durations=str(pocket / "speech/durations"))
    assert layout.speaks_phonemes and layout.adapter == folder / "adapter"
