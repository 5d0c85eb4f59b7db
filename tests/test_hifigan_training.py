"""Training a vocoder: losses, counting, and going on exactly where a killed run stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from machine import needs_font
from omegaconf import DictConfig
from tiny_family import tiny_stable_diffusion
from torch.nn.utils import weight_norm as old_weight_norm

from images_that_speak import config
from images_that_speak.audio.distance import available
from images_that_speak.audio.hifigan import HiFiGAN, save_published
from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture, picture_to_logmel
from images_that_speak.audio.picture import quantise
from images_that_speak.audio.vocoder import load_vocoder, save_vocoder
from images_that_speak.checks import train as check_train
from images_that_speak.data.manifest import Corpus, write_manifest
from images_that_speak.data.pictures import PictureSampler
from images_that_speak.data.renditions import Renditions
from images_that_speak.data.segments import EpochOrder, SpeechSegments, VocoderData
from images_that_speak.errors import UserError
from images_that_speak.networks.autoencoder import PatchAutoencoder
from images_that_speak.networks.codec import decode, encode
from images_that_speak.networks.discriminators import (
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from images_that_speak.scoring.heard import Heard, SpeechReader
from images_that_speak.training.train import train
from images_that_speak.training.vocoder import (
    GeneratorEMA,
    ReadBack,
    VocoderTraining,
    averaged,
    find_start,
)

GENERATOR = {"resblock": "2", "upsample_rates": [8, 5, 4], "upsample_kernel_sizes": [16, 10, 8],
             "upsample_initial_channel": 16, "resblock_kernel_sizes": [3],
             "resblock_dilation_sizes": [[1, 2]]}


def write_corpus(root: Path, clips: int = 7) -> Path:
    """Clips of two seconds of a gliding harmonic tone somewhere in 10.24 s, in the corpus layout."""
    rows, logmel = [], LogMel()
    for folder in ("wav", "spectrograms"):
        (root / folder).mkdir(parents=True)
    for i in range(clips):
        rng = np.random.default_rng(i)
        at, seconds = float(rng.uniform(0.5, 7)), 2.0
        time = np.arange(int(seconds * MEL.sample_rate)) / MEL.sample_rate
        phase = 2 * np.pi * (rng.uniform(90, 200) * time + rng.uniform(-10, 10) * time**2)
        wave = np.zeros(MEL.samples)
        begin = int(at * MEL.sample_rate)
        wave[begin: begin + len(time)] = sum(np.sin(k * phase) / k for k in range(1, 12)) * 0.2
        soundfile.write(root / f"wav/{i}.flac", wave, MEL.sample_rate, subtype="PCM_16")
        wave = soundfile.read(root / f"wav/{i}.flac", dtype="float32")[0]
        np.save(root / f"spectrograms/{i}.npy",
                quantise(logmel_to_picture(logmel(torch.from_numpy(wave)[None]))[0].numpy()))
        rows.append({"id": str(i), "text": "a", "voice": "x", "tts": "tone", "tts_version": "1",
                     "mel_spec": MEL.hash, "split": "valid" if i == 0 else "train", "start": at,
                     "seconds": seconds, "symbols": ["pau"], "starts": [0.0], "ends": [1.0],
                     "spectrogram": f"spectrograms/{i}.npy", "wave": f"wav/{i}.flac"})
    write_manifest(root / "manifest.parquet", rows)
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tones")


def module(**changes: object) -> VocoderTraining:
    torch.manual_seed(0)
    return VocoderTraining(**{"generator": GENERATOR, "discriminator_width": 1 / 32, "periods": [2, 3],
                              "scales": 2, "decay": 0.5, "epoch_steps": 3,
                              **changes})


class Record(Callback):
    """Losses of every batch, and the process killed as `kill -9` does at the end of batch `die`."""

    def __init__(self, die: int | None = None):
        self.die, self.losses = die, {}

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.losses[trainer.global_step] = float(trainer.logged_metrics["train/loss"])
        if trainer.global_step == self.die:
            os.kill(os.getpid(), signal.SIGKILL)


def trainer(folder: Path, steps: int, *callbacks: Callback, **settings: object) -> L.Trainer:
    return L.Trainer(max_steps=steps, accelerator="cpu", logger=False, callbacks=list(callbacks),
                     default_root_dir=folder, log_every_n_steps=1, enable_progress_bar=False,
                     enable_model_summary=False, num_sanity_val_steps=0,
                     **{"enable_checkpointing": False, "limit_val_batches": 0, **settings})


def run(corpus: Path, folder: Path, steps: int, die: int | None = None) -> tuple[VocoderTraining, L.Trainer]:
    """Train `steps` batches of two, a checkpoint after every second one; from last.ckpt if there is one."""
    torch.set_num_threads(1)
    keep = ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, save_last=True)
    model = module(pretrain_mel_steps=3)
    runner = trainer(folder, steps, Record(die), GeneratorEMA(0.9), keep, enable_checkpointing=True)
    last = folder / "last.ckpt"
    runner.fit(model, VocoderData(corpus, batch_size=2, segment=2400),
               ckpt_path=last if last.exists() else None, weights_only=True)
    return model, runner


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_killed_run_goes_on_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from pathlib import Path; import test_hifigan_training as t\n"
            f"t.run(Path({str(corpus)!r}), Path({str(tmp_path / 'killed')!r}), 10, die=5)\n")
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed, first = run(corpus, tmp_path / "killed", 10)
    whole, second = run(corpus, tmp_path / "whole", 10)

    assert resumed.global_step == whole.global_step == 10
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    losses = [next(c for c in r.callbacks if isinstance(c, Record)).losses for r in (first, second)]
    assert sorted(losses[0]) == [5, 6, 7, 8, 9, 10]  # after the checkpoint of batch 4
    assert losses[0] == {step: losses[1][step] for step in losses[0]}
    shadows = [next(c for c in r.callbacks if isinstance(c, GeneratorEMA)).shadow for r in (first, second)]
    assert shadows[0].keys() == shadows[1].keys() and all(k.startswith("generator.") for k in shadows[0])
    assert all(torch.equal(shadows[0][name], shadows[1][name]) for name in shadows[0])
    for mine, theirs in zip(first.optimizers, second.optimizers, strict=True):
        a, b = mine.state_dict(), theirs.state_dict()
        assert a["param_groups"] == b["param_groups"]
        assert all(torch.equal(a["state"][i][k], b["state"][i][k]) for i in a["state"] for k in a["state"][i])
    rates = [o.param_groups[0]["lr"] for o in second.optimizers]  # three epochs, the first of them warm-up
    assert rates == [pytest.approx(2e-4 * 0.5**3), pytest.approx(2e-4 * 0.5**2)]
    carried = averaged(tmp_path / "whole" / "last.ckpt").generator.state_dict()
    assert all(torch.equal(value, shadows[1][f"generator.{name}"]) for name, value in carried.items())


def test_a_batch_is_one_step(corpus: Path, tmp_path: Path) -> None:
    model, record = module(), Record()
    runner = trainer(tmp_path, 4, record)
    runner.fit(model, VocoderData(corpus, batch_size=2, segment=2400))
    assert runner.global_step == 4 and list(record.losses) == [1, 2, 3, 4]
    assert runner.fit_loop.total_batch_idx == 3  # the fourth batch
    steps = [{int(s["step"]) for s in o.state_dict()["state"].values()} for o in runner.optimizers]
    assert steps == [{4}, {4}]  # both optimisers really stepped on each of them


def test_warm_up_leaves_the_discriminators_alone(corpus: Path, tmp_path: Path) -> None:
    model = module(pretrain_mel_steps=2, stft_weight=1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    runner = trainer(tmp_path, 2)
    runner.fit(model, VocoderData(corpus, batch_size=2, segment=2400))
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"generator"} and "train/stft" in runner.logged_metrics
    assert "train/discriminator" not in runner.logged_metrics


def test_learns_and_validates(corpus: Path, tmp_path: Path) -> None:
    model = module(lr=5e-3, pretrain_mel_steps=100, decay=1.0, architecture="vocos",
                   generator={"dim": 32, "layers": 2})
    data = VocoderData(corpus, batch_size=4, segment=2400, valid_seconds=1)
    runner = trainer(tmp_path, 1, limit_val_batches=1)
    before = runner.validate(model, data, verbose=False)[0]
    trainer(tmp_path, 25, Record()).fit(model, data)
    after = trainer(tmp_path, 1, limit_val_batches=1).validate(model, data, verbose=False)[0]
    assert after["valid/mel_error"] < 0.9 * before["valid/mel_error"]
    expected = {f"valid/{name}" for name in ("mel_error", "mcd", "stft_convergence", "stft_log")}
    expected |= {f"valid/{name}" for name, package in (("pesq", "pesq"), ("stoi", "pystoi"))
                 if available(package)}
    assert set(after) == expected and after["valid/mcd"] < before["valid/mcd"]


def test_mixed_precision_keeps_losses_in_float32(corpus: Path, tmp_path: Path) -> None:
    runner = trainer(tmp_path, 1, precision="bf16-mixed")
    runner.fit(module(stft_weight=1.0), VocoderData(corpus, batch_size=2, segment=2400))
    assert runner.logged_metrics["train/mel"].dtype == torch.float32
    assert all(torch.isfinite(value) for value in runner.logged_metrics.values())


def test_losses_have_their_closed_forms() -> None:
    real = [torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0]])]
    made = [torch.tensor([[0.5]]), torch.tensor([[2.0]])]
    assert discriminator_loss(real, made).item() == pytest.approx((0.125 + 0.25) + (1 + 4))
    assert generator_loss(made).item() == pytest.approx(0.25 + 1)
    features = feature_matching_loss([[torch.zeros(2, 3), torch.ones(4)]],
                                     [[torch.ones(2, 3), torch.ones(4)]])
    assert features.item() == pytest.approx(1)


def test_discriminators_are_the_published_ones() -> None:
    mpd, msd = MultiPeriodDiscriminator(), MultiScaleDiscriminator()
    assert [d.period for d in mpd.discriminators] == [2, 3, 5, 7, 11]
    spectral = [any(name.endswith("weight.0._u") for name in d.state_dict()) for d in msd.discriminators]
    assert spectral == [True, False, False]
    wave = torch.randn(2, 8160)
    judged = MultiPeriodDiscriminator(width=1 / 32)(wave) + MultiScaleDiscriminator(width=1 / 32)(wave)
    assert len(judged.scores) == 8 and [len(f) for f in judged.features] == [6] * 5 + [8] * 3
    assert all(scores.shape[0] == 2 for scores in judged.scores)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_published_layout_round_trip(corpus: Path, tmp_path: Path) -> None:
    model = module()
    runner = trainer(tmp_path, 3)
    runner.fit(model, VocoderData(corpus, batch_size=2, segment=2400))
    model.save_published(tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "g_00000003", "do_00000003"}

    # The published code's own modules, old weight norm, take the names as they are.
    state = torch.load(tmp_path / "run" / "do_00000003", weights_only=True)
    reference = MultiPeriodDiscriminator([2, 3], 1 / 32)
    for parent in list(reference.modules()):
        for name, conv in parent.named_children():
            if isinstance(conv, torch.nn.Conv2d):
                plain = torch.nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
                                        conv.padding)
                parent.add_module(name, old_weight_norm(plain))
    reference.load_state_dict(state["mpd"])
    wave = torch.randn(1, 2400)
    assert all(torch.equal(a, b) for a, b in zip(reference(wave).scores, model.mpd(wave).scores, strict=True))
    assert any(name.endswith("weight_u") for name in state["msd"])

    # Trained on from there, as if the run had gone on: same weights, same moments, counted from step 3.
    other = module(lr=1.0)
    other.load_published(tmp_path / "run")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items()
               if name != "steps_before")
    # As an older torch wrote them: steps as plain numbers, and fewer settings.
    for key in ("optim_g", "optim_d"):
        for moments in state[key]["state"].values():
            moments["step"] = int(moments["step"])
        state[key]["param_groups"] = [{name: group[name] for name in (
            "lr", "betas", "eps", "weight_decay", "amsgrad", "initial_lr", "params")}
            for group in state[key]["param_groups"]]
    torch.save(state, tmp_path / "run" / "do_00000003")
    other.load_published(tmp_path / "run")
    again = trainer(tmp_path, 1)
    again.fit(other, VocoderData(corpus, batch_size=2, segment=2400))
    assert {int(s["step"]) for s in again.optimizers[0].state_dict()["state"].values()} == {4}
    assert again.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)  # halved after the first epoch
    other.save_published(tmp_path / "run")
    assert (tmp_path / "run" / "do_00000004").exists()
    with pytest.raises(UserError, match="made with"):
        module(generator={**GENERATOR, "upsample_initial_channel": 8}).load_published(tmp_path / "run")


def test_export_plays(tmp_path: Path) -> None:
    model = module().eval()
    model.export(tmp_path)
    tmp_path = tmp_path / "vocoder"
    logmel = torch.randn(1, 256, 20)
    with torch.no_grad():
        assert torch.allclose(load_vocoder(tmp_path)(logmel), model.generator(logmel), atol=1e-3)


def test_segments_line_up_with_their_wave(corpus: Path) -> None:
    segments = SpeechSegments(corpus, frames=60)
    item = segments[13]
    assert item["logmel"].shape == (256, 60) and item["wave"].shape == (9600,)
    again = LogMel()(item["wave"][None])[0]
    middle = slice(8, -8)  # frames whose window lies within the segment
    assert (again[:, middle] - item["logmel"][:, middle]).abs().max() < 0.5 * MEL.log_range / 255 + 2e-3
    assert all(torch.equal(segments[13][key], item[key]) for key in item)
    assert not torch.equal(segments[13 + len(segments)]["wave"], item["wave"])  # another epoch, another place


def test_every_epoch_has_every_clip_in_its_own_order() -> None:
    keys = list(EpochOrder(50, length=120, seed=3))
    assert sorted(keys[:100]) == list(range(100)) and len(keys) == 120 and min(keys[100:]) >= 100
    assert [key % 50 for key in keys[:50]] != [key % 50 for key in keys[50:100]]


def test_too_few_clips_is_one_error(corpus: Path) -> None:
    with pytest.raises(UserError, match="batch_size=99"):
        VocoderData(corpus, batch_size=99).train_dataloader()
    with pytest.raises(UserError, match="frames=0"):
        SpeechSegments(corpus, frames=0)


# --- other pictures of the same sound

@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    vae = PatchAutoencoder(patch=16, latent_channels=8, width=8, layers=1)
    vae.mean.fill_(-0.9)
    vae.save_pretrained(folder)
    return folder


def test_decoded_pictures_are_what_the_autoencoder_gives_back(corpus: Path, autoencoder: Path,
                                                              tmp_path: Path) -> None:
    data = VocoderData(corpus, batch_size=2, segment=2400, mel_source="autoencoder", autoencoder=autoencoder,
                       rendered=tmp_path)
    data.prepare_data()
    vae, clips = PatchAutoencoder.from_pretrained(autoencoder), Corpus.open(corpus, "train")
    with torch.no_grad():
        picture = torch.from_numpy(np.array(clips.picture(2)))[None, None].float() / 255
        expected = quantise(decode(vae, encode(vae, picture).mean)[0, 0].clamp(0, 1).numpy())
    found = data.pictures("train").picture(2)
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 1
    batch = next(iter(data.train_dataloader()))
    own = next(iter(VocoderData(corpus, batch_size=2, segment=2400).train_dataloader()))
    assert torch.equal(batch["wave"], own["wave"]) and not torch.equal(batch["logmel"], own["logmel"])
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    data.prepare_data()
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    other = PatchAutoencoder(patch=16, latent_channels=4, width=0)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="another autoencoder"):
        Renditions(clips, "autoencoder", tmp_path / "train", tmp_path / "other").prepare()


@needs_font
def test_drawings_are_laid_beside_or_over_the_words(corpus: Path, tmp_path: Path) -> None:
    clips = Corpus.open(corpus, "train")
    for over in (0.0, 1.0):
        joint = Renditions(clips, "joint", tmp_path / str(over), over=over, seed=3)
        joint.prepare()
        changed = []
        for row in range(len(clips)):
            own, found = clips.picture(row).astype(int), joint.picture(row).astype(int)
            assert (found >= own).all() and (found > own).any()
            begin = int(clips.table["start"].iloc[row] * 100)
            changed.append((found > own)[:, begin: begin + 200].any())
        assert any(changed) == bool(over)
        assert found.max() / 255 <= max(0.71, own.max() / 255)
    assert PictureSampler(3).sample(0)[0].shape == found.shape


def test_a_source_is_checked(corpus: Path, tmp_path: Path) -> None:
    for options, said in (({"mel_source": "autoencder"}, "Did you mean 'autoencoder'"),
                          ({"mel_source": "autoencoder"}, "data.autoencoder=DIR"),
                          ({"mel_source": "joint", "over": 2}, "data.over=2")):
        with pytest.raises(UserError, match=said):
            VocoderData(corpus, **options)
    for source in ("autoencoder", "joint"):
        with pytest.raises(UserError, match=f"data.autoencoder={tmp_path}: no such folder"):
            VocoderData(corpus, mel_source=source, autoencoder=tmp_path, rendered=tmp_path)


# --- from a published vocoder

def test_goes_on_from_a_published_vocoder(corpus: Path, tmp_path: Path) -> None:
    """Auffusion's layout, config.json and vocoder.pt: its settings and its weights, then trained further."""
    torch.manual_seed(1)
    theirs = HiFiGAN(**{**GENERATOR, "upsample_initial_channel": 8})
    save_published(theirs, tmp_path / "vocoder", name="vocoder.pt")
    model = module(start=str(tmp_path / "vocoder"))
    assert model.hparams["generator"] == theirs.config
    keep = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    begun = {}

    class Begin(Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            begun.update({k: v.detach().clone() for k, v in pl_module.generator.state_dict().items()})

    trainer(tmp_path, 1, Begin(), keep, enable_checkpointing=True).fit(
        model, VocoderData(corpus, batch_size=2, segment=2400))
    assert all(torch.equal(value, begun[name]) for name, value in theirs.state_dict().items())
    assert any(not torch.equal(value, begun[name]) for name, value in model.generator.state_dict().items())
    # A run that goes on has its own weights, and the averaged module does without the folder.
    resumed = module(start=str(tmp_path / "vocoder"))
    mine = {name: value.detach().clone() for name, value in model.generator.state_dict().items()}
    trainer(tmp_path, 2, Begin()).fit(resumed, VocoderData(corpus, batch_size=2, segment=2400),
                                      ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert all(torch.equal(value, begun[name]) for name, value in mine.items())
    (tmp_path / "vocoder" / "config.json").unlink()
    assert averaged(tmp_path / "last.ckpt").generator.config == theirs.config
    with pytest.raises(UserError, match="architecture=hifigan"):
        module(start=str(tmp_path), architecture="vocos", generator={"dim": 8})


def tiny_experiment(corpus: Path, tmp_path: Path, *overrides: str) -> DictConfig:
    """experiment=hifigan on tones, with narrow discriminators."""
    return config.compose("train", [
        "experiment=hifigan", "+model.discriminator_width=0.03125", f"data.root={corpus}", "steps=1",
        "data.batch_size=2", "data.segment=2400", "data.valid_clips=1", "callbacks.read_back.clips=1",
        "trainer.validate_every=1", "device=cpu", f"data.rendered={tmp_path}",
        f"paths.logs={tmp_path / 'logs'}", *overrides])


@pytest.mark.parametrize("source", [
    "ground_truth", "autoencoder",
    pytest.param("joint", marks=needs_font)])
def test_the_experiment_goes_on_from_auffusion_s_vocoder(corpus: Path, autoencoder: Path, tmp_path: Path,
                                                         source: str) -> None:
    """From the pipeline's folder to a vocoder that plays, with every figure of the validation."""
    theirs = tiny_stable_diffusion(tmp_path)[1]
    cfg = tiny_experiment(corpus, tmp_path, f"model.start={theirs}", f"data.mel_source={source}",
                          f"data.autoencoder={autoencoder}")
    lines, problems = check_train.check(cfg)
    assert not problems and any(line.startswith("networks") for line in lines)
    result = train(cfg)
    figures = {"mel_error", "mcd", "stft_convergence", "stft_log", "wer", *(
        name for name, package in (("pesq", "pesq"), ("stoi", "pystoi")) if available(package))}
    assert figures == {key.removeprefix("valid/") for key in result if key.startswith("valid/")}
    made = load_vocoder(next((tmp_path / "logs/train").iterdir()) / "weights")
    begun = load_vocoder(theirs)
    assert made.config == begun.config
    assert (made.conv_pre.weight - begun.conv_pre.weight).abs().max() < 1e-2  # one step away


@pytest.mark.parametrize(("start", "told"), [
    ("nowhere", "model.start=nowhere: no such folder"),
    ("owner/name/vocoder", "model.start=owner/name: not in the hub's cache.*hf download owner/name"),
    ("broken", "vocoder.pt: not a readable checkpoint"), ("ours", "is made for playing")])
def test_a_start_that_cannot_be_gone_on_from_is_told_before(
        corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    save_published(HiFiGAN(**GENERATOR), Path("broken"), name="vocoder.pt")
    Path("broken/vocoder.pt").write_bytes(b"no weights")
    save_vocoder(HiFiGAN(**GENERATOR), Path("ours"))
    problem, = check_train.check(tiny_experiment(corpus, tmp_path, f"model.start={start}"))[1]
    assert re.search(told, problem)


def test_only_the_vocoder_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    theirs, asked = tiny_stable_diffusion(tmp_path)[1], {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda *_, **options: asked.update(options) or theirs)
    assert find_start("owner/name@v2/vocoder") == theirs / "vocoder/vocoder.pt"
    assert asked["revision"] == "v2" and asked["allow_patterns"] == ["vocoder/*"]


# --- read back

class Parrot(SpeechReader):
    """Hears one word of what the first batch of pictures says; keeps what it was given."""

    name = "parrot"
    normaliser = "plain"

    def __init__(self) -> None:
        self.waves: list[np.ndarray] = []
        self.words: list[str] = []

    def extend(self, texts: list[str]) -> list[str]:
        self.words += texts
        return texts

    def read(self, wave: np.ndarray) -> Heard:
        return Heard("a")

    def read_many(self, waves: list[np.ndarray]) -> list[Heard]:
        self.waves += waves
        return [Heard("a b")] * len(waves)


def test_whole_pictures_are_read_at_validation(corpus: Path, tmp_path: Path) -> None:
    reader = Parrot()
    runner = trainer(tmp_path, 1, ReadBack(reader, clips=4), limit_val_batches=1)
    model, data = module(), VocoderData(corpus, batch_size=2, segment=2400)
    found = runner.validate(model, data, verbose=False)[0]
    assert found["valid/wer"] == 1.0  # "a" was said, "a b" heard: one insertion a word
    assert reader.words == ["a"] and [len(wave) for wave in reader.waves] == [MEL.samples]
    picture = torch.from_numpy(np.array(Corpus.open(corpus, "valid").picture(0)))[None].float() / 255
    with torch.no_grad():
        expected = model.generator(picture_to_logmel(picture))[0].numpy()
    assert np.allclose(reader.waves[0], expected, atol=1e-5)
