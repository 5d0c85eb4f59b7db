"""Text as people write it becomes what is said: a table of cases, and what holds for any text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images_that_speak.errors import UserError
from images_that_speak.scoring.text import normalise
from images_that_speak.speech.normalisation import UNITS, normalise_text, spoken_otherwise
from images_that_speak.speech.numbers import roman, spell_year, to_roman
from images_that_speak.speech.phonemes import text_to_phones

LINES = (Path(__file__).parent / "spoken.txt").read_text(encoding="utf-8").splitlines()
CASES = [tuple(part.strip() for part in line.split(" | ")) for line in LINES if not line.startswith("#")]


@pytest.mark.parametrize(("text", "said"), CASES)
def test_what_is_written_is_said(text, said):
    assert normalise_text(text) == said
    assert normalise_text(said) == said
    assert normalise(text) == said  # the judges' side says the same


def test_the_table_is_long_enough():
    assert len(CASES) >= 300


PIECES = [
    "Dr.", "St.", "John", "3rd", "Ave.", "$5", "1/2", "-3.5", "A", "IBM", "a.m.", "No.",
    "12:30", "e.g.", "&", "IV", "Henry", "May", "5", "tv", "'80s", "kg", "%", "°C",
    "www.a.com", "é", "❤", "x", "–", "#", "½", "ok",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.sampled_from([" ", ", ", ""]))
def test_what_is_said_stays(pieces, between):
    try:
        said = normalise_text(between.join(pieces))
    except UserError:
        return
    assert normalise_text(said) == said
    assert set(said) <= set("abcdefghijklmnopqrstuvwxyz' ")


def test_it_is_told_where_speech_and_writing_differ():
    assert spoken_otherwise("Happy, baby — music!") is None
    assert spoken_otherwise("Don’t stop") is None
    assert spoken_otherwise("Dr. Smith") == "doctor smith"
    assert spoken_otherwise("café") == "cafe"


def test_marks_to_pause_at_are_kept_for_a_voice():
    assert normalise_text("Hello, Mr. Fox! It's 5:30, isn't it?", pauses=True) == (
        "hello, mister fox! it's five thirty, isn't it?")
    assert normalise_text("Wait... what?", pauses=True) == "wait. what?"
    assert normalise_text("3.5 km, i.e. far", pauses=True) == "three point five kilometers, that is far"


def test_letters_are_called_by_their_names():
    assert text_to_phones("U.S.A.") == [["y", "uw"], ["eh", "s"], ["ey"]]
    assert text_to_phones("an ATM")[1:] == [["ey"], ["t", "iy"], ["eh", "m"]]
    assert text_to_phones("a cat")[0] == ["ax"]
    assert text_to_phones("Dr. Smith")[0] == ["d", "aa", "k", "t", "er"]
    assert text_to_phones("12 Oak Dr.")[-1] == ["d", "r", "ay", "v"]


def test_years_and_roman_numerals():
    assert [spell_year(year) for year in ("1905", "1984", "2005", "2012", "1500", "1042")] == [
        "nineteen oh five", "nineteen eighty four", "two thousand five", "twenty twelve", "fifteen hundred",
        "one thousand forty two"]
    assert all(roman(to_roman(number)) == number for number in range(1, 200))
    assert roman("IIX") is None and roman("IC") is None


def test_every_unit_is_said_after_a_number():
    for sign, (one, many) in UNITS.items():
        assert normalise_text(f"1 {sign}") == f"one {one}"
        assert normalise_text(f"3 {sign} long") == f"three {many} long"


def test_it_imports_neither_torch_nor_numpy():
    code = ("import sys, images_that_speak.speech.normalisation as n; n.normalise_text('Dr. Smith 3 CDs');"
            "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
