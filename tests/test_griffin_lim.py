"""Griffin-Lim: nothing moves in time or frequency, and a clip's sound is its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchaudio

from images_that_speak.audio.distance import mel_error, multi_resolution_stft_distance
from images_that_speak.audio.griffin_lim import FastGriffinLim, GriffinLim, Rounds, peak_phases
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
    assert abs(centre - sample) < 32  # 2 ms; without the half hop between the two conventions it is 80


@pytest.mark.parametrize("frequency", [120.0, 440.0, 1234.5, 3000.7])
def test_a_tone_keeps_its_frequency_and_level(vocoder: GriffinLim, analysis: LogMel,
                                              frequency: float) -> None:
    wave = 0.3 * torch.sin(2 * torch.pi * frequency * torch.arange(16_000) / 16_000)[None]
    middle = vocoder(analysis(wave))[0, 2000:14_000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(12_000), n=96_000).abs()
    assert spectrum.argmax().item() / 6 == pytest.approx(frequency, abs=1.5)  # Hz
    assert middle.pow(2).mean().sqrt().item() == pytest.approx(0.3 / 2**0.5, rel=0.03)


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
    errors = [mel_error(GriffinLim(iterations=n)(logmel), logmel, analysis).item() for n in (0, 1, 8, 32)]
    assert errors == sorted(errors, reverse=True)


def usual(vocoder: GriffinLim, logmel: torch.Tensor, iterations: int) -> torch.Tensor:
    """What torchaudio makes of the same magnitudes from random phases."""
    magnitude = vocoder.magnitude(logmel)
    torch.manual_seed(0)
    iterate = torchaudio.transforms.GriffinLim(MEL.n_fft, iterations, MEL.win, MEL.hop, power=1,
                                               momentum=0.99)
    wave = iterate(torch.cat([magnitude[..., :1], magnitude, magnitude[..., -1:]], -1))
    return wave[:, MEL.hop // 2:][:, :logmel.shape[2] * MEL.hop]


def test_half_of_the_rounds_come_as_close_as_torchaudio_s(vocoder: GriffinLim, analysis: LogMel) -> None:
    logmel = analysis(voice())
    ours, theirs = vocoder(logmel), usual(vocoder, logmel, 32)
    assert mel_error(ours, logmel, analysis) < 1.1 * mel_error(theirs, logmel, analysis)
    fast = FastGriffinLim()(logmel)
    assert mel_error(fast, logmel, analysis) < 1.1 * mel_error(usual(vocoder, logmel, 8), logmel, analysis)


def test_a_round_is_torchaudio_s(vocoder: GriffinLim, analysis: LogMel) -> None:
    """From the same phases, where no border is near: synthesis and analysis are those of torch."""
    magnitude = vocoder.magnitude(analysis(voice()))[0].mT.contiguous()
    phases = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0)) * 6
    spectrum = torch.polar(magnitude, phases)
    rounds = Rounds(magnitude, vocoder.window, MEL)
    wave = rounds.synthesise(spectrum).clone()
    settings = {"n_fft": MEL.n_fft, "hop_length": MEL.hop, "win_length": MEL.win, "window": vocoder.window}
    theirs = torch.istft(spectrum.mT, **settings)  # which begins in the middle of the first frame
    assert torch.allclose(wave[512:][1000:11_000], theirs[1000:11_000], atol=1e-5)
    again = torch.empty_like(spectrum)
    rounds.analyse(wave, again)
    # torch begins at the first sample; its window lies in the middle of the transform, too.
    begun = torch.cat([torch.zeros((MEL.n_fft - MEL.win) // 2), wave])
    theirs = torch.stft(begun, center=False, return_complex=True, **settings).mT
    assert torch.allclose(again[:60], theirs[:60], atol=1e-4)
    rounds.rescale(again)
    assert torch.allclose(again.abs(), magnitude, atol=1e-5, rtol=1e-4)


def test_phases_go_on_as_a_peak_turns() -> None:
    """A steady peak between two bins: every frame it turns by its frequency, all of its bins alike."""
    bins, frames, place = 65, 20, 20.3
    magnitude = np.exp(-((np.arange(bins) - place) ** 2) / 4)[None].repeat(frames, 0).astype(np.float32)
    phases = peak_phases(magnitude, hop=16)
    turned = np.diff(phases, axis=0) / (2 * np.pi)
    assert turned == pytest.approx(place * 16 / 128, abs=1e-3)
    alternating = phases - np.pi * (np.arange(bins) % 2)
    assert np.ptp(alternating, axis=1) == pytest.approx(0, abs=1e-4)
    moved = np.roll(magnitude, 2, axis=1)
    # It takes its phase along.
    glide = peak_phases(np.concatenate([magnitude[:10], moved[10:]]), hop=16) / (2 * np.pi)
    assert glide[10, 22] - glide[9, 20] == pytest.approx((place + 1) * 16 / 128, abs=1e-3)


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
