"""Score distillation: a picture that is optimised until both branches find it likely. A published baseline.

A step noises the latent z of the picture, x_t = α z + σ ε, asks a branch what it sees, and moves z by

    w(t) (ε̂ − ε),   w(t) = 1 − ᾱ_t,   t uniform in [0.02, 0.98] of the schedule

(DreamFusion, Poole et al. 2023, eq. 3; Images that Sound, Chen et al. 2024, its baseline). As
ε̂ − ε = (z − x̂₀) α/σ, this is α σ (z − x̂₀): what a branch's UNet was trained to predict does not matter.

Two pictures can be optimised: a network that paints it, through the encoder, as published; or the latent
itself, which needs neither network nor encoder and a hundredth of the steps. Published, the image is judged
by DeepFloyd IF, in pixels; here by the family's own image branch, in the latent both branches share.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..audio.mel import MEL
from ..files import atomic_path
from ..networks.condition import Condition
from ..networks.fourier import FourierPicture
from ..ranges import check_ranges
from .composition import BOTH
from .family import Family
from .guidance import Branch, check_starts
from .layout import Layout
from .method import Job, Method, Settings, bound
from .sampling import Callback, noise

TIMES = (0.02, 0.98)  # shares of the schedule between which t is drawn
WEIGHT_DECAY = 1e-3  # AdamW's, as published
SAVE_EVERY = 60.0  # seconds between two savings of what is under way


class Canvas(Protocol):
    """What is optimised, for one sample."""

    def parameters(self) -> Iterable[Tensor]: ...

    def latent(self) -> Tensor:
        """(1, C, H, W) normalised latent, through which gradients reach the parameters."""

    def picture(self) -> Tensor:
        """(1, 256, 1024) in [0, 1], on the CPU."""

    def state(self) -> dict[str, Tensor]:
        """All that a later `picture` depends on, by name; written over in place to bring it back."""


class PaintedCanvas:
    """A network that paints the picture; the encoder brings it into the latent space."""

    def __init__(self, family: Family, network: FourierPicture):
        self.family, self.network = family, network.to(family.device)

    def parameters(self) -> Iterable[Tensor]:
        return self.network.parameters()

    def latent(self) -> Tensor:
        return self.family.latents(self.network())

    def picture(self) -> Tensor:
        return self.network().detach().cpu()

    def state(self) -> dict[str, Tensor]:
        return self.network.state_dict()


class LatentCanvas:
    """The latent itself."""

    def __init__(self, family: Family, latent: Tensor):
        self.family, self.z = family, latent.to(family.device).requires_grad_()

    def parameters(self) -> Iterable[Tensor]:
        return [self.z]

    def latent(self) -> Tensor:
        return self.z * 1.0

    def picture(self) -> Tensor:
        return self.family.decode(self.z.detach())

    def state(self) -> dict[str, Tensor]:
        return {"z": self.z.detach()}


def windowed(condition: Condition, starts: Sequence[int], width: int) -> Condition:
    """The condition of one picture, for windows of `width` latent columns of it, one at each of `starts`."""
    n, residual = len(starts), condition.residual
    return Condition(
        condition.tokens.expand(n, -1, -1), condition.mask.expand(n, -1),
        None if residual is None else torch.cat([residual[..., at: at + width] for at in starts]),
        None if condition.pooled is None else condition.pooled.expand(n, -1))


class Distillation:
    """One sample under way: its canvas, its branches, its own random numbers."""

    def __init__(self, canvas: Canvas, branches: dict[str, Branch], weights: dict[str, float],
                 starts: dict[str, float], lr: float, crops: int, seed: int):
        self.canvas, self.branches, self.weights, self.starts = canvas, branches, weights, starts
        self.crops = crops
        self.optimizer = torch.optim.AdamW(canvas.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
        self.random = torch.Generator().manual_seed(seed)

    def step(self, progress: float) -> Tensor:
        """Optimise once, `progress` of the steps being done; the latent (1, C, H, W) that was judged."""
        z = self.canvas.latent()
        gradient = torch.zeros_like(z)
        for name, branch in self.branches.items():
            if progress >= self.starts[name]:
                gradient += self.weights[name] * self.judge(name, branch, z.detach())
        self.optimizer.zero_grad()
        z.backward(gradient)
        self.optimizer.step()
        return z.detach()

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, by name."""
        canvas = {f"canvas.{key}": value for key, value in self.canvas.state().items()}
        optimizer = {f"optimizer.{number}.{key}": value
                     for number, moments in self.optimizer.state_dict()["state"].items()
                     for key, value in moments.items()}
        return {**canvas, **optimizer, "random": self.random.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            kind, _, key = name.partition(".")
            if kind == "canvas":
                self.canvas.state()[key].copy_(value)
            elif kind == "optimizer":
                number, _, key = key.partition(".")
                optimizer.setdefault(int(number), {})[key] = value
        self.random.set_state(state["random"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": optimizer})

    def judge(self, name: str, branch: Branch, z: Tensor) -> Tensor:
        """w(t) (ε̂ − ε) of z (1, C, H, W), for a t and an ε of this step.

        The image branch judges random square windows, and its gradient is their mean.
        """
        height, width = z.shape[-2:]
        if name == "speech" or not self.crops:
            return self.score(branch, z)
        starts = torch.randint(0, width - height + 1, (self.crops,), generator=self.random).tolist()
        null, condition = (windowed(part, starts, height) for part in (branch.both[:1], branch.condition))
        score = self.score(Branch(branch.predictor, condition, null, branch.guidance),
                           torch.cat([z[..., at: at + height] for at in starts]))
        gradient = torch.zeros_like(z)
        for at, part in zip(starts, score, strict=True):
            gradient[..., at: at + height] += part / self.crops
        return gradient

    @torch.no_grad()
    def score(self, branch: Branch, z: Tensor) -> Tensor:
        """α σ (z − x̂₀) for latents (B, C, H, W), all at one t."""
        schedule = branch.predictor.schedule
        first, last = (round(share * schedule.steps) for share in TIMES)
        t = torch.randint(first, max(last, first + 1), (), generator=self.random).to(z.device)
        alpha, sigma = schedule.coefficients(t[None], z)
        epsilon = torch.randn(z.shape, generator=self.random).to(z)
        return alpha * sigma * (z - branch(alpha * z + sigma * epsilon, t, 0.0, False).guided)


def save(begun: Sequence[Distillation], path: Path, steps: int) -> None:
    """Keep what is under way after `steps` steps."""
    tensors = {f"{number}.{name}": value.contiguous()
               for number, one in enumerate(begun) for name, value in one.state().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"steps": str(steps)})


def resumed(begun: Sequence[Distillation], path: Path | None) -> int:
    """Bring back what `save` kept; how many steps it had done, 0 where nothing whole is there."""
    if path is None or not path.exists():
        return 0
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            steps = int(file.metadata()["steps"])
    except (SafetensorError, KeyError, TypeError) as error:
        print(f"{path}: not whole ({error}); its samples are begun anew")
        return 0
    for number, one in enumerate(begun):
        mine = f"{number}."
        one.restore({name.removeprefix(mine): value for name, value in tensors.items()
                     if name.startswith(mine)})
    print(f"{path}: goes on from step {steps}")
    return steps


@dataclass(frozen=True)
class _ScoreDistillation(Method):
    """What both kinds share.

    The branches' weights are 1 − w and w with w = guidance.audio_weight; published are 0.4 and 1, which is
    w = 0.714 at another length of step. guidance.image_start is the share of the steps before the image acts.

    lr: AdamW's step. crops: windows as wide as high that the image branch judges, at random places of a step;
    0: it judges the whole picture.
    """

    lr: float
    crops: int
    name: ClassVar[str] = "score distillation"
    unused: ClassVar[tuple[str, ...]] = ("composition", "scheduler", "guidance.interval")

    def __post_init__(self) -> None:
        check_ranges({"method.lr": self.lr, "method.crops": self.crops})

    def check(self, settings: Settings, layout: Layout) -> None:
        check_starts(settings.starts)

    def evaluations(self, settings: Settings) -> int:
        """A window that is judged counts as one pass, though it is only a part of a picture."""
        acting = {name: sum(i / settings.steps >= start for i in range(settings.steps))
                  for name, start in settings.starts.items()}
        return sum(steps * settings.guidance[name].passes(0.0, False)
                   * (self.crops or 1 if name == "image" else 1) for name, steps in acting.items())

    @abstractmethod
    def canvas(self, family: Family, seed: int) -> Canvas:
        ...

    def __call__(self, family: Family, settings: Settings, jobs: Sequence[Job],
                 callback: Callback | None = None, kept: Path | None = None) -> Tensor:
        weights = {"image": 1 - settings.audio_weight, "speech": settings.audio_weight}
        # One by one: what is drawn for a sample must not depend on the others.
        begun = [Distillation(self.canvas(family, job.seed), bound(family, settings, [job], BOTH), weights,
                              settings.starts, self.lr, self.crops, job.seed) for job in jobs]
        done, saved = resumed(begun, kept), time.monotonic()
        with settings.casting(family.device):
            for i in range(done, settings.steps):
                x = torch.cat([one.step(i / settings.steps) for one in begun])
                if kept is not None and time.monotonic() - saved >= SAVE_EVERY:
                    save(begun, kept, i + 1)
                    saved = time.monotonic()
                if callback is not None:
                    callback({"i": i, "x": x})
            return torch.cat([one.canvas.picture() for one in begun])


@dataclass(frozen=True)
class ScoreDistillation(_ScoreDistillation):
    """A network that paints the picture is optimised, through the encoder (as published).

    features, hidden, layers, bandwidth: of `FourierPicture`.
    """

    lr: float = 1e-4
    crops: int = 8
    features: int = 128
    hidden: int = 256
    layers: int = 3
    bandwidth: float = 10.0

    def canvas(self, family: Family, seed: int) -> Canvas:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return PaintedCanvas(family, FourierPicture(MEL.n_mels, MEL.frames, self.features, self.hidden,
                                                        self.layers, self.bandwidth))


@dataclass(frozen=True)
class LatentScoreDistillation(_ScoreDistillation):
    """The latent is optimised, and decoded when it is done. It begins as faint noise."""

    lr: float = 0.05
    crops: int = 0

    def canvas(self, family: Family, seed: int) -> Canvas:
        return LatentCanvas(family, 0.1 * noise([seed], family.layout.latent_shape))
