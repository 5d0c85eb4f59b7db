"""Pictures to learn from: true to their captions, deterministic, black where nothing is drawn."""

from __future__ import annotations

import time

import numpy as np
import pytest
from machine import needs_font
from scipy import ndimage

from images_that_speak.data.captions import (
    COUNTS,
    TEMPLATES,
    Caption,
    captions,
    test_captions,
)
from images_that_speak.data.emoji import concepts, drawing
from images_that_speak.data.pictures import HEIGHT, WIDTH, PictureSampler, place
from images_that_speak.data.tokenizer import CONTEXT, build_tokenizer
from images_that_speak.errors import UserError


def test_concepts_are_many_and_named_once():
    names = [concept.name for concept in concepts()]
    assert len(names) >= 100
    assert len(set(names)) == len(names)
    assert len({concept.char for concept in concepts()}) == len(names)
    assert {c.group for c in concepts()} >= {"animal", "food", "vehicle", "weather", "object", "building"}


def test_articles():
    singular = {concept.name: concept.singular for concept in concepts()}
    assert singular["owl"] == "an owl" and singular["cat"] == "a cat" and singular["unicorn"] == "a unicorn"


def test_captions_say_count_and_ground():
    owl = [concept.name for concept in concepts()].index("owl")
    assert Caption(owl, "black", "a painting of {}", "many").text == "a painting of owls"
    assert Caption(owl, "black", "{} on black", "one").text == "an owl on black"
    assert Caption(owl, "silhouette", "a silhouette of {}", "three").text == "a silhouette of three owls"
    assert Caption(owl, "black", "{}", "many").copies == (2, 5)
    assert Caption(owl, "black", "{}", "four").copies == (4, 4)


def test_held_out_is_a_tenth_and_disjoint():
    train, test = {c.text for c in captions("train")}, {c.text for c in captions("test")}
    assert not train & test
    assert len(train) + len(test) == len(captions())
    assert 0.08 < len(test) / len(captions()) < 0.13
    # Every concept is learnt on black with every count, if not in every template.
    learnt = {(c.concept, c.count) for c in captions("train") if c.ground == "black"}
    assert len(learnt) == len(concepts()) * len(COUNTS)


def test_test_captions_are_held_out_and_of_different_concepts():
    by_text = {caption.text: caption for caption in captions("test")}
    chosen = test_captions(20, seed=3)
    assert chosen == test_captions(20, seed=3) != test_captions(20, seed=4)
    found = [by_text[text] for text in chosen]
    assert len({caption.concept for caption in found}) == 20
    assert sum(caption.count in ("one", "many") and caption.ground == "black" for caption in found) == 10
    assert any(caption.ground == "silhouette" for caption in found)
    assert len(set(test_captions(len(concepts())))) == len(concepts())
    with pytest.raises(ValueError, match="number of concepts"):
        test_captions(len(concepts()) + 1)


def test_place_never_overlaps():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = [(int(rng.integers(50, 250)), int(rng.integers(50, 195))) for _ in range(rng.integers(1, 6))]
        spans = []
        for (height, width), (top, left) in zip(sizes, place(rng, sizes), strict=True):
            assert 0 <= top <= HEIGHT - height and 0 <= left <= WIDTH - width
            spans.append((left, left + width))
        assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))


@needs_font
def test_samples_depend_on_seed_and_index_alone():
    sampler = PictureSampler(seed=5)
    late, early = sampler.sample(7), PictureSampler(seed=5).sample(7)
    assert np.array_equal(late[0], early[0]) and late[1:] == early[1:]
    assert not np.array_equal(sampler.sample(8)[0], late[0])
    assert not np.array_equal(PictureSampler(seed=6).sample(7)[0], late[0])


@needs_font
@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_keep_to_their_split_and_brightness(split):
    allowed = {caption.text: caption for caption in captions(split)}
    sampler = PictureSampler(seed=1, split=split, brightness=(0.4, 0.6))
    for index in range(30):
        picture, text, concept = sampler.sample(index)
        caption = allowed[text]
        assert caption.concept == concept
        assert picture.shape == (256, 1024) and picture.dtype == np.uint8
        assert 0.38 * 255 <= picture.max() <= 0.6 * 255 + 1
        # Silence is exact: the ground of a drawing on black, the drawing itself in a silhouette.
        assert (picture == 0).mean() > (0.25 if caption.ground == "black" else 0.003)


@needs_font
@pytest.mark.parametrize("ground", ["black", "silhouette"])
@pytest.mark.parametrize("count", COUNTS)
def test_the_picture_shows_as_many_as_the_caption_says(ground, count):
    # One closed shape each, so that connected parts can be counted.
    names = [concept.name for concept in concepts()]
    sampler = PictureSampler()
    for name in ("star", "heart", "cloud"):
        caption = Caption(names.index(name), ground, TEMPLATES[ground][0], count)
        picture = sampler.draw(np.random.default_rng(3), caption)
        shape = picture > 40 if ground == "black" else picture < 40
        low, high = caption.copies
        assert low <= ndimage.label(shape)[1] <= high


@needs_font
def test_every_drawing_is_seen_on_black():
    for concept in concepts():
        figure = drawing(concept.char)
        inside = figure.gray[figure.alpha > 0.5]
        assert inside.min() >= 0.3 and inside.max() > 0.95, concept.name
        assert max(figure.gray.shape) > 80 and min(figure.gray.shape) > 40, concept.name


@needs_font
def test_drawings_differ_in_gray():
    # Small thumbnails of any two concepts differ by more than a tenth of the full range on average.
    from PIL import Image

    flat = []
    for concept in concepts():
        figure = drawing(concept.char)
        thumb = Image.fromarray(figure.gray * figure.alpha).resize((24, 24), Image.Resampling.BOX)
        flat.append(np.asarray(thumb).ravel())
    flat = np.array(flat)
    gap = np.abs(flat[:, None] - flat[None]).mean(2) + np.eye(len(flat))
    first, second = np.unravel_index(gap.argmin(), gap.shape)
    assert gap.min() > 0.08, (concepts()[first].name, concepts()[second].name)


@needs_font
def test_a_canvas_is_cheap():
    sampler = PictureSampler(seed=2)
    for concept in concepts():
        drawing(concept.char)
    start = time.process_time()
    for index in range(50):
        sampler.sample(index)
    assert (time.process_time() - start) / 50 < 0.02


@pytest.mark.parametrize("option, message", [
    ({"brightness": (0.7, 0.4)}, "brightness"),
    ({"brightness": (0.0, 0.4)}, "brightness"),
    ({"size": (0.5, 1.5)}, "size"),
    ({"silhouettes": 2}, "silhouettes"),
    ({"split": "tests"}, "Did you mean 'test'"),
])
def test_bad_options_are_one_clear_error(option, message):
    with pytest.raises(UserError, match=message):
        PictureSampler(**option)


def test_a_missing_font_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="make setup"):
        PictureSampler(font=str(tmp_path / "none.ttf")).sample(0)


def test_tokenizer_knows_the_words_and_falls_back_to_letters(tmp_path):
    tokenizer = build_tokenizer(tmp_path)
    assert tokenizer.model_max_length == CONTEXT
    assert tokenizer.eos_token_id == len(tokenizer) - 1 <= 1023
    ids = tokenizer([caption.text for caption in captions()])["input_ids"]
    assert max(map(len, ids)) <= CONTEXT
    assert tokenizer.tokenize("a drawing of two owls, grayscale")[3] == "two</w>"
    unknown = tokenizer.tokenize("zyqwart ünder 7")
    assert tokenizer.eos_token not in unknown and len(unknown) > 5
    assert build_tokenizer(tmp_path / "again").get_vocab() == tokenizer.get_vocab()
