"""Samplers against the probability-flow ODE of a Gaussian, whose answer is known."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from images_that_speak.diffusion.composition import Guided, ImageOnly, Split, WeightedAverage
from images_that_speak.diffusion.guidance import Branch, Guidance, Joint, evaluations
from images_that_speak.diffusion.predictor import Prediction
from images_that_speak.diffusion.sampling import make_scheduler, noise, sample, set_steps
from images_that_speak.diffusion.schedulers import SCHEDULERS
from images_that_speak.errors import UserError
from images_that_speak.networks.condition import Condition

SCHEDULE = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085,
            "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
ALPHAS = DDIMScheduler.from_config({k: v for k, v in SCHEDULE.items() if k[0] != "_"}).alphas_cumprod
SHAPE = (1, 4, 8)
STD = 0.7


def build(name: str, spacing: str = "trailing", **options):
    return make_scheduler(name, SCHEDULE, timestep_spacing=spacing,
                          set_alpha_to_one=True if name == "ddim" else None, **options)


def denoiser(mean: float):
    """E[x₀ | x_t] for x₀ ~ N(mean, STD²): mean + α s² (x − α mean)/(α² s² + σ²)."""

    def x0(x, t, progress=0.0):
        cumulative = ALPHAS[int(t)]
        alpha = cumulative.sqrt()
        return mean + alpha * STD**2 * (x - alpha * mean) / (cumulative * STD**2 + 1 - cumulative)

    return x0


def ode_solution(x, mean: float):
    """Along the ODE (x_t − α_t mean)/√(α_t² s² + σ_t²) does not change."""
    cumulative = ALPHAS[-1]
    return mean + STD * (x - cumulative.sqrt() * mean) / (cumulative * STD**2 + 1 - cumulative).sqrt()


@pytest.mark.parametrize("steps", [20, 70, 333])
@pytest.mark.parametrize(("name", "constant"), [("ddim", 2.0), ("dpm", 0.8), ("unipc", 0.8)])
def test_error_falls_as_one_over_the_steps(name, constant, steps):
    x = noise(range(64), SHAPE)
    found = sample(denoiser(0.5), x, build(name), steps)
    assert float((found - ode_solution(x, 0.5)).square().mean().sqrt()) < constant / steps
    assert float(found.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(found.std()) == pytest.approx(STD, abs=0.1)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_two_gaussians_averaged_are_the_gaussian_between(name):
    """With equal variances the weighted average of x̂₀ is the denoiser of N((1 − w)μ₁ + w μ₂, s²)."""
    branches = {branch: _branch(denoiser(mean)) for branch, mean in (("image", -1.0), ("speech", 1.0))}
    x = noise(range(32), SHAPE)
    joint = sample(Joint(WeightedAverage(0.75), branches), x, build(name), 40)
    torch.testing.assert_close(joint, sample(denoiser(0.5), x, build(name), 40), rtol=1e-4, atol=1e-5)


def _branch(x0):
    def said(x, t, *_):
        # Guidance moves from the unconditional answer to twice its distance from the conditional one.
        answer = x0(x, t)
        return Guided(answer - 0.3, answer - 0.1, 1.5)

    return said


def test_start_points_leave_the_first_steps_to_the_other():
    calls = {"image": [], "speech": []}

    def branch(name):
        def said(x, t, *_):
            calls[name].append(int(t))
            value = torch.full_like(x, 0.0 if name == "image" else 1.0)
            return Guided(value, value, 1.0)

        return said

    joint = Joint(WeightedAverage(0.5), {name: branch(name) for name in calls}, {"image": 0.1, "speech": 0.0})
    seen = []
    sample(joint, noise([0], SHAPE), build("ddim"), 100, lambda state: seen.append(float(state["x0"].mean())))
    assert (len(calls["image"]), len(calls["speech"])) == (90, 100)
    assert seen[:10] == [1.0] * 10 and seen[10:] == [0.5] * 90


@pytest.mark.parametrize(("scale", "interval", "uses_uncond", "passes"), [
    (1.0, (0, 1), False, 10), (1.0, (0, 1), True, 20), (3.0, (0, 1), False, 20), (3.0, (0.2, 0.6), False, 14),
    (3.0, (0.2, 0.6), True, 20), (3.0, (0.5, 0.5), False, 10)])
def test_passes_are_made_only_where_they_count(scale, interval, uses_uncond, passes):
    """The count that is told is the count of what the UNet saw, and leaving a pass out changes nothing."""
    seen = []

    def predictor(x, t, condition):
        seen.append(len(x))
        x0 = 0.1 * x + condition.tokens[:, :, :1, None]
        return Prediction(x0, x0)

    def condition(value):
        return Condition(torch.full((2, 1, 1), value), torch.ones(2, 1, dtype=torch.bool))

    guidance = Guidance(scale, interval)
    x, steps = torch.randn(2, *SHAPE), 10
    branch = Branch(predictor, condition(0.5), condition(-1.0), guidance)
    for i in range(steps):
        guided = branch(x, torch.tensor(i), i / steps, uses_uncond).guided
        s = scale if interval[0] <= i / steps < interval[1] else 1.0
        torch.testing.assert_close(guided, 0.1 * x - 1 + s * 1.5)
    assert sum(seen) == 2 * passes
    compose = Split() if uses_uncond else WeightedAverage()
    both = {"image": guidance, "speech": Guidance(1.0)}
    alone = {"image": 0.0, "speech": 0.5}
    assert evaluations(compose, both, alone, steps) == passes + 5 * (1 + uses_uncond)
    assert evaluations(ImageOnly(), both, {"image": 0.3}, steps) == sum(guidance.passes(i / steps, False)
                                                                        for i in range(steps))


def test_branches_must_exist_and_one_must_start():
    with pytest.raises(UserError, match="needs the speech branch"):
        Joint(WeightedAverage(0.5), {"image": _branch(denoiser(0))})
    both = {name: _branch(denoiser(0)) for name in ("image", "speech")}
    with pytest.raises(UserError, match="one branch must start at 0"):
        Joint(WeightedAverage(0.5), both, {"image": 0.1, "speech": 0.2})
    with pytest.raises(UserError, match="guidance.audio_start=1.5"):
        Joint(WeightedAverage(0.5), both, {"speech": 1.5})


def test_callback_sees_every_step():
    seen = []
    x = noise([3], SHAPE)
    result = sample(denoiser(0.0), x, build("dpm"), 7, lambda state: seen.append(state))
    assert [state["i"] for state in seen] == list(range(7))
    assert [int(state["t"]) for state in seen] == [999, 856, 713, 570, 428, 285, 142]
    assert set(seen[0]) == {"x", "i", "t", "x0"}
    assert seen[-1]["x"].equal(result)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 33, 61, 103, 1000])
def test_every_count_of_steps_ends_at_the_clean_sample(name, steps):
    scheduler = build(name)
    set_steps(scheduler, steps)
    assert len(scheduler.timesteps) == steps
    assert int(scheduler.timesteps.min()) >= 0
    if steps < 200:
        x0 = []
        result = sample(denoiser(0.2), noise([0], SHAPE), scheduler, steps,
                        lambda state: x0.append(state["x0"]))
        torch.testing.assert_close(result, x0[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_is_diffusers_ddim_where_steps_divide_the_schedule(spacing):
    ours, theirs = build("ddim", spacing), DDIMScheduler.from_config(build("ddim", spacing).config)
    x = noise([0, 1], SHAPE)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(25)
    a = b = x
    for t in ours.timesteps:
        a = ours.step(denoiser(0.3)(a, t), t, a).prev_sample
        b = theirs.step(denoiser(0.3)(b, t), t, b).prev_sample
    torch.testing.assert_close(a, b)


def test_published_schedule_is_stable_diffusions():
    """100 leading steps with offset 1, ending at the noise level of timestep 0."""
    published = {**SCHEDULE, "steps_offset": 1, "set_alpha_to_one": False}
    scheduler = make_scheduler("ddim", published, timestep_spacing="leading")
    scheduler.set_timesteps(100)
    assert scheduler.timesteps[:2].tolist() == [991, 981] and int(scheduler.timesteps[-1]) == 1
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]


def test_noise_belongs_to_its_seed():
    together = noise([5, 6, 7], SHAPE)
    for i, seed in enumerate((5, 6, 7)):
        assert together[i].equal(noise([seed], SHAPE)[0])
    assert not together[0].equal(together[1])


@pytest.mark.parametrize(("call", "told"), [
    (lambda: make_scheduler("dmp", SCHEDULE), "scheduler.name='dmp'.*Did you mean 'dpm'"),
    (lambda: set_steps(build("ddim"), 0), "steps=0: expected 1 to 1000"),
    (lambda: set_steps(build("unipc"), 1001), "steps=1001: expected 1 to 1000"),
])
def test_bad_schedulers_are_named(call, told):
    with pytest.raises(UserError, match=told):
        call()
