"""Distances of sets with known answers, and beside torchmetrics' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from images_that_speak.scoring.distances import (
    frechet_distance,
    kernel_audio_distance,
    kernel_inception_distance,
    mmd,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def with_moments(x: torch.Tensor, mean: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """`x` made to have exactly this mean, and root · rootᵀ as its covariance."""
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T @ root.T + mean


def test_frechet_of_gaussians() -> None:
    zero, ones = torch.zeros(3).double(), torch.ones(3).double()
    unit = torch.eye(3).double()
    x = with_moments(normal(50, 3), zero, unit)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 2 * ones) == pytest.approx(12)
    # Diagonal covariances 1 and s²: the sum of (s − 1)².
    scaled = with_moments(normal(80, 3, seed=1), zero, torch.diag(torch.tensor([1.0, 2.0, 5.0])).double())
    assert frechet_distance(x, scaled) == pytest.approx(0 + 1 + 16)
    assert frechet_distance(scaled, x) == pytest.approx(17)
    # Fewer vectors than dimensions: the covariances have no full rank.
    wide = normal(5, 40)
    assert frechet_distance(wide, wide) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(wide[:1], wide)


def test_frechet_is_torchmetrics() -> None:
    from torchmetrics.image.fid import _compute_fid

    x, y = normal(60, 6) @ normal(6, 6, seed=2), normal(40, 6, seed=1) + 0.3
    expected = _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-6)


def test_kid_is_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    x, y = normal(30, 8), normal(30, 8, seed=1) * 1.2
    assert kernel_inception_distance(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


def test_mmd_by_hand() -> None:
    """With the kernel x·y it is ‖mean x − mean y‖², less what a vector has with itself."""
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0], [0.0]])
    # x: 1·3; y: (2·4 + 2·0 + 4·0) / 3; both: 2 · (2 · 2).
    assert mmd(x, y, lambda a, b: a @ b.T) == pytest.approx(3 + 8 / 3 - 8)


@pytest.mark.parametrize("distance", [kernel_inception_distance, kernel_audio_distance])
def test_kernel_distances_have_no_bias(distance) -> None:
    """The mean over small sets of one distribution is 0; another distribution is told from it."""
    same = [distance(normal(8, 4, seed=2 * i), normal(12, 4, seed=2 * i + 1)) for i in range(300)]
    error = np.std(same) / len(same) ** 0.5
    assert abs(np.mean(same)) < 3 * error
    other = [distance(normal(8, 4, seed=2 * i), normal(12, 4, seed=2 * i + 1) + 1) for i in range(300)]
    assert np.mean(other) > 20 * error
    # The Fréchet distance of such sets is biased: this is what the kernel distances are for.
    small = [frechet_distance(normal(8, 4, seed=2 * i), normal(12, 4, seed=2 * i + 1)) for i in range(50)]
    assert np.mean(small) > 0.5


def test_kad_by_hand() -> None:
    y = torch.tensor([[0.0], [2.0]])
    # The median distance is 2, so a distance d counts exp(−d² / 8).
    x = torch.tensor([[0.0], [4.0]])
    kernel = {d: np.exp(-(d**2) / 8) for d in (0, 2, 4)}
    expected = kernel[4] + kernel[2] - 2 * (kernel[0] + kernel[2] + kernel[4] + kernel[2]) / 4
    assert kernel_audio_distance(x, y) == pytest.approx(100 * expected)
