"""The published LoRA checkpoints: imported they say the same, exported they are what they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from tiny_family import WIDTH, tiny_pocket_family, tiny_stable_diffusion, tiny_unet
from torch import nn

from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.layout import stable_diffusion_layout
from images_that_speak.diffusion.loading import apply_lora
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import PublishedAdapter, SequenceAdapter
from images_that_speak.training.lora import LoraSettings, add_lora, export_lora
from images_that_speak.training.lora_published import export_published, import_published

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
RANK, ALPHA = 3, 12.0


class Wrapped(nn.Module):
    """A linear map with the published update beside it: base(x) + α/r · B A x."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.A = nn.Linear(base.in_features, RANK, bias=False)
        self.B = nn.Linear(RANK, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.B(self.A(x)) * (ALPHA / RANK)


def published_unet(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """`unet` with its targets wrapped and, like the mid block, given numbers of their own."""
    torch.manual_seed(5)
    for name, module in list(unet.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(TARGETS):
            parent, _, leaf = name.rpartition(".")
            setattr(unet.get_submodule(parent), leaf, Wrapped(module))
    for name, parameter in unet.named_parameters():
        if ".A." in name or ".B." in name or name.startswith("mid_block"):
            nn.init.normal_(parameter, std=0.1)
    return unet


def save_checkpoint(unet: nn.Module, folder: Path) -> None:
    """The three files as the published training writes them."""
    lora = {}
    for name, module in unet.named_modules():
        if isinstance(module, Wrapped):
            lora |= {f"{name}.A.weight": module.A.weight.detach(),
                     f"{name}.B.weight": module.B.weight.detach(),
                     f"{name}.alpha": torch.tensor(ALPHA), f"{name}.rank": torch.tensor(RANK)}
    torch.save(lora, folder / "lora.pt")
    whole = {name: p.detach() for name, p in unet.named_parameters()
             if name.startswith("mid_block") and ".A." not in name and ".B." not in name}
    torch.save(whole, folder / "base_unet.pt")
    adapter = PublishedAdapter(8, WIDTH, 7)
    torch.save({"state_dict": adapter.state_dict(), "in_dim": 8, "out_dim": WIDTH, "seq_len": 7},
               folder / "phoneme_adapter.pt")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> tuple[Path, Path]:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def checkpoint(pipelines, tmp_path_factory) -> tuple[nn.Module, Path]:
    folder = tmp_path_factory.mktemp("latest")
    unet = published_unet(UNet2DConditionModel.from_pretrained(pipelines[1] / "unet")).eval()
    save_checkpoint(unet, folder)
    return unet, folder


@torch.no_grad()
def test_what_is_imported_says_the_same(pipelines, checkpoint, tmp_path):
    unet, folder = checkpoint
    assert import_published(folder, tmp_path / "ours") == [
        "pytorch_lora_weights.safetensors", "unfrozen.safetensors", "adapter"]
    durations = tiny_pocket_family(tmp_path / "pocket") / "speech/durations"
    (tmp_path / "bert").mkdir()
    layout = stable_diffusion_layout(*map(str, pipelines), lora=str(tmp_path / "ours"),
                                     durations=str(durations),
                                     phoneme_bert=str(tmp_path / "bert"))
    assert layout.adapter == tmp_path / "ours/adapter"
    # The PL-BERT that it was trained with is not at hand; the UNet does without.
    text = stable_diffusion_layout(*map(str, pipelines))
    loaded = Family.load(text, ("speech",)).predictors["speech"].unet
    apply_lora(loaded, tmp_path / "ours")
    x, t, tokens = torch.randn(1, 4, 32, 128), torch.tensor([300]), torch.randn(1, 5, WIDTH)
    torch.testing.assert_close(loaded(x, t, tokens).sample, unet(x, t, tokens).sample, rtol=1e-3, atol=1e-4)


def test_a_round_trip_changes_no_bit(checkpoint, tmp_path):
    folder = checkpoint[1]
    import_published(folder, tmp_path / "ours")
    assert export_published(tmp_path / "ours", tmp_path / "theirs") == [
        "lora.pt", "base_unet.pt", "phoneme_adapter.pt"]
    for name in ("lora.pt", "base_unet.pt"):
        before, after = (torch.load(root / name, weights_only=True) for root in (folder, tmp_path / "theirs"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key].float(), after[key].float()) for key in before), name
    before, after = (torch.load(root / "phoneme_adapter.pt", weights_only=True)
                     for root in (folder, tmp_path / "theirs"))
    assert {key: before[key] for key in ("in_dim", "out_dim", "seq_len")} == {
        key: after[key] for key in ("in_dim", "out_dim", "seq_len")}
    assert all(torch.equal(value, after["state_dict"][key]) for key, value in before["state_dict"].items())


def test_what_training_exports_can_be_exported(tmp_path):
    """A LoRA of ours, with √r scaling: the published code multiplies by α/r."""
    unet = tiny_unet(4)
    settings = LoraSettings(rank=4, alpha=6, targets=TARGETS, rslora=True)
    add_lora(unet, settings)
    export_lora(unet, tmp_path / "ours", settings)
    export_published(tmp_path / "ours", tmp_path / "theirs")
    state = torch.load(tmp_path / "theirs/lora.pt", weights_only=True)
    module = next(name.removesuffix(".A.weight") for name in state if name.endswith(".A.weight"))
    assert float(state[f"{module}.alpha"]) / 4 == pytest.approx(6 / 4**0.5)
    stored = load_file(tmp_path / "ours/pytorch_lora_weights.safetensors")[f"unet.{module}.lora_A.weight"]
    assert torch.equal(state[f"{module}.A.weight"], stored.float())


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(("content", "told"), [
    ({"a": Evil()}, "not a readable checkpoint of plain weights"),
    ({"a": 1}, "expected a dictionary of tensors"),
    ({"a.weight": torch.zeros(1)}, "no <module>.A.weight"),
    ({"a.A.weight": torch.zeros(2, 3)}, "expected rank 2"),
    ({"a.A.weight": torch.zeros(2, 3), "a.B.weight": torch.zeros(3, 2), "a.rank": torch.tensor(8)},
     "expected rank 8"),
])
def test_files_that_are_no_published_lora_are_told(tmp_path, capsys, content, told):
    torch.save(content, tmp_path / "lora.pt")
    with pytest.raises(UserError, match=told):
        import_published(tmp_path, tmp_path / "ours")
    assert "run" not in capsys.readouterr().out and not (tmp_path / "ours").exists()


@pytest.mark.parametrize(("settings", "told"), [
    (LoraSettings(rank=2, targets=("conv1",)), "LoRA of linear maps alone"),
    (LoraSettings(rank=2, dora=True), "LoRA of linear maps alone"),
])
def test_what_the_published_layout_cannot_hold_is_told(tmp_path, settings, told):
    unet = tiny_unet(4)
    add_lora(unet, settings)
    export_lora(unet, tmp_path / "ours", settings)
    with pytest.raises(UserError, match=told):
        export_published(tmp_path / "ours", tmp_path / "theirs")


def test_an_adapter_that_the_published_code_lacks_is_told(checkpoint, tmp_path):
    import_published(checkpoint[1], tmp_path / "ours")
    SequenceAdapter(43, 2, width=WIDTH).save_pretrained(tmp_path / "ours/adapter")
    with pytest.raises(UserError, match="SequenceAdapter, which the published code does not"):
        export_published(tmp_path / "ours", tmp_path / "theirs")
