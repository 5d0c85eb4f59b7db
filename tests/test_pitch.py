"""The pitch of a voice: tracked, kept, told to an adapter, and expected where it is not told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_datamodule import make_corpus
from tiny_family import tiny_unet

from images_that_speak import config
from images_that_speak.audio.mel import MEL
from images_that_speak.data import pitches as module
from images_that_speak.data.datamodule import SpeechClips
from images_that_speak.diffusion.family import Family, activity
from images_that_speak.diffusion.planning import generate_batch, plan, read_settings
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import AlignedAdapter, PitchedAdapter, pitched_adapter
from images_that_speak.networks.adapters.pitched import harmonics
from images_that_speak.networks.autoencoder import PatchAutoencoder
from images_that_speak.speech.phonemes import PHONE_IDS
from images_that_speak.speech.pitch import LOWEST, pitch_contour
from images_that_speak.speech.tts import Phone
from images_that_speak.training.diffusion import LatentDiffusionTraining, crop_to_speech

SIZES = {"phones": 43, "voices": 2, "channels": 16, "rows": 16, "columns": 16, "frames": 256, "width": 16,
         "hidden": 16, "embedding": 8, "layers": 1}


def test_a_moving_voice_is_followed_and_silence_bridged() -> None:
    time = np.arange(MEL.samples) / MEL.sample_rate
    hertz = 150 * 2 ** (0.1 * np.sin(np.pi * time))  # up to 0.3 octaves a second
    phase = 2 * np.pi * np.cumsum(hertz) / MEL.sample_rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)).astype(np.float32) * 0.2
    hiss = (time > 4) & (time < 5)
    wave[hiss] = np.random.default_rng(0).normal(0, 0.1, hiss.sum())
    phones = [Phone("aa", 0.5, 4.0), Phone("s", 4.0, 5.0), Phone("iy", 5.0, 9.5)]
    found = pitch_contour(wave, phones)
    frames = (np.arange(MEL.frames) + 0.5) * MEL.hop / MEL.sample_rate
    expected = np.interp(frames, time, hertz)
    away = np.abs(np.log2(found / expected))
    spoken = (frames > 0.6) & (frames < 9.4) & ((frames < 3.9) | (frames > 5.1))
    assert away[spoken].max() < 0.02  # a shift by seven frames would be seen
    assert np.abs(np.log2(found / 150))[(frames > 4.1) & (frames < 4.9)].max() < 0.02
    assert found.shape == (MEL.frames,) and (found > 0).all()
    assert (pitch_contour(wave, [Phone("s", 4.0, 5.0)]) == LOWEST).all()


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpeechClips:
    """Clips whose pitch is their number above 100 Hz, and a wave a frame later than the one before."""
    clips = SpeechClips(make_corpus(tmp_path / "corpus"), roll=True, pitch=tmp_path / "pitch.safetensors")
    monkeypatch.setattr(type(clips.corpus if clips.opened else _opened(clips)), "wave",
                        lambda self, i: np.float32(i))
    monkeypatch.setattr(module, "pitch_contour",
                        lambda wave, phones: np.full(MEL.frames, 100 + wave) + np.arange(MEL.frames) / 16)
    return clips


def _opened(clips: SpeechClips) -> object:
    clips.open()
    return clips.corpus


def test_what_was_tracked_is_kept_and_gone_on_with(corpus: SpeechClips, monkeypatch: pytest.MonkeyPatch,
                                                   tmp_path: Path) -> None:
    file, identity = tmp_path / "pitch.safetensors", corpus.identity()
    with pytest.raises(UserError, match="no such file of pitches"):
        corpus[0]
    monkeypatch.setattr(module, "KEPT", 2)
    real = module.pitch_contour

    def stopped(wave: float, phones: object) -> np.ndarray:
        if wave == 3:
            raise KeyboardInterrupt
        return real(wave, phones)

    monkeypatch.setattr(module, "pitch_contour", stopped)
    with pytest.raises(KeyboardInterrupt):
        module.cache_pitch(corpus.corpus, identity, file)
    assert len(module.read_pitch(file, identity)) == 2
    with pytest.raises(UserError, match=r"2 clips \(expected 6\)"):
        corpus[0]
    asked = []
    monkeypatch.setattr(module, "pitch_contour", lambda wave, _: asked.append(wave) or real(wave, _))
    module.cache_pitch(corpus.corpus, identity, file)
    assert asked == [2, 3, 4, 5]
    module.cache_pitch(corpus.corpus, identity, file)
    assert len(asked) == 4
    assert module.read_pitch(file, identity, 6)[:, 0].tolist() == [100, 101, 102, 103, 104, 105]
    with pytest.raises(UserError, match="made for another corpus"):
        module.read_pitch(file, "other")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="not a readable file of pitches"):
        module.read_pitch(file, identity)


def test_pitch_goes_with_the_phones_wherever_they_are_shifted(corpus: SpeechClips, tmp_path: Path) -> None:
    module.cache_pitch(corpus.corpus, corpus.identity(), tmp_path / "pitch.safetensors")
    corpus.setup()
    keys = np.arange(60)
    batch, shift = corpus.__getitems__(keys.tolist()), corpus.shifts(keys)
    assert len(set(shift.tolist())) > 3
    expected = (100 + keys % 6)[:, None] + (np.arange(MEL.frames) - shift[:, None]) % MEL.frames / 16
    np.testing.assert_allclose(batch["frame_pitch"], expected, atol=0.1)
    batch["latent"] = batch.pop("picture")[:, :, ::16, ::16]
    cut = crop_to_speech({**batch, "frame_position": batch["frame_pitch"]}, 20)
    assert torch.equal(cut["frame_pitch"], cut["frame_position"]) and cut["frame_pitch"].shape == (60, 320)


def test_harmonics_lie_where_the_pitch_says() -> None:
    picture = harmonics(torch.tensor([[200.0, 0.0]]), torch.tensor([600.0, 500.0, 400.0]))
    torch.testing.assert_close(picture[0, :, 0], torch.tensor([1.0, -1.0, 1.0]), atol=1e-4, rtol=0)
    assert picture.isfinite().all()


def batch(hertz: float | None = None) -> dict[str, torch.Tensor]:
    phones = torch.full((2, 256), PHONE_IDS["aa"])
    phones[:, 200:] = PHONE_IDS["pau"]
    told = {} if hertz is None else {"frame_pitch": torch.full((2, 256), hertz)}
    return {"phones": phones[:, :4], "phone_mask": torch.ones(2, 4, dtype=torch.bool), "frame_phones": phones,
            "frame_position": torch.rand(2, 256, generator=torch.Generator().manual_seed(0)),
            "voice": torch.tensor([1, 2]), **told}


def test_an_adapter_is_told_the_pitch_or_expects_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = AlignedAdapter(**SIZES)
    torch.nn.init.normal_(trained.spread.weight)
    trained.save_pretrained(tmp_path / "aligned")
    vae = PatchAutoencoder(latent_channels=32, width=0)
    torch.nn.init.normal_(vae.basis)
    vae.save_pretrained(tmp_path / "vae")
    adapter = pitched_adapter(tmp_path / "aligned", tmp_path / "vae").eval()
    assert torch.equal(adapter.look.weight[:, :, 0, 0], vae.basis)
    assert torch.equal(adapter.encode(batch(150.0)).residual, trained.encode(batch()).residual)
    torch.nn.init.normal_(adapter.join.weight)
    low, high = (adapter.encode(batch(hertz)).residual for hertz in (120.0, 180.0))
    changed = (low - high).abs().amax((0, 1, 2))
    assert changed[:12].min() > 1e-3 and not changed[14:].any()  # a pause has no pitch
    expected = adapter.expected(batch()).exp()
    assert torch.equal(adapter.encode(batch()).residual,
                       adapter.encode({**batch(), "frame_pitch": expected}).residual)
    assert torch.equal(adapter.encode(adapter.drop(batch(120.0), torch.tensor([True, True]))).residual,
                       adapter.encode(adapter.drop(batch(180.0), torch.tensor([True, True]))).residual)
    adapter.save_pretrained(tmp_path / "pitched")
    again = pitched_adapter(tmp_path / "pitched").eval()
    assert isinstance(again, PitchedAdapter)
    assert torch.equal(again.encode(batch(120.0)).residual, low)
    # In half precision, too, the harmonics are where they were.
    half = PitchedAdapter.from_pretrained(tmp_path / "pitched", torch_dtype=torch.bfloat16).eval()
    assert torch.equal(half.millihertz, again.millihertz)
    off = half.encode(batch(120.0)).residual.float() - low
    assert off.abs().max() < 0.05 * low.abs().max()
    with pytest.raises(UserError, match="base=.*nowhere: no such folder"):
        pitched_adapter(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"autoencoder=.*\(32, 256\).*expected \(16, 256\)"):
        pitched_adapter(autoencoder=tmp_path / "vae", **SIZES, waves=16)


def test_training_teaches_it_what_pitch_to_expect() -> None:
    torch.manual_seed(0)
    module = LatentDiffusionTraining(tiny_unet(4), PitchedAdapter(**SIZES, pitch_width=16, pitch_layers=1))
    level = module.conditioner.expected.level.weight
    spoken = {**batch(200.0), "latent": torch.randn(2, 4, 16, 16)}
    spoken["frame_pitch"][1] = 100
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        loss = module.conditioner.auxiliary_loss(spoken)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05 and level[1] > level[2]
    plain, own = module.loss(spoken, drop=False), module.conditioner.auxiliary_loss(spoken)
    module.hparams["condition_dropout"] = 0.0
    torch.manual_seed(1)
    whole = module.loss(spoken, drop=True)
    torch.manual_seed(1)
    assert torch.isclose(whole, module.loss(spoken, drop=False) + own) and plain.isfinite()


def test_a_voice_speaks_as_high_as_it_is_asked_to() -> None:
    """With the weights that ship, read by a tracker that had no part in their training."""
    librosa = pytest.importorskip("librosa", reason="librosa is in the dev extra")
    heights = {}
    for pitch in (0.9, 1.1):
        cfg = config.compose("generate", ["composition=speech_only", f"pitch={pitch}",
                                          "audio_prompt='happy baby music morning'"])
        layout = config.instantiate(cfg.family)
        settings, jobs = read_settings(cfg, layout), plan(cfg, layout)
        family = Family.load(layout, ("speech", "vae", "vocoder"))
        wave = family.vocoder.decode_picture(generate_batch(family, settings, jobs))[0].numpy()
        hertz, _, _ = librosa.pyin(wave, fmin=60, fmax=420, sr=MEL.sample_rate, frame_length=1024,
                                   hop_length=MEL.hop)
        told = activity([jobs[0].phones])[0].numpy() > 0.5
        heights[pitch] = float(np.nanmedian(hertz[: MEL.frames][told]))
    assert heights[1.1] / heights[0.9] == pytest.approx(1.1 / 0.9, rel=0.06)


def test_only_adapters_that_are_told_the_pitch_can_be_asked_for_one(pocket: Path, tmp_path: Path) -> None:
    cfg = config.compose("generate", [f"family.weights={pocket}", f"paths.logs={tmp_path}", "pitch=1.1"])
    with pytest.raises(UserError, match=r"pitch=1\.1: the speech branch of .*expected 1"):
        read_settings(cfg, config.instantiate(cfg.family))
    with pytest.raises(UserError, match="pitch=3.*0.5 to 2"):
        config.compose("generate", ["pitch=3"])
