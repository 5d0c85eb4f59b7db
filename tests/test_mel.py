"""The mel spec against independent computations, and waveform ↔ log-mel ↔ picture round trips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from images_that_speak.audio.mel import (
    MEL,
    LogMel,
    MelSpec,
    band_frequencies,
    logmel_to_picture,
    picture_to_logmel,
)
from images_that_speak.errors import UserError


@pytest.fixture(scope="module")
def logmel() -> LogMel:
    return LogMel()


def slaney_filters() -> np.ndarray:
    """(256, 1025) by the published formulas: Slaney's scale: linear to 1 kHz, then ln 6.4 in 27 steps."""
    def to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(hz < 1000, hz / (200 / 3), 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / math.log(6.4))

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * (200 / 3), 1000 * np.exp((mel - 15) * math.log(6.4) / 27))

    edges = to_hz(np.linspace(to_mel(np.array(0.0)), to_mel(np.array(8000.0)), 258))
    bins = np.linspace(0, 8000, 1025)
    rows = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        triangle = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
        rows.append(np.maximum(triangle, 0) * 2 / (high - low))  # unit area
    return np.stack(rows)


def test_filters_are_slaneys(logmel: LogMel) -> None:
    np.testing.assert_allclose(logmel.filters.numpy(), slaney_filters(), atol=1e-5)
    librosa = pytest.importorskip("librosa", reason="librosa is in the dev extra")
    reference = librosa.filters.mel(sr=16_000, n_fft=2048, n_mels=256, fmin=0, fmax=8000)
    np.testing.assert_allclose(logmel.filters.numpy(), reference, atol=1e-6)


def test_bands_lie_where_slaneys_do() -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is in the dev extra")
    expected = librosa.mel_frequencies(258, fmin=0, fmax=8000)[1:-1]
    np.testing.assert_allclose(band_frequencies().numpy(), expected, rtol=2e-3)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as where weights in half precision are loaded
    try:
        half = band_frequencies()
    finally:
        torch.set_default_dtype(usual)
    assert half.dtype == torch.float32 and half.equal(band_frequencies())


def test_against_the_formula_in_numpy(logmel: LogMel) -> None:
    """Framed, windowed and transformed by numpy; magnitude, not power; natural logarithm."""
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 16_000)
    padded = np.pad(wave, (2048 - 160) // 2, mode="reflect")
    window = np.zeros(2048)
    window[512:1536] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[i * 160:i * 160 + 2048] * window for i in range(100)])
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9).T
    expected = np.log(np.maximum(slaney_filters() @ magnitude, 1e-5))
    found = logmel(torch.tensor(wave)[None])[0].numpy()
    assert found.shape == (256, 100)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_tone_stands_where_it_should(logmel: LogMel) -> None:
    """1 kHz at full scale: in its band, low frequencies below it, and the picture upside up."""
    time = torch.arange(MEL.samples) / MEL.sample_rate
    picture = logmel_to_picture(logmel(torch.sin(2 * math.pi * 1000 * time)[None]))[0]
    assert picture.shape == (256, 1024)
    row = int(picture[:, 500].argmax())
    centres = slaney_filters().argmax(1) * 8000 / 1024
    assert abs(centres[255 - row] - 1000) < 20
    assert picture[row, 500] > 0.85 and picture[row + 40, 500] < 0.5


def test_constants_of_the_picture() -> None:
    assert (MEL.samples, MEL.seconds, MEL.padding) == (163_840, 10.24, 944)
    assert MEL.log_range == pytest.approx(16.8112, abs=1e-4)
    assert MEL.log_floor == pytest.approx(-11.5129, abs=1e-4)
    decibels = MEL.log_range * 20 / math.log(10)
    assert 0.1 * decibels == pytest.approx(14.6, abs=0.05)  # a tenth of brightness
    assert decibels / 255 == pytest.approx(0.57, abs=0.01)  # one 8-bit level
    centres = slaney_filters().argmax(1) * 8000 / 1024
    assert (centres > 3400).mean() == pytest.approx(0.27, abs=0.01)


def test_silence_is_black(logmel: LogMel) -> None:
    assert logmel_to_picture(logmel(torch.zeros(1, MEL.samples))).max() == 0


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
def test_picture_round_trip(picture: np.ndarray) -> None:
    x = torch.from_numpy(picture)
    torch.testing.assert_close(logmel_to_picture(picture_to_logmel(x)), x, atol=1e-5, rtol=0)


def test_differentiable_batched_and_in_float32_under_autocast(logmel: LogMel) -> None:
    wave = (torch.randn(3, 8000) * 0.1).requires_grad_()
    alone = torch.cat([logmel(row[None]) for row in wave])
    with torch.autocast("cpu", torch.bfloat16):
        together = logmel(wave)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    together.mean().backward()
    assert torch.isfinite(wave.grad).all() and wave.grad.abs().max() > 0


@pytest.mark.parametrize("wave", [torch.zeros(163_840), torch.zeros(1, 100), torch.zeros(1, 2, 4000)])
def test_refuses_other_shapes(logmel: LogMel, wave: torch.Tensor) -> None:
    with pytest.raises(UserError, match="waveform of"):
        logmel(wave)


def test_another_spec_is_refused_by_name() -> None:
    MEL.check(MEL.to_dict(), "here")
    said = r"vocoder/config.json: made for another mel spec: hop=256 \(expected 160\)"
    with pytest.raises(UserError, match=said):
        MEL.check({**MEL.to_dict(), "hop": 256}, "vocoder/config.json")
    assert MelSpec(hop=256).hash != MEL.hash
