"""Distances between sounds: known answers, and what they do where there is nothing to compare."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from images_that_speak.audio import distance
from images_that_speak.audio.distance import (
    mel_cepstral_distortion,
    multi_resolution_stft_distance,
    pesq,
    stoi,
)
from images_that_speak.errors import UserError


def speech_like(seconds: float = 2.0, seed: int = 0) -> Tensor:
    """(1, T): a gliding harmonic tone with syllables and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(16_000 * seconds)) / 16_000
    phase = 2 * math.pi * (120 * time + 10 * time**2)
    tone = sum(torch.sin(k * phase) / k for k in range(1, 20))
    noise = 0.01 * torch.randn(len(time), generator=generator)
    return (0.2 * (0.55 + 0.45 * torch.sin(2 * math.pi * 3 * time)) * tone + noise)[None]


def noisy(wave: Tensor, level: float) -> Tensor:
    return wave + level * torch.randn(wave.shape, generator=torch.Generator().manual_seed(1))


class Given(nn.Module):
    """A mel transform that answers what it was given: for the real wave (0) and for the made one (1)."""

    def __init__(self, real: Tensor, made: Tensor):
        super().__init__()
        self.answers = {0: real, 1: made}

    def forward(self, wave: Tensor) -> Tensor:
        return self.answers[int(wave[0, 0])]


@pytest.mark.parametrize(("ripples", "counts"), [(1, True), (13, True), (14, False), (0, False)])
def test_cepstral_distortion_is_the_ripple_in_decibels(ripples: int, counts: bool) -> None:
    """A ripple of a nats over frequency has the root mean square a/√2 nats; loudness (0) does not count."""
    place = (torch.arange(256) + 0.5) / 256
    ripple = 0.3 * torch.cos(math.pi * ripples * place)[:, None].expand(256, 5)
    real = torch.zeros(1, 256, 5)
    found = mel_cepstral_distortion(torch.ones(1, 8), torch.zeros(1, 8), analysis=Given(real, real + ripple))
    expected = 0.3 / math.sqrt(2) * 20 / math.log(10)
    assert found.item() == pytest.approx(expected if counts else 0, abs=1e-3)


def test_cepstral_distortion_leaves_silence_out() -> None:
    real = torch.zeros(1, 256, 4)
    real[..., 2:] = -9  # 78 dB below
    made = real.clone()
    made[:, ::2, 2:] += 5
    found = mel_cepstral_distortion(torch.ones(1, 8), torch.zeros(1, 8), analysis=Given(real, made))
    assert found.item() == pytest.approx(0, abs=1e-3)


def test_equal_sounds_are_at_no_distance() -> None:
    wave = speech_like()
    assert mel_cepstral_distortion(wave, wave).item() == pytest.approx(0, abs=1e-4)
    assert mel_cepstral_distortion(0.5 * wave, wave).item() < 0.1
    assert [value.item() for value in multi_resolution_stft_distance(wave, wave)] == [0, 0]


def test_more_noise_is_further_away() -> None:
    wave = speech_like()
    waves = [noisy(wave, level) for level in (0.003, 0.03, 0.3)]
    for measure in (mel_cepstral_distortion, lambda a, b: multi_resolution_stft_distance(a, b)[1]):
        found = [measure(other, wave).item() for other in waves]
        assert found == sorted(found) and found[0] < 0.5 * found[2]


def test_cepstral_distortion_can_be_learnt_from() -> None:
    made = noisy(speech_like(), 0.01).requires_grad_()
    mel_cepstral_distortion(made, speech_like()).backward()
    assert made.grad is not None and torch.isfinite(made.grad).all() and made.grad.abs().max() > 0


def test_stoi_is_1_for_equal_sounds_and_falls_with_noise() -> None:
    pytest.importorskip("pystoi")
    wave = speech_like()
    found = stoi(torch.cat([wave, noisy(wave, 0.1), noisy(wave, 1.0), wave]),
                 torch.cat([wave, wave, wave, torch.zeros_like(wave)]))
    assert found[0].item() == pytest.approx(1, abs=1e-3)
    assert found[0] > found[1] > found[2] and found[3].isnan()


def test_pesq_is_4_6_for_equal_sounds_and_falls_with_noise() -> None:
    pytest.importorskip("pesq")
    wave = speech_like()
    found = pesq(torch.cat([wave, noisy(wave, 0.03), torch.zeros_like(wave)]), wave.expand(3, -1))
    assert found[0].item() == pytest.approx(4.644, abs=0.01)
    assert found[1] < found[0] and found[2].isnan()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance, "find_spec", lambda name: None)
    for measure, package in ((pesq, "pesq"), (stoi, "pystoi")):
        with pytest.raises(UserError, match=rf"{package}.*\[quality\]"):
            measure(torch.zeros(1, 8), torch.zeros(1, 8))
