"""Griffin-Lim: nothing moves in time or frequency, and a clip's sound is its own."""

from __future__ import annotations

import math

import pytest
import torch

from images_that_speak.audio.distance import mel_error, multi_resolution_stft_distance
from images_that_speak.audio.griffin_lim import GriffinLim
from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture
from images_that_speak.audio.vocoder_base import inverse_filters
from images_that_speak.errors import UserError


@pytest.fixture(scope="module")
def vocoder() -> GriffinLim:
    return GriffinLim()


@pytest.fixture(scope="module")
def analysis() -> LogMel:
    return LogMel()


def voice(samples: int = 12_800) -> torch.Tensor:
    """A gliding buzz between 110 and 180 Hz with two formants, silent at both ends. (1, T)."""
    time = torch.arange(samples, dtype=torch.float64) / MEL.sample_rate
    phase = 2 * torch.pi * (110 * time + 45 * time**2)
    wave = sum(torch.sin(k * phase) * (math.exp(-((k - 5) / 3) ** 2) + 0.3 * math.exp(-((k - 16) / 4) ** 2))
               for k in range(1, 25))
    time = torch.linspace(0, 1, samples)
    return (0.2 * wave * ((time > 0.2) & (time < 0.8)))[None].float()


@pytest.mark.parametrize("sample", [777, 8000, 8040, 8123])
def test_a_click_stays_where_it_was(vocoder: GriffinLim, analysis: LogMel, sample: int) -> None:
    wave = torch.zeros(1, 16_000)
    wave[0, sample] = 0.9
    energy = vocoder.decode_picture(logmel_to_picture(analysis(wave)))[0] ** 2
    centre = (energy * torch.arange(16_000)).sum() / energy.sum()
    assert abs(centre - sample) < 16  # 1 ms; without the half hop between the two conventions it is 80


@pytest.mark.parametrize("frequency", [120.0, 440.0, 1234.5])
def test_a_tone_keeps_its_frequency_and_level(vocoder: GriffinLim, analysis: LogMel,
                                              frequency: float) -> None:
    wave = 0.3 * torch.sin(2 * torch.pi * frequency * torch.arange(16_000) / 16_000)[None]
    middle = vocoder(analysis(wave))[0, 2000:14_000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(12_000), n=96_000).abs()
    assert spectrum.argmax().item() / 6 == pytest.approx(frequency, abs=1)  # Hz
    assert middle.pow(2).mean().sqrt().item() == pytest.approx(0.3 / 2**0.5, rel=0.02)


def test_analysed_again_it_is_the_same_mel(vocoder: GriffinLim, analysis: LogMel) -> None:
    wave = voice()
    logmel = analysis(wave)
    played = vocoder(logmel)
    assert played.shape == wave.shape
    loud = logmel > -6
    assert (analysis(played) - logmel).abs()[loud].mean() < 0.2  # nats; 1.7 dB
    convergence, logarithm = multi_resolution_stft_distance(played, wave)
    assert convergence < 0.3 and logarithm < 0.6
    assert mel_error(played, logmel, analysis) < 0.3


def test_more_iterations_come_closer(analysis: LogMel) -> None:
    logmel = analysis(voice())
    errors = [mel_error(GriffinLim(iterations=n)(logmel), logmel, analysis).item() for n in (1, 8, 32)]
    assert errors == sorted(errors, reverse=True)


def test_deterministic_alone_and_in_any_batch(vocoder: GriffinLim, analysis: LogMel) -> None:
    noise = torch.randn(1, 12_800, generator=torch.Generator().manual_seed(1))
    first, second = analysis(voice()), analysis(noise)
    alone = vocoder(first)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    batch = vocoder(torch.cat([second, first]))
    assert torch.equal(batch[1], alone[0])
    assert torch.equal(torch.random.get_rng_state(), state)  # nor does it touch the caller's generator


def test_a_black_picture_is_silence(vocoder: GriffinLim) -> None:
    assert not vocoder.decode_picture(torch.zeros(1, 256, 8, dtype=torch.uint8)).any()


def test_pseudo_inverse_gives_back_the_mel(vocoder: GriffinLim, analysis: LogMel) -> None:
    logmel = analysis(voice())
    assert inverse_filters().shape == (1025, 256)
    again = (analysis.filters @ vocoder.magnitude(logmel)).clamp(min=MEL.floor).log()
    assert (again - logmel).abs().mean() < 1e-3


def test_wrong_shape_is_one_error(vocoder: GriffinLim) -> None:
    with pytest.raises(UserError, match=r"\(1, 80, 20\).*256"):
        vocoder(torch.zeros(1, 80, 20))
