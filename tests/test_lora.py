"""A LoRA from training to generating: what is exported sounds as what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from images_that_speak import config
from images_that_speak.diffusion.family import Family, phone_batch
from images_that_speak.diffusion.layout import pocket_layout
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.speech.tts import Phone
from images_that_speak.training.diffusion import LatentDiffusionTraining
from images_that_speak.training.lora import LoraSettings, add_lora, export_lora, half

PHRASE = [Phone("hh", 2.0, 2.1), Phone("ax", 2.1, 2.2), Phone("l", 2.2, 2.4), Phone("ow", 2.4, 2.8)]
# Those of configs/experiment/pocket/lora_voice.yaml: attention, feed-forward and convolutions.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2")


def speech_parts(pocket: Path) -> Family:
    """The speech branch, its parameters ready to be trained."""
    family = Family.load(pocket, ("speech",))
    family.predictors["speech"].requires_grad_(True)
    family.conditioners["speech"].requires_grad_(True)
    return family


def fine_tuned(pocket: Path, folder: Path, **settings) -> LatentDiffusionTraining:
    """A fine-tune of three steps, exported to `folder`."""
    torch.manual_seed(0)
    family = speech_parts(pocket)
    module = LatentDiffusionTraining(
        family.predictors["speech"].unet, family.conditioners["speech"], lr=1e-2, warmup=0,
        lora=LoraSettings(rank=2, alpha=6, targets=TARGETS, **settings))
    batch = {**phone_batch([PHRASE] * 2, [1, 2]), "latent": torch.randn(2, 8, 16, 64)}
    optimizer = module.configure_optimizers()["optimizer"]
    for _ in range(3):
        optimizer.zero_grad()
        module.loss(batch, drop=False).backward()
        optimizer.step()
    module.eval().export(folder)
    return module


@pytest.fixture(scope="module")
def trained(pocket, tmp_path_factory) -> tuple[LatentDiffusionTraining, Path]:
    folder = tmp_path_factory.mktemp("run") / "weights"
    return fine_tuned(pocket, folder, unfreeze=("mid_block",), unfreeze_lr=1e-2), folder


@torch.no_grad()
def estimates(predictor, conditioner) -> torch.Tensor:
    """What a speech branch says of the noise of two noised latents."""
    x = torch.randn(2, 8, 16, 64, generator=torch.Generator().manual_seed(1))
    condition = conditioner.encode(phone_batch([PHRASE, PHRASE[:2]], [1, 2]))
    return predictor(x, torch.tensor([300, 700]), condition).eps


def loaded(pocket: Path, lora: Path | None) -> torch.Tensor:
    family = Family.load(pocket_layout(pocket, lora=lora), ("speech",))
    return estimates(family.predictors["speech"], family.conditioners["speech"])


def test_each_kind_of_parameter_has_its_own_learning_rate(pocket):
    family = speech_parts(pocket)
    module = LatentDiffusionTraining(
        family.predictors["speech"].unet, family.conditioners["speech"], warmup=0, lr=1e-4,
        conditioner_lr=1e-3,
        lora=LoraSettings(rank=2, targets=TARGETS, unfreeze=("mid_block",), unfreeze_lr=2e-5))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == {name for name, p in module.named_parameters() if p.requires_grad}
    for name, rate in rates.items():
        assert rate == (1e-3 if name.startswith("conditioner.") else 1e-4 if "lora_" in name else 2e-5), name
    assert set(rates.values()) == {1e-3, 1e-4, 2e-5}


def test_what_is_loaded_is_what_was_trained(pocket, trained, tmp_path):
    module, folder = trained
    expected = estimates(module.predictor, module.conditioner)
    torch.testing.assert_close(loaded(pocket, folder), expected, rtol=1e-3, atol=1e-3)
    # Neither part beside the LoRA can be left out.
    for part in ("unfrozen.safetensors", "adapter"):
        less = Path(shutil.copytree(folder, tmp_path / part))
        shutil.rmtree(less / part) if (less / part).is_dir() else (less / part).unlink()
        assert (loaded(pocket, less) - expected).abs().max() > 1e-2
    assert (loaded(pocket, None) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_other_kinds_are_loaded_as_they_were_trained(pocket, tmp_path, kind):
    module = fine_tuned(pocket, tmp_path, **{kind: True})
    expected = estimates(module.predictor, module.conditioner)
    torch.testing.assert_close(loaded(pocket, tmp_path), expected, rtol=1e-3, atol=1e-3)
    assert (loaded(pocket, None) - expected).abs().max() > 1e-2
    assert module.predictor.unet.peft_config["default"].to_dict()[f"use_{kind}"] is True


def test_unfrozen_parameters_have_the_names_of_the_plain_unet(pocket, trained):
    """Also those that carry a LoRA: the file alone can be loaded into any UNet of the kind."""
    _, folder = trained
    plain = Family.load(pocket, ("speech",)).predictors["speech"].unet
    whole = load_file(folder / "unfrozen.safetensors")
    assert set(whole) == {name for name, _ in plain.named_parameters() if name.startswith("mid_block.")}
    assert {value.dtype for value in whole.values()} == {torch.float16}


def test_weights_beyond_fp16_stay_as_they_are():
    small, large = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 70_000.0])
    assert half(small).dtype == torch.float16
    assert half(large).equal(large)


def test_an_export_without_unfrozen_parameters_leaves_no_old_ones(pocket, tmp_path):
    settings = LoraSettings(rank=2)
    unet = speech_parts(pocket).predictors["speech"].unet
    add_lora(unet, settings)
    (tmp_path / "unfrozen.safetensors").write_bytes(b"of an earlier export")
    export_lora(unet, tmp_path, settings)
    assert not (tmp_path / "unfrozen.safetensors").exists()


def test_unfrozen_parameters_that_are_not_finite_are_refused(pocket, tmp_path):
    settings = LoraSettings(rank=2, unfreeze=("mid_block",))
    unet = speech_parts(pocket).predictors["speech"].unet
    add_lora(unet, settings)
    torch.nn.init.constant_(unet.mid_block.resnets[0].norm1.weight, float("nan"))
    with pytest.raises(UserError, match="mid_block.resnets.0.norm1.weight holds NaN"):
        export_lora(unet, tmp_path, settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["unfrozen.safetensors", "pytorch_lora_weights.safetensors"])
def test_broken_files_are_told(pocket, trained, tmp_path, file):
    folder = Path(shutil.copytree(trained[1], tmp_path / "weights"))
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{folder}: "):
        loaded(pocket, folder)


# --- files of other tools

def layouts(unet: Any, folder: Path) -> dict[str, Path]:
    """One LoRA of two modules, of ranks 2 and 3 and scale 1.5, as the common tools write it."""
    generator = torch.Generator().manual_seed(0)
    names = [next(name for name, _ in unet.named_modules() if name.endswith(end))
             for end in ("attn1.to_q", "attn2.to_out.0")]
    parts, alpha = {}, {}
    for rank, name in zip((2, 3), names, strict=True):
        out, given = unet.get_submodule(name).weight.shape
        parts[name] = tuple(torch.randn(size, generator=generator) for size in ((rank, given), (out, rank)))
        alpha[name] = torch.tensor(1.5 * rank)

    def write(file: Path, state: dict[str, torch.Tensor], **metadata: str) -> Path:
        file.parent.mkdir()
        save_file({name: value.contiguous() for name, value in state.items()}, file, metadata=metadata)
        return file

    made = {}
    # Scaled already, for a layout that has no place for an alpha.
    for kind, down, up in (("plain", "{}.lora_A.weight", "{}.lora_B.weight"),
                           ("unet", "unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
                           ("older", "unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
                           ("oldest", "{}", "{}")):
        state = {}
        for name, (a, b) in parts.items():
            home, _, to = name.removesuffix(".0").rpartition(".")
            old = f"{home}.processor.{to}_lora"
            state[f"{old}.down.weight" if kind == "oldest" else down.format(name)] = a
            state[f"{old}.up.weight" if kind == "oldest" else up.format(name)] = 1.5 * b
        made[kind] = write(folder / kind / "pytorch_lora_weights.safetensors", state).parent
    for kind, end in (("peft", ""), ("named", ".default")):
        state = {f"base_model.model.{name}.lora_{part}{end}.weight": value
                 for name, values in parts.items() for part, value in zip("AB", values, strict=True)}
        made[kind] = write(folder / kind / "adapter_model.safetensors", state).parent
        (made[kind] / "adapter_config.json").write_text(json.dumps(
            {"lora_alpha": 3.0, "r": 2, "alpha_pattern": {names[1]: 4.5}, "rank_pattern": {names[1]: 3}}))
    kohya = {}
    for name, (a, b) in parts.items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        kohya |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": alpha[name]}
    made["kohya"] = write(folder / "kohya" / "my voice.safetensors", {
        **kohya, "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(1, 1)},
        ss_network_module="networks.lora")
    return made


def test_the_files_of_common_tools_change_what_they_say(pocket, tmp_path, capsys):
    plain = Family.load(pocket, ("speech",)).predictors["speech"].unet
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    found = {}
    for kind, path in layouts(plain, tmp_path).items():
        capsys.readouterr()
        unet = Family.load(pocket_layout(pocket, lora=path), ("speech",)).predictors["speech"].unet
        assert "changes 2 modules of the speech UNet" in capsys.readouterr().out, kind
        state = {name.replace(".base_layer.", "."): value for name, value in unet.state_dict().items()
                 if "lora_" not in name}
        found[kind] = {name: state[name] - value for name, value in before.items()}
    changed = {name for name, value in found["plain"].items() if value.abs().max() > 1e-3}
    assert len(changed) == 2
    for kind, differences in found.items():
        for name, value in differences.items():
            torch.testing.assert_close(value, found["plain"][name], rtol=1e-4, atol=1e-5, msg=kind)


@pytest.mark.parametrize(("name", "shape", "said"), [
    ("unet.nowhere.to_q.lora_A.weight", (2, 2), "nowhere.to_q.lora_A.weight is no layer of the speech UNet"),
    ("lora_unet_input_blocks_99_to_q.lora_down.weight", (2, 2), "is no layer of the speech UNet"),
    ("lora_unet_{flat}.hada_w1_a", (2, 2), "is no layer"),
    ("unet.{name}.lora_A.weight", (2, 2), "has but one half of its update"),
    ("lora_te_text_model.lora_down.weight", (2, 2), "holds no LoRA of a UNet")])
def test_what_fits_no_module_is_refused(pocket, tmp_path, name, shape, said):
    unet = Family.load(pocket, ("speech",)).predictors["speech"].unet
    module = next(name for name, _ in unet.named_modules() if name.endswith("attn1.to_q"))
    save_file({name.format(name=module, flat=module.replace(".", "_")): torch.ones(shape)},
              tmp_path / "pytorch_lora_weights.safetensors")
    for weights in (True, False):
        with pytest.raises(UserError, match=said):
            Family.load(pocket_layout(pocket, lora=tmp_path), ("speech",), weights=weights)


def test_a_lora_that_changes_nothing_says_so(pocket, tmp_path, capsys):
    settings = LoraSettings(rank=2)
    unet = speech_parts(pocket).predictors["speech"].unet
    add_lora(unet, settings)
    export_lora(unet, tmp_path, settings)
    loaded(pocket, tmp_path)
    assert "changes 0 modules" in capsys.readouterr().out


def test_unfrozen_parameters_of_another_unet_are_told(pocket, trained, tmp_path):
    folder = Path(shutil.copytree(trained[1], tmp_path / "weights"))
    save_file({"other_block.weight": torch.zeros(1)}, folder / "unfrozen.safetensors")
    for weights in (True, False):
        with pytest.raises(UserError, match="other_block.weight is no parameter of the speech"):
            Family.load(pocket_layout(pocket, lora=folder), ("speech",), weights=weights)


def test_a_trained_voice_is_heard_with_one_key(pocket, trained, tmp_path):
    """generate.py family.lora=…/weights makes another picture, and says so in its record."""
    pictures = []
    for lora in ("null", trained[1]):
        cfg = config.compose("generate", [
            f"family.weights={pocket}", f"family.lora={lora}", f"paths.logs={tmp_path / str(lora)[-4:]}",
            "steps=2", "composition=speech_only"])
        OmegaConf.update(cfg, "reader", None)
        generate(cfg)
        folder = next((tmp_path / str(lora)[-4:]).glob("generate/*/samples/*"))
        record = json.loads((folder / "sample.json").read_text())
        assert record["settings"]["family"]["lora"] == (None if lora == "null" else str(lora))
        pictures.append((folder / "image.png").read_bytes())
    assert pictures[0] != pictures[1]
