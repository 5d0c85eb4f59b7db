"""What the painter knows, and what is drawn where a prompt asks for something else."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from images_that_speak import config, drawings
from images_that_speak.config import instantiate
from images_that_speak.data import counts
from images_that_speak.data.captions import captions
from images_that_speak.data.emoji import concepts
from images_that_speak.data.nearest import TABLE, canonical, drawing_sentences, nearest_drawing
from images_that_speak.diffusion.planning import notes, plan, record
from images_that_speak.errors import UserError
from images_that_speak.networks.squares import COPIES
from images_that_speak.resources import ROOT

SENTENCES = {caption.text for caption in captions()}


def test_every_sentence_that_was_taught_is_known_as_it_stands():
    assert all(canonical(text) == text for text in SENTENCES)
    assert set(drawing_sentences()) <= SENTENCES


def test_the_captions_count_as_far_as_the_painter_draws():
    assert counts.COPIES == COPIES


def test_the_prompts_that_ship_are_known():
    for path in sorted((ROOT / "prompts").rglob("*.csv")):
        with open(path, encoding="utf-8") as file:
            prompts = [row["image_prompt"] for row in csv.DictReader(file) if row.get("image_prompt")]
        assert all(canonical(prompt) == prompt for prompt in prompts), path


@pytest.mark.parametrize(("prompt", "caption"), [
    ("A cat.", "a cat"), ("cat", "a cat"), ("the cat", "a cat"), ("2 cats", "two cats"), ("CATS", "cats"),
    ("an owl, greyscale", "an owl, grayscale"), ("a pair of owls", "two owls"), ("  three   owls ", None),
    ("grapes", "a bunch of grapes"), ("some fish", "fish"), ("1 dragon", "a dragon")])
def test_the_same_said_otherwise_is_known(prompt, caption):
    found = nearest_drawing(prompt)
    assert found.known and found.caption == (caption or "three owls")


@pytest.mark.parametrize(("prompt", "caption", "how"), [
    ("a castle in the mountains at sunset", "a castle", "named"), ("a photo of a cat", "a cat", "named"),
    ("three black cats sitting on a wall", "three cats", "named"), ("a house cat", "a cat", "named"),
    ("a silhouette of a pizza", "a pizza", "named"), ("an astronaut riding a horse", "a horse", "named"),
    ("a bowl of apples", "apples", "named"), ("8 owls", "five owls", "named"),
    ("a cat and a dog", "a cat", "named"),
    ("a kitten", "a cat", "meaning"), ("two kittens", "two cats", "meaning"), ("puppies", "dogs", "meaning"),
    ("a drawing of a kitten, grayscale", "a drawing of a cat, grayscale", "meaning"),
    ("a tree", "a pine tree", "meaning"), ("a motorcycle", "a bicycle", "meaning"),
    ("a boat", "a ship", "meaning"), ("a lamp", "a light bulb", "meaning"),
    ("a silhouette of a skyscraper", "a silhouette of a tower", "meaning"),
    ("two elefants", "two elephants", "spelling"), ("a girafe", "a giraffe", "spelling"),
    ("asdfgh", None, "spelling")])
def test_other_prompts_are_met_by_the_nearest(prompt, caption, how):
    found = nearest_drawing(prompt)
    assert found.how == how and found.caption in SENTENCES
    assert caption is None or found.caption == caption
    assert "\n" not in found.told() and repr(prompt) in found.told() and repr(found.caption) in found.told()


def test_what_is_told_and_refused():
    found = nearest_drawing("a kitten")
    assert found.told() == ("'a kitten' is not among the 128 things that the painter knows; "
                            "drawing 'a cat' (nearest)")
    assert "Nearest: 'a cat', " in found.refused() and "strict=true" in found.refused()
    with pytest.raises(UserError, match="nothing that the painter knows is near it"):
        nearest_drawing("猫")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_prompt_has_a_sentence_or_one_clear_error(prompt):
    try:
        found = nearest_drawing(prompt)
    except UserError as error:
        assert "\n" not in str(error) or "\n" in prompt
    else:
        assert found.caption in SENTENCES


def test_the_table_is_small_and_names_only_things():
    names = {thing.name for thing in concepts()}
    with open(TABLE, encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert TABLE.stat().st_size < 300_000 and len(rows) > 2000
    assert all(len(row) == 5 and set(row[2:]) <= names and 0.5 <= float(row[1]) <= 1 for row in rows)
    # Of people the vectors find things near that nobody should be shown.
    assert not {row[0] for row in rows} & {"woman", "african", "muslim", "jewish", "gay", "immigrant"}


def jobs_of(*overrides: str):
    cfg = config.compose("generate", ["reader=none", "device=cpu", *overrides])
    layout = instantiate(cfg.family)
    return cfg, plan(cfg, layout), layout


def test_what_was_asked_and_what_is_drawn_are_both_recorded():
    cfg, jobs, layout = jobs_of("image_prompt=a kitten", "audio_prompt=Dr. Smith")
    found = record(jobs[0], cfg)
    assert (found["image_prompt"], found["drawn"]) == ("a kitten", "a cat")
    assert (found["audio_prompt"], found["spoken"]) == ("Dr. Smith", "doctor smith")
    told = notes(jobs, layout)
    assert len(told) == 2 and "drawing 'a cat' (nearest)" in told[0]
    assert told[1] == "'Dr. Smith' is spoken 'doctor smith'"


def test_what_is_known_needs_no_word():
    _, jobs, layout = jobs_of("image_prompt=2 cats", "audio_prompt=happy baby music")
    assert jobs[0].drawn == "two cats" and sum(square[2] > 0 for square in jobs[0].scene or ()) == 2
    assert notes(jobs, layout) == []


def test_strict_refuses_and_null_draws_as_it_is_asked():
    with pytest.raises(UserError, match="image_prompt='a kitten'.*Nearest: 'a cat'"):
        jobs_of("image_prompt=a kitten", "strict=true")
    assert jobs_of("image_prompt=a cat", "strict=true")[1][0].drawn == "a cat"
    assert jobs_of("image_prompt=a kitten", "strict=null")[1][0].drawn == "a kitten"


def test_every_prompt_that_is_refused_is_named(tmp_path: Path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("image_prompt,audio_prompt\na kitten,happy\na cat,happy\na puppy,happy\n",
                     encoding="utf-8")
    with pytest.raises(UserError) as error:
        jobs_of(f"prompts={pairs}", "strict=true")
    assert len(str(error.value).splitlines()) == 2


def test_the_command_lists_things_and_answers(capsys):
    assert drawings.main([]) == 0
    listed = capsys.readouterr().out
    assert all(thing.name in " ".join(listed.split()) for thing in concepts())
    assert "a silhouette of …" in listed
    assert drawings.main(["a kitten", "a cat"]) == 0
    assert "drawing 'a cat' (nearest)\n'a cat' is known" in capsys.readouterr().out
    assert drawings.main(["猫"]) == 2


def test_it_imports_no_torch():
    code = ("import sys, images_that_speak.data.nearest as n; n.nearest_drawing('a kitten');"
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_family_that_was_taught_other_pictures_draws_what_is_asked():
    cfg = config.compose("generate", ["reader=none", "image_prompt=a kitten"])
    layout = instantiate(cfg.family)
    assert layout.drawings
    assert plan(OmegaConf.merge(cfg, {}), replace(layout, drawings=False))[0].drawn == "a kitten"
