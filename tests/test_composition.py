"""Compositions against closed forms: exact ends, affine identities, Slaney's scale, counted masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from images_that_speak.audio.mel import LogMel, band_frequencies
from images_that_speak.diffusion.composition import (
    Guided,
    ImageOnly,
    Masks,
    Moment,
    SpeechOnly,
    Split,
    WeightedAverage,
    WeightsOverTime,
    as_composition,
    blend,
    ramp,
    speech_columns,
    speech_mask,
    speech_rows,
)
from images_that_speak.errors import UserError

SHAPE = (2, 4, 16, 64)


@pytest.fixture
def branches() -> tuple[Guided, Guided]:
    torch.manual_seed(0)
    u_image, c_image, u_speech, c_speech = torch.randn(4, *SHAPE)
    return Guided(u_image, c_image, 5.0), Guided(u_speech, c_speech, 3.0)


@pytest.fixture
def spoken() -> torch.Tensor:
    activity = torch.zeros(2, 1024)
    activity[0, 320:640] = 1
    activity[1, 16:32] = 1
    return activity


def test_guidance_is_affine(branches):
    image, _ = branches
    torch.testing.assert_close(image.guided, -4 * image.uncond + 5 * image.cond, rtol=1e-5, atol=1e-5)
    assert Guided(image.uncond, image.cond, 0.0).guided.equal(image.uncond)


def test_full_weight_is_speech_alone_bit_for_bit(branches, spoken):
    image, speech = branches
    moment = Moment(0.3, torch.ones_like(spoken))
    alone = SpeechOnly()(image, speech, moment)
    assert WeightedAverage(1.0)(image, speech, moment).equal(alone)
    assert WeightsOverTime(audio_weight=1.0, early=1.0)(image, speech, moment).equal(alone)
    assert Masks(audio_weight=1.0)(image, speech, moment).equal(alone)
    assert Masks(audio_weight=0.2, elsewhere=1.0)(image, speech, Moment(0.3, 0 * spoken)).equal(alone)


def test_no_weight_is_the_image_alone_bit_for_bit(branches, spoken):
    image, speech = branches
    alone = ImageOnly()(image, speech, Moment(0.3))
    assert WeightedAverage(0.0)(image, speech, Moment(0.3)).equal(alone)
    assert Masks(audio_weight=1.0)(image, speech, Moment(0.3, 0 * spoken)).equal(alone)


@settings(max_examples=30, deadline=None)
@given(weight=st.floats(0, 1), alpha=st.floats(0.05, 0.999))
def test_averaging_noise_is_averaging_clean(weight, alpha):
    """x̂₀ = (x_t − σε)/α is affine, so averaging either gives the other."""
    torch.manual_seed(1)
    sigma = math.sqrt(1 - alpha**2)
    x, eps_image, eps_speech = torch.randn(3, 1, 4, 8, 8, dtype=torch.float64)

    def clean(eps):
        return (x - sigma * eps) / alpha

    joint = blend(clean(eps_image), clean(eps_speech), weight)
    expected = clean((1 - weight) * eps_image + weight * eps_speech)
    torch.testing.assert_close(joint, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(weight=st.floats(0, 1))
def test_split_with_equal_weights_is_the_weighted_average(weight):
    torch.manual_seed(2)
    image, speech = (Guided(torch.randn(SHAPE), torch.randn(SHAPE), s) for s in (5.0, 3.0))
    split = Split(audio_weight=weight, image_delta=1 - weight, audio_delta=weight)
    average = WeightedAverage(weight)(image, speech, Moment(0.0))
    torch.testing.assert_close(split(image, speech, Moment(0.0)), average, rtol=1e-4, atol=1e-4)


def test_split_follows_both_guidances_whole(branches):
    image, speech = branches
    joint = Split(audio_weight=0.5, image_delta=1.0, audio_delta=1.0)(image, speech, Moment(0.0))
    expected = (image.uncond + speech.uncond) / 2 + image.delta + speech.delta
    torch.testing.assert_close(joint, expected)


def test_masked_split_leaves_silence_to_the_image(branches, spoken):
    image, speech = branches
    joint = Split(masked=True, edge=0.0)(image, speech, Moment(0.0, spoken))
    torch.testing.assert_close(joint[0, :, :, 42:], image.guided[0, :, :, 42:])
    inside = Split(masked=False)(image, speech, Moment(0.0))
    torch.testing.assert_close(joint[0, :, :, 20:40], inside[0, :, :, 20:40])


def test_masks_mix_inside_and_outside(branches, spoken):
    image, speech = branches
    joint = Masks(audio_weight=0.75, elsewhere=0.25, edge=0.0)(image, speech, Moment(0.5, spoken))
    inside = 0.25 * image.guided + 0.75 * speech.guided
    outside = 0.75 * image.guided + 0.25 * speech.guided
    torch.testing.assert_close(joint[0, :, :, 20:40], inside[0, :, :, 20:40])
    torch.testing.assert_close(joint[0, :, :, 42:], outside[0, :, :, 42:])


def test_ramp_has_its_ends_and_its_middle():
    for shape in ("linear", "cosine"):
        assert ramp(0.0, 0.2, 0.8, 0.25, 0.75, shape) == 0.2
        assert ramp(1.0, 0.2, 0.8, 0.25, 0.75, shape) == pytest.approx(0.8)
        assert ramp(0.5, 0.2, 0.8, 0.25, 0.75, shape) == pytest.approx(0.5)
    assert ramp(0.375, 0.0, 1.0, 0.25, 0.75, "cosine") == pytest.approx(0.5 * (1 - math.cos(math.pi / 4)))
    assert [ramp(p, 0.1, 0.9, 0.5, 0.5) for p in (0.49, 0.5)] == [0.1, 0.9]


def test_weights_over_time_move(branches):
    image, speech = branches
    compose = WeightsOverTime(audio_weight=0.8, early=0.2)
    expected = WeightedAverage(0.5)(image, speech, Moment(0.0))
    torch.testing.assert_close(compose(image, speech, Moment(0.5)), expected)


def test_rows_hold_the_frequencies_that_sound_there():
    """A tone of the log-mel spectrogram lights the row that `speech_rows` counts."""
    tone = torch.sin(2 * torch.pi * 3000 * torch.arange(16000) / 16000)[None]
    band = int(LogMel()(tone)[0].mean(1).argmax())
    assert abs(float(band_frequencies()[band]) - 3000) < 60
    rows = speech_rows(256, 3000.0)
    assert rows[255 - band + 2:].eq(1).all() and rows[: 255 - band - 1].eq(0).all()


def test_ceiling_takes_the_top_of_the_picture():
    assert speech_rows(16, None).eq(1).all()
    rows = speech_rows(16, 3400.0)
    # Rows above 3.4 kHz are the top 27 % of the picture.
    assert float(1 - rows.mean()) == pytest.approx(0.27, abs=0.01)
    assert rows[:4].eq(0).all() and 0 < rows[4] < 1 and rows[5:].eq(1).all()


def test_hard_columns_are_the_share_of_speech(spoken):
    columns = speech_columns(spoken, 64, edge=0.0)
    assert columns[0, 20:40].eq(1).all() and columns[0].sum() == 20
    assert columns[1].nonzero().tolist() == [[1]]


def test_soft_edges_fall_as_a_raised_cosine():
    activity = torch.zeros(1, 1024)
    activity[0, 512] = 1
    fine = speech_columns(activity, 1024, edge=0.1)[0]
    for distance in range(12):
        expected = 0.5 * (1 + math.cos(math.pi * distance / 10)) if distance < 10 else 0.0
        assert float(fine[512 + distance]) == pytest.approx(expected, abs=1e-6)
        assert float(fine[512 - distance]) == pytest.approx(expected, abs=1e-6)
    assert speech_columns(activity, 64, edge=0.1).max() < 1


@settings(max_examples=20, deadline=None)
@given(edge=st.floats(0, 2), start=st.integers(0, 1000), ceiling=st.one_of(st.none(), st.floats(100, 8000)))
def test_masks_stay_in_range_and_grow_with_their_edge(edge, start, ceiling):
    activity = torch.zeros(1, 1024)
    activity[0, start: start + 24] = 1
    mask = speech_mask(activity, 16, 64, edge, ceiling)
    assert mask.shape == (1, 1, 16, 64)
    assert mask.min() >= 0 and mask.max() <= 1
    assert (speech_mask(activity, 16, 64, edge + 0.1, ceiling) >= mask).all()


@pytest.mark.parametrize(("make", "told"), [
    (lambda: WeightedAverage(1.5), r"composition.audio_weight=1.5: expected a number in \[0, 1\]"),
    (lambda: WeightedAverage(float("nan")), "audio_weight=nan"),
    (lambda: WeightsOverTime(shape="lineer"), "Did you mean 'linear'"),
    (lambda: WeightsOverTime(begin=0.6, end=0.4), "composition.end=0.4"),
    (lambda: Masks(elsewhere=-0.1), "composition.elsewhere=-0.1"),
    (lambda: Masks(edge=-1), "composition.edge=-1"),
    (lambda: Masks(speech_ceiling_hz=9000), "composition.speech_ceiling_hz=9000"),
    (lambda: Masks(draws=-1), "composition.draws=-1: expected at least 0"),
    (lambda: SpeechOnly(draw_steps=0), "composition.draw_steps=0: expected at least 1"),
    (lambda: Split(audio_delta=2), "composition.audio_delta=2"),
])
def test_values_out_of_range_are_named(make, told):
    with pytest.raises(UserError, match=told):
        make()


def test_draws_have_a_mean_only_where_they_speak_at_the_same_time():
    assert Masks().settled(True).speech_draws == (4, 2) and Masks().settled(False).speech_draws == (0, 1)
    assert SpeechOnly(draws=0).settled(True).speech_draws == (0, 1)
    assert Masks(draws=2, draw_steps=3).settled(False).speech_draws == (2, 3)
    assert ImageOnly().settled(True) == ImageOnly()


def test_a_function_is_a_composition_too(branches: tuple[Guided, Guided]) -> None:
    """What it declares counts; the rest is as a Composition has it."""
    def half(image: Guided, speech: Guided, moment: Moment) -> torch.Tensor:
        return (image.guided + speech.guided) / 2

    class Own:
        branches = ("speech",)
        needs_phones = True
        draws, draw_steps = 3, 2

        def __call__(self, image: Guided, speech: Guided, moment: Moment) -> torch.Tensor:
            return speech.guided

        def finish(self, pictures: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
            return pictures / 2

    made = as_composition(half)
    torch.testing.assert_close(made(*branches, Moment(0)), WeightedAverage(0.5)(*branches, Moment(0)))
    assert made.branches == ("image", "speech") and made.name == "half" and not made.needs_phones
    assert made.settled(True).speech_draws == (0, 1) and made.finish(torch.ones(2), torch.ones(2)).sum() == 2
    own = as_composition(Own())
    assert own.branches == ("speech",) and own.name == "Own" and own.needs_phones
    assert own.settled(True).speech_draws == (3, 2) and own.finish(torch.ones(2), torch.ones(2)).sum() == 1
    assert as_composition(own) is own
    with pytest.raises(UserError, match="composition: int cannot be called"):
        as_composition(3)


def test_masks_need_phonemes(branches):
    with pytest.raises(UserError, match="needs to know when phones sound"):
        Masks()(*branches, Moment(0.0))


def test_the_picture_is_turned_down_beside_the_speech_only() -> None:
    activity = torch.zeros(1, 1024)
    activity[:, 400:600] = 1
    pictures = torch.full((1, 256, 1024), 0.8)
    quiet = Masks(picture_gain=0.5, edge=0.1).finish(pictures, activity)
    assert torch.equal(quiet[..., 400:600], pictures[..., 400:600])
    torch.testing.assert_close(quiet[..., :380], pictures[..., :380] * 0.5)
    assert Masks().finish(pictures, activity) is pictures


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_rescaling_brings_the_contrast_back(branches: tuple[Guided, Guided], share: float) -> None:
    """std(g) goes from that of plain guidance to that of the conditional answer, in every sample."""
    plain = branches[0]
    rescaled = Guided(plain.uncond, plain.cond * torch.tensor([1.0, 2.0])[:, None, None, None], 5.0, share)
    before = Guided(rescaled.uncond, rescaled.cond, 5.0).guided
    for got, guided, cond in zip(rescaled.guided, before, rescaled.cond, strict=True):
        torch.testing.assert_close(got.std(), share * cond.std() + (1 - share) * guided.std())
        torch.testing.assert_close(got / got.std(), guided / guided.std())
    torch.testing.assert_close(rescaled.uncond + rescaled.delta, rescaled.guided)
    # Without guidance there is nothing to bring back.
    alone = Guided(plain.uncond, plain.cond, 1.0, share)
    torch.testing.assert_close(alone.guided, plain.cond, rtol=1e-5, atol=1e-5)
