"""How far one set of vectors is from another: what FID, KID, FAD and KAD are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KAD_SCALE = 100.0  # of the toolkit that came with KAD


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to x (N, D) and y (M, D) (Heusel et al. 2017).

    ‖μx − μy‖² + tr(Σx + Σy − 2 (Σx Σy)^½), covariances with N − 1. Biased upwards where N is not much greater
    than D. Raises ValueError where a set has fewer than two vectors.
    """
    _check(x, y)
    x, y = x.double(), y.double()
    a, b = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(y.shape[1], -1)
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # Σx^½ Σy Σx^½ has the eigenvalues of Σx Σy, and is symmetric, so that they come out real.
    shared = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * shared
    return max(0.0, float(distance))


def mmd(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Unbiased squared maximum mean discrepancy of x (N, D) and y (M, D) (Gretton et al. 2012, equation 3).

    Its mean over sets drawn from one distribution is 0, so single values may be negative.
    """
    _check(x, y)
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    xx, yy = kernel(x, x), kernel(y, y)
    within = ((xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1)))
    return float(within - 2 * kernel(x, y).mean())


def kernel_inception_distance(x: Tensor, y: Tensor) -> float:
    """`mmd` with the kernel (x·y / D + 1)³ (Bińkowski et al. 2018), over all vectors, not over subsets."""
    return mmd(x, y, lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3)


def kernel_audio_distance(x: Tensor, y: Tensor) -> float:
    """100 · `mmd` with a Gaussian kernel, as wide as the median distance within y, the reference.

    Chung et al. 2025, *KAD: No More FAD!*
    """
    _check(x, y)
    width = torch.pdist(y.double()).median().clamp(min=1e-8)
    return KAD_SCALE * mmd(x, y, lambda a, b: (-torch.cdist(a, b).square() / (2 * width**2)).exp())


def _check(x: Tensor, y: Tensor) -> None:
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"sets of {len(x)} and {len(y)} vectors (expected at least two in each)")
