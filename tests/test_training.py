"""Training latent diffusion: known targets, exact resume, LoRA that stock diffusers loads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_training
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from machine import apart
from omegaconf import OmegaConf
from tiny_training import RandomLatents, build
from torch.utils.data import DataLoader

from images_that_speak.diffusion.predictor import NoiseSchedule, Predictor
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import (
    ADAPTERS,
    AlignedAdapter,
    PooledAdapter,
    SequenceAdapter,
)
from images_that_speak.networks.condition import Condition
from images_that_speak.runs.metrics import MetricsJsonl
from images_that_speak.training.diffusion import (
    LatentDiffusionTraining,
    column_weights,
    crop_to_speech,
    pocket_unet,
    widened_unet,
)
from images_that_speak.training.ema import EMA
from images_that_speak.training.fit import fit
from images_that_speak.training.lora import LoraSettings
from images_that_speak.training.schedule import learning_rate_factor
from images_that_speak.training.train import train as run_training


def tiny_unet() -> UNet2DConditionModel:
    return pocket_unet(channels=(16, 32), latent_channels=4, size=(8, 16), cross_attention_dim=32)


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")


def assert_same(a: object, b: object, where: str = "") -> None:
    """Bit for bit, through nested containers."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert a == b, where


@torch.no_grad()
def test_a_widened_unet_says_the_same_of_the_channels_it_knew(tmp_path: Path) -> None:
    tiny_unet().save_pretrained(tmp_path)
    narrow, wide = UNet2DConditionModel.from_pretrained(tmp_path), widened_unet(str(tmp_path), 6)
    x, t, tokens = torch.randn(2, 6, 8, 16), torch.tensor([3, 700]), torch.randn(2, 5, 32)
    said = wide(x, t, tokens).sample
    torch.testing.assert_close(said[:, :4], narrow(x[:, :4], t, tokens).sample)
    assert not said[:, 4:].any()
    assert wide.config.in_channels == wide.config.out_channels == 6
    with pytest.raises(UserError, match="latent_channels=3.*has 4"):
        widened_unet(str(tmp_path), 3)


@pytest.mark.parametrize("kind", ["diffusion", "lora"])
def test_kill_and_resume_is_bit_identical(kind: str, tmp_path: Path) -> None:
    """Killed twice, in the first epoch and in the second, against a run never stopped."""
    assert apart(tiny_training.train, kind, tmp_path / "whole", 9) == 0
    assert apart(tiny_training.train, kind, tmp_path / "killed", 9, 4) == -9
    assert apart(tiny_training.train, kind, tmp_path / "killed", 9, 8) == -9
    assert apart(tiny_training.train, kind, tmp_path / "killed", 9) == 0
    whole, killed = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed")
    assert whole["global_step"] == killed["global_step"] == 9
    assert_same(whole["state_dict"], killed["state_dict"])
    assert_same(whole["optimizer_states"], killed["optimizer_states"])
    ema = next(key for key in whole["callbacks"] if key.startswith("EMA"))
    assert_same(whole["callbacks"][ema], killed["callbacks"][ema])
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "killed/metrics.jsonl").read_bytes()
    if kind == "lora":
        # Only what is trained: LoRA, the unfrozen block and the conditioner.
        names = set(whole["state_dict"])
        assert all("lora_" in n or "mid_block.resnets.0" in n or n.startswith("conditioner.") for n in names)


def loaders() -> tuple[DataLoader, DataLoader]:
    data = RandomLatents()
    train, valid = (DataLoader([data[n] for n in range(8)], batch_size=2) for _ in range(2))
    return train, valid


@pytest.mark.parametrize(("steps", "accumulate", "validated"), [(3, 1, [3]), (6, 1, [4, 6]), (4, 1, [4]),
                                                               (3, 2, [2, 3])])
def test_the_last_step_is_validated(steps: int, accumulate: int, validated: list[int],
                                    tmp_path: Path) -> None:
    """Whatever `validate_every` is; once, where it is due anyway."""
    metrics = MetricsJsonl(tmp_path / "metrics.jsonl", 1)
    train, valid = loaders()
    fit(build("speech"), train, tmp_path, max_steps=steps, valid=valid, validate_every=4, ema_decay=None,
        accumulate=accumulate, callbacks=[metrics], accelerator="cpu", progress=False)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "valid/loss" in row] == validated
    assert metrics.figures["valid/loss"] == [row for row in rows if "valid/loss" in row][-1]["valid/loss"]
    assert checkpoint(tmp_path)["global_step"] == steps


def test_weights_do_not_go_back(tmp_path: Path) -> None:
    train, _ = loaders()
    options = {"ema_decay": None, "accelerator": "cpu", "progress": False}
    fit(build("speech"), train, tmp_path, max_steps=3, **options)
    before = (tmp_path / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(UserError, match="steps=2: .*last.ckpt is of step 3 already; expected at least 3"):
        fit(build("speech"), train, tmp_path, max_steps=2, **options)
    (tmp_path / "run.json").write_text("{}")
    cfg = OmegaConf.create({"resume": str(tmp_path), "steps": 2, "model": {}})
    with pytest.raises(UserError, match="steps=2"):
        run_training(cfg)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "run.json"}
    assert (tmp_path / "checkpoints/last.ckpt").read_bytes() == before


def test_schedule_is_stable_diffusions() -> None:
    reference = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                              prediction_type="v_prediction")
    schedule = NoiseSchedule()
    torch.testing.assert_close(schedule.alphas_cumprod.float(), reference.alphas_cumprod,
                               rtol=1e-5, atol=1e-6)
    x0, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), reference.add_noise(x0, noise, t))
    torch.testing.assert_close(schedule.target(x0, noise, t, "v_prediction"),
                               reference.get_velocity(x0, noise, t))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predictor_inverts_its_target(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A UNet that answered its target exactly would give back x₀ and the noise."""
    schedule = NoiseSchedule()
    predictor = Predictor(tiny_unet(), schedule, kind)
    x0, noise, t = torch.randn(2, 4, 8, 16), torch.randn(2, 4, 8, 16), torch.tensor([30, 900])
    monkeypatch.setattr(predictor.unet, "forward", lambda *_, **__: SimpleNamespace(
        sample=schedule.target(x0, noise, t, kind)))
    condition = Condition(torch.randn(2, 3, 32), torch.ones(2, 3, dtype=torch.bool))
    found = predictor(schedule.add_noise(x0, noise, t), t, condition)
    torch.testing.assert_close(found.x0, x0, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.eps, noise, rtol=1e-3, atol=1e-4)


def test_residual_is_added_to_conv_in() -> None:
    """A constant residual is the same as a larger bias of conv_in."""
    unet = tiny_unet().eval()
    predictor = Predictor(unet, NoiseSchedule())
    x, t = torch.randn(2, 4, 8, 16), torch.tensor([10, 20])
    tokens, mask = torch.randn(2, 3, 32), torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad():
        shifted = predictor.raw(x, t, Condition(tokens, mask, torch.full((2, 16, 8, 16), 0.5)))
        unet.conv_in.bias += 0.5
        torch.testing.assert_close(predictor.raw(x, t, Condition(tokens, mask)), shifted)


def batch(phones: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor(phones)
    return {"phones": ids, "phone_mask": ids > 0, "voice": torch.ones(len(ids), dtype=torch.long),
            "frame_phones": ids.repeat_interleave(32, dim=1), "frame_position": torch.zeros(len(ids), 128)}


def adapters() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {"pooled": PooledAdapter(43, 2, width=32), "sequence": SequenceAdapter(43, 2, width=32),
            "aligned": AlignedAdapter(43, 2, channels=8, rows=4, columns=16, frames=128, width=32, hidden=32)}


def test_only_the_pooled_adapter_loses_order() -> None:
    forwards, backwards = batch([[5, 6, 7, 8]]), batch([[8, 7, 6, 5]])
    for name, adapter in adapters().items():
        adapter.eval()
        same = torch.allclose(adapter.encode(forwards).tokens, adapter.encode(backwards).tokens, atol=1e-5)
        assert same == (name == "pooled"), name


def test_padding_changes_nothing_and_dropping_is_null() -> None:
    for name, adapter in adapters().items():
        adapter.eval()
        if name != "aligned":
            short, long = batch([[5, 6]]), batch([[5, 6, 0, 0]])
            kept = adapter.encode(long).tokens[:, :adapter.encode(short).tokens.shape[1]]
            torch.testing.assert_close(adapter.encode(short).tokens, kept, atol=1e-5, rtol=1e-4)
        two = batch([[5, 6, 7, 8], [9, 8, 7, 6]])
        dropped = adapter.encode(adapter.drop(two, torch.tensor([True, False])))
        assert torch.equal(dropped.tokens[1], adapter.encode(two).tokens[1])
        other = adapter.drop(batch([[1, 2, 3, 4], [9, 8, 7, 6]]), torch.tensor([True, False]))
        assert torch.equal(dropped.tokens[0], adapter.encode(other).tokens[0]), name


def test_aligned_adapter_sees_time_and_starts_at_zero() -> None:
    adapter = adapters()["aligned"]
    first = adapter.encode(batch([[5, 6, 7, 8]]))
    assert first.residual.shape == (1, 8, 4, 16) and not first.residual.any()
    torch.nn.init.normal_(adapter.spread.weight)
    a = adapter.encode(batch([[5, 6, 2, 2]])).residual
    b = adapter.encode(batch([[5, 6, 2, 9]])).residual
    difference = (a - b).abs().sum((0, 1, 2))
    assert difference[-2:].min() > 1e-3
    assert set(ADAPTERS) == {"pooled", "sequence", "aligned", "pitched", "published"}


@pytest.mark.parametrize("name", ["pooled", "sequence", "aligned"])
def test_adapters_survive_saving(name: str, tmp_path: Path) -> None:
    adapter = adapters()[name].eval()
    adapter.save_pretrained(tmp_path)
    again = ADAPTERS[name].from_pretrained(tmp_path).eval()
    phones = batch([[5, 6, 7, 8]])
    assert torch.equal(adapter.encode(phones).tokens, again.encode(phones).tokens)


def test_column_weights() -> None:
    frames = torch.full((1, 64), 2)  # pauses
    frames[0, 20] = 7  # one sounding frame, in column 5 of 16
    weights = column_weights(frames, 16, 0.25)[0, 0, 0]
    assert weights.tolist() == [1.0 if column in (4, 5, 6) else 0.25 for column in range(16)]


def test_crops_keep_latents_and_phonemes_together() -> None:
    frames = torch.full((64, 128), 2)
    frames[:, 80:96] = 7  # columns 10 and 11 of 16 sound
    latent = torch.arange(16.0).expand(64, 3, 4, 16)
    data = {"latent": latent, "frame_phones": frames, "frame_position": torch.arange(128.0).expand(64, 128)}
    cut = crop_to_speech(data, 6)
    assert cut["latent"].shape == (64, 3, 4, 6) and cut["frame_phones"].shape == (64, 48)
    assert torch.equal(cut["latent"][:, 0, 0] * 8, cut["frame_position"][:, ::8])
    assert ((cut["frame_phones"] == 7).sum(1) == 16).all()  # both sounding columns are within every window
    assert len(cut["latent"][:, 0, 0, 0].unique()) > 1


def test_learning_rate() -> None:
    assert [learning_rate_factor(s, 4, 12) for s in (0, 3, 4, 8, 12)] == pytest.approx([0.25, 1, 1, 0.5, 0])


def test_ema_is_the_stated_average() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(0.5)
    ema.shadow = {"weight": torch.zeros(1, 1)}
    trainer = type("Trainer", (), {"global_step": 0})()
    for step in (1, 2):
        trainer.global_step = step
        module.weight.data.fill_(1.0)
        ema.on_train_batch_end(trainer, module)
    # Warm-up: decays (1+1)/(10+1) and (1+2)/(10+2), both below 0.5.
    assert ema.shadow["weight"].item() == pytest.approx(1 - (2 / 11) * (3 / 12))
    with ema.applied(module):
        assert module.weight.item() == pytest.approx(ema.shadow["weight"].item())
    assert module.weight.item() == 1.0


def test_an_average_has_the_running_statistics_of_its_weights() -> None:
    norm, ema = torch.nn.BatchNorm1d(1), EMA(0.5)
    ema.on_fit_start(None, norm)
    norm.running_mean.fill_(1.0)
    ema.on_train_batch_end(type("Trainer", (), {"global_step": 1})(), norm)
    with ema.applied(norm):
        assert norm.running_mean.item() == pytest.approx(9 / 11)
    assert norm.running_mean.item() == 1.0


def test_exported_lora_loads_in_stock_diffusers(tmp_path: Path) -> None:
    """The same noise estimate from a fresh UNet with the exported file, by diffusers' own loader."""
    module = build("lora")
    unet = module.unet.eval()
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    module.lora = LoraSettings(rank=2)
    module.export(tmp_path)
    torch.manual_seed(7)
    fresh = build("diffusion").unet.eval()
    plain = {k.replace(".base_layer", ""): v for k, v in unet.state_dict().items() if "lora_" not in k}
    fresh.load_state_dict(plain)
    x, t, tokens = torch.randn(1, 4, 8, 16), torch.tensor([300]), torch.randn(1, 5, 32)
    before = fresh(x, t, tokens).sample
    fresh.load_lora_adapter(tmp_path, prefix="unet", weight_name="pytorch_lora_weights.safetensors")
    after, expected = fresh(x, t, tokens).sample, unet(x, t, tokens).sample
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
    assert (after - before).abs().max() > 1e-3


def test_lora_names_what_does_not_fit() -> None:
    with pytest.raises(UserError, match="lora.targets: 'to_queue'"):
        LatentDiffusionTraining(tiny_unet(), SequenceAdapter(43, 2, width=32),
                                lora=LoraSettings(targets=("to_queue",)))
    with pytest.raises(UserError, match="lora.unfreeze"):
        LatentDiffusionTraining(tiny_unet(), SequenceAdapter(43, 2, width=32),
                                lora=LoraSettings(unfreeze=("up_blocks.9",)))


def test_training_lowers_the_loss() -> None:
    module = build("diffusion")
    data = batch([[5, 6, 7, 8]] * 4)
    data["latent"] = torch.randn(1, 4, 8, 16).expand(4, -1, -1, -1)
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for step in range(60):
        torch.manual_seed(step % 10)
        loss = module.loss(data, drop=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_precision_that_the_cpu_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from images_that_speak.training.train import slow_precision

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert slow_precision("32-true", "cpu") is None
    assert "precision=32-true" in str(slow_precision("bf16-mixed", "cpu"))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert slow_precision("bf16-mixed", "cpu") is None


def test_slurm_s_requeueing_is_left_to_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    from images_that_speak.training.fit import cluster

    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert cluster() == []
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    plugin, = cluster()
    assert plugin.auto_requeue is False
