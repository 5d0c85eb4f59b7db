"""Phones with times, spread onto frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images_that_speak.audio.mel import MEL
from images_that_speak.errors import UserError
from images_that_speak.speech.alignment import SECONDS, frame_phones, speech_activity
from images_that_speak.speech.phonemes import PAUSE, PHONE_IDS
from images_that_speak.speech.tts import Phone

HAPPY = [Phone("pau", 0.0, 0.1), Phone("hh", 0.1, 0.2), Phone("ae", 0.2, 0.4), Phone("pau", 0.4, 0.6)]


def test_the_picture_is_as_long_as_the_mel_spec_says():
    assert SECONDS == MEL.seconds


def test_frames_by_hand():
    ids, position = frame_phones(HAPPY)
    assert ids.shape == position.shape == (1024,)
    assert ids.dtype == np.int64 and position.dtype == np.float32
    expected = ["pau"] * 10 + ["hh"] * 10 + ["ae"] * 20 + ["pau"] * 984
    assert ids.tolist() == [PHONE_IDS[symbol] for symbol in expected]
    # Frame centres lie at 5, 15, … ms: a phone of ten frames is 5, 15, … % through.
    np.testing.assert_allclose(position[10:20], np.arange(10) / 10 + 0.05, atol=1e-5)
    np.testing.assert_allclose(position[20:40], np.arange(20) / 20 + 0.025, atol=1e-5)
    assert not position[:10].any() and not position[40:].any()


def test_a_latent_column_covers_sixteen_frames():
    assert frame_phones(HAPPY, 64)[0][:3].tolist() == [PHONE_IDS[s] for s in ("pau", "ae", "pau")]
    activity = speech_activity(HAPPY, 64)
    # Columns of 0.16 s: speech from 0.1 to 0.4 s fills 0.06 s of the first and 0.08 s of the third.
    np.testing.assert_allclose(activity[:4], [0.06 / 0.16, 1, 0.08 / 0.16, 0], atol=1e-6)
    np.testing.assert_allclose(speech_activity(HAPPY).reshape(64, 16).mean(1), activity, atol=1e-6)


def test_gaps_are_pauses_and_unknown_symbols_are_unknown():
    ids, _ = frame_phones([Phone("b", 1.0, 1.1), Phone("xx", 2.0, 2.1)])
    assert ids[100] == PHONE_IDS["b"] and ids[205] == PHONE_IDS["<unk>"]
    assert set(np.delete(ids, np.r_[100:110, 200:210])) == {PHONE_IDS["pau"]}


def test_nothing_said_is_all_pause():
    assert set(frame_phones([])[0]) == {PHONE_IDS["pau"]} and not speech_activity([]).any()


def test_moving_phones_by_whole_frames_moves_frames():
    shift = 37
    moved = [Phone(p.symbol, p.start + shift / 100, p.end + shift / 100) for p in HAPPY]
    for was, now in zip(frame_phones(HAPPY), frame_phones(moved), strict=True):
        np.testing.assert_allclose(np.roll(was, shift), now, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(PHONE_IDS)), st.floats(0.005, 0.5), st.floats(0, 0.3)),
                max_size=30))
def test_activity_is_the_spoken_time(parts):
    phones, clock = [], 0.0
    for symbol, length, gap in parts:
        phones.append(Phone(symbol, clock + gap, clock + gap + length))
        clock += gap + length
    spoken = sum(min(p.end, SECONDS) - min(p.start, SECONDS) for p in phones if p.symbol != PAUSE)
    assert speech_activity(phones).sum() / 100 == pytest.approx(spoken, abs=1e-3)
    ids, position = frame_phones(phones)
    assert ((position >= 0) & (position < 1)).all() and len(ids) == 1024


@pytest.mark.parametrize("phones", [
    [Phone("b", 0.2, 0.1)], [Phone("b", 0, 0.2), Phone("t", 0.1, 0.3)], [Phone("b", -1, 0.2)],
    [Phone("b", float("nan"), 0.2)]])
def test_times_out_of_order_are_refused(phones):
    with pytest.raises(UserError, match="expected times in order"):
        frame_phones(phones)
