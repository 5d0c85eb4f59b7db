"""Normaliser, error rates and bootstrap intervals against answers worked out by hand or in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images_that_speak.errors import UserError
from images_that_speak.scoring.statistics import (
    Interval,
    character_errors,
    corpus_wer,
    phoneme_errors,
    ratio,
    resampling_weights,
    score_sample,
    totals,
    word_errors,
)
from images_that_speak.scoring.tables import markdown, print_table, total_row
from images_that_speak.scoring.text import normalise


@pytest.mark.parametrize(("text", "expected"), [
    ("The 3 CATS—don’t run! [Music]", "the three cats don't run"),
    ("the 7th of 1,042 well-known cafés", "the seventh of one thousand forty two well known cafes"),
    ("♪ 音楽 ♪", ""),
    ("  'happy'  baby. ", "happy baby"),
    ("", ""),
])
def test_normaliser(text: str, expected: str) -> None:
    assert normalise(text) == expected


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_normaliser_takes_anything_and_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert set(once) <= set("abcdefghijklmnopqrstuvwxyz' ")


def test_errors_apart() -> None:
    found = word_errors("one two three four", "one too four five six")
    assert found is not None
    # "two three four" → "too four five six": one substitution, one deletion, two insertions, or fewer edits.
    assert found.insertions + found.deletions + found.substitutions == 4
    assert found.insertions - found.deletions == 1  # five words heard for four
    assert found.rate == 1.0
    assert word_errors("Seven cats", "7 CATS!").rate == 0  # type: ignore[union-attr]
    assert word_errors("...", "anything") is None
    nothing = word_errors("one two", "")
    assert (nothing.deletions, nothing.rate) == (2, 1.0)  # type: ignore[union-attr]
    assert word_errors("one", "one two three").rate == 2.0  # type: ignore[union-attr]
    assert character_errors("abc", "abd").rate == pytest.approx(1 / 3)  # type: ignore[union-attr]


def test_phoneme_errors_see_what_word_errors_do_not() -> None:
    assert phoneme_errors("their sea", "there see").rate == 0  # type: ignore[union-attr]
    cat = phoneme_errors("cat", "bat")
    assert cat is not None and (cat.substitutions, cat.total) == (1, 3)


def test_bootstrap_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    names = [f"prompt {index}" for index in range(400)]
    interval = ratio(values, np.ones(400), resampling_weights(names, names, 4000, seed=1))
    assert interval.value == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - error, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.03)


def test_prompts_are_resampled_not_samples() -> None:
    # Ten samples of each of 20 prompts that agree wholly: the interval is that of 20 values, not of 200.
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 20), 10)
    names = [str(index // 10) for index in range(200)]
    interval = ratio(values, np.ones(200), resampling_weights(names, names, 4000))
    error = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 20)
    assert (interval.high - interval.low) / 2 == pytest.approx(error, rel=0.1)  # type: ignore[operator]


def test_crossed_prompts_vary_both_ways() -> None:
    """Mean of aᵢ + bⱼ over a full cross: the variance of both factors adds (Owen 2007, for pure effects)."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=30), rng.normal(size=20)
    images, audios = np.repeat(np.arange(30), 20).tolist(), np.tile(np.arange(20), 30).tolist()
    values = a[images] + b[audios]
    weights = resampling_weights(images, audios, 4000)
    assert weights is not None and weights.shape == (4000, 600)
    means = weights @ values / weights.sum(1)
    assert means.std() == pytest.approx(np.sqrt(a.var() / 30 + b.var() / 20), rel=0.05)


def test_one_prompt_has_no_interval() -> None:
    assert resampling_weights(["a"] * 3, ["b"] * 3, 100) is None
    assert resampling_weights(["a", "b"], ["c", "d"], 0) is None
    assert ratio([1.0, 0.0], [1, 1]) == Interval(0.5)
    with pytest.raises(ValueError, match="add up to nothing"):
        ratio([1.0], [0.0])


def test_totals_pool_errors_over_words() -> None:
    rows = [
        {"image_prompt": "cat", "audio_prompt": "one two three four five six",
         **score_sample("one two three four five six", "one two three four five", 30.0, True)},
        {"image_prompt": "dog", "audio_prompt": "blue", **score_sample("blue", "red green", 20.0, False)},
        {"image_prompt": None, "audio_prompt": None, **score_sample(None, "blue")},
    ]
    found = totals(rows, 200)
    assert found["samples"] == 3
    # One deletion of six words, and two edits of one word: 3 / 7, not the mean of 1/6 and 2.
    assert found["wer"].value == pytest.approx(3 / 7)  # type: ignore[union-attr]
    assert found["wer_capped"].value == pytest.approx((1 / 6 + 1) / 2)  # type: ignore[union-attr]
    assert found["deletions"].value == pytest.approx(1 / 7)  # type: ignore[union-attr]
    assert found["clip"].value == 25.0  # type: ignore[union-attr]
    assert found["top1"].value == found["joint"].value == 0.5  # type: ignore[union-attr]
    assert rows[2]["wer"] is None and rows[2]["joint"] is None
    assert "wer" not in totals(rows[2:])


def test_joint_success_needs_both() -> None:
    phrase = "a b c d"
    assert score_sample(phrase, "a b c", top1=True)["joint"] is True  # WER 0.25
    assert score_sample(phrase, "a b", top1=True)["joint"] is False
    assert score_sample(phrase, phrase, top1=False)["joint"] is False
    assert score_sample(phrase, phrase)["joint"] is None


def test_tables() -> None:
    figures = {"samples": 4, "wer": Interval(0.083, 0.05, 0.121), "clip": Interval(22.31, 21, 24)}
    row = total_row("all", figures)
    assert row["wer"] == "8.3 % [5.0, 12.1]"
    assert row["clip"] == "22.3 [21, 24]"
    table = markdown([{"a": "x|y", "b": None, "c": True}], {"a": "A", "b": "B", "c": "C"})
    assert table == "| A | C |\n| --- | --- |\n| x\\|y | yes |\n"


@pytest.mark.parametrize(("asked", "heard"), [
    ("Don't go on the third of May", "Dont go on the 3rd of May."), ("twenty-one grey cats", "21 gray cats"),
    ("I do not know, it is me", "I don't know. It's me!"), ("you’re here", "Youre here [laughs]"),
    ("Mr Brown's café", "mister brown's cafe")])
def test_whispers_normaliser_knows_the_ways_to_write_a_word(asked: str, heard: str) -> None:
    assert word_errors(asked, heard, "whisper").rate == 0  # type: ignore[union-attr]
    assert corpus_wer([asked, "one two"], [heard, "one too"], "whisper") > 0
    with pytest.raises(UserError, match="Did you mean 'whisper'"):
        normalise(asked, "whispr")


@pytest.mark.parametrize("text", ["", "...", "[Music]", "♪ ♪", "½ ٣ 5.", "0.0.0 %$£ 1/2", "(", "\x00",
                                  "don't" * 99])
def test_whispers_normaliser_takes_whatever_a_recogniser_writes(text: str) -> None:
    assert normalise(text, "whisper") == " ".join(normalise(text, "whisper").split())
    assert word_errors("one", text, "whisper") is not None


def test_invented_words_are_told_apart() -> None:
    """Insertions, and whatever was heard where nothing was to be said, over the words asked for."""
    rows = [{"image_prompt": name, "audio_prompt": asked,
             **score_sample(asked, heard, second_heard=second, normaliser="whisper")}
            for name, asked, heard, second in (
                ("a", "bridge apple music", "bridge apple music four", "bridge apple music"),
                ("b", "red grey", "red", "red gray blue"), ("c", "", "thank you", ""),
                ("d", None, "who knows", "who knows"))]
    assert [row["invented"] for row in rows] == [1, 0, 2, None]
    assert [row["second_invented"] for row in rows] == [0, 1, 0, None]
    found = totals(rows, 50)
    assert found["invented"].value == pytest.approx(3 / 5)  # type: ignore[union-attr]
    assert found["second_invented"].value == pytest.approx(1 / 5)  # type: ignore[union-attr]
    assert found["wer"].value == pytest.approx(2 / 5)  # type: ignore[union-attr]
    # The second judge's normaliser is its own: it takes "gray" for another word than "grey".
    assert found["second_wer"].value == pytest.approx(2 / 5)  # type: ignore[union-attr]


def test_tables_are_whole_where_there_is_no_terminal(capsys, monkeypatch) -> None:
    """In a log laid out for 80 columns paths were cut: `samples/cc6364fb…` cannot be copied."""
    monkeypatch.delenv("COLUMNS", raising=False)
    row = {key: f"{key} " * 12 for key in "abc"} | {"path": f"samples/{'0123456789ab' * 3}"}
    print_table([row], {key: key for key in row})
    told = capsys.readouterr().out
    assert row["path"] in told and row["a"].strip() in told and len(told.splitlines()) == 2
