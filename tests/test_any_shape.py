"""Pictures of any shape and file are played and read, and what is played is what generating wrote."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from images_that_speak import config
from images_that_speak.audio import play
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.picture import luminance, read_picture, to_grid, write_png
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.audio.wave import read_wave, write_wave
from images_that_speak.colour.colouring import chroma_of, colourless, write_colour
from images_that_speak.diffusion.outputs import write_sample
from images_that_speak.errors import UserError
from images_that_speak.files import write_json
from images_that_speak.reports.caption import LINE, TOP
from images_that_speak.reports.folders import find_runs
from images_that_speak.reports.gallery import write_gallery
from images_that_speak.reports.sheet import cell, write_sheet
from images_that_speak.reports.study import write_study
from images_that_speak.reports.video import write_videos
from images_that_speak.runs.samples import read_rows
from images_that_speak.scoring.heard import Heard, SpeechReader
from images_that_speak.scoring.items import Item, find_pictures, find_run
from images_that_speak.scoring.judges import Readers
from images_that_speak.scoring.metric import Clip
from images_that_speak.scoring.pairs import CepstralDistortion, Intelligibility, PictureSimilarity
from images_that_speak.scoring.reading import read_items
from images_that_speak.scoring.seen import load_picture_reader
from images_that_speak.scoring.sets import MelStatistics, PictureDistances, SoundDistances


class Ear(SpeechReader):
    """Keeps what it was given to hear."""

    name, normaliser = "ear", "plain"

    def __init__(self) -> None:
        self.waves: list[np.ndarray] = []

    def read(self, wave: np.ndarray) -> Heard:
        self.waves.append(wave)
        return Heard("")


class Flat:
    """Features: the mean of a picture."""

    name, weights, protocol = "flat", "none", "mean"

    def load(self) -> None:
        pass

    def embed(self, items: list[np.ndarray]) -> torch.Tensor:
        return torch.tensor([[float(np.mean(item))] for item in items])


def coloured(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def sample(folder: Path, pixels: np.ndarray) -> Item:
    write_sample(folder, pixels, load_vocoder("griffin_lim"),
                 {"sample_id": folder.name, "image_prompt": None, "audio_prompt": "happy baby"})
    return Item(folder.name, folder / "image.png", folder / "speech.wav", None, "happy baby", None, folder)


# --- what is played

def test_generating_evaluating_and_playing_agree(tmp_path: Path) -> None:
    """The means of a speaking picture's cells lie between levels of 8 bits and are not rounded to them.

    Neither is what plays too loud for a file clipped: it is turned down, for whoever listens.
    """
    item, ear = sample(tmp_path / "a", coloured(512, 120) // 2 + 127), Ear()
    message = read_picture(item.picture)
    assert np.abs(255 * message - np.round(255 * message)).max() > 0.2
    read_items([item], Readers(ear), load_vocoder("griffin_lim"))
    play.play(str(item.picture), str(tmp_path / "played.wav"))
    written = read_wave(tmp_path / "a/speech.wav")
    assert len(written) == 60 * MEL.hop
    assert np.array_equal(ear.waves[0], written)
    loud = load_vocoder("griffin_lim").decode_message(message[None])[0].numpy()
    assert np.abs(loud).max() > 2 and (np.abs(written) > 0.999).sum() < 3
    np.testing.assert_allclose(written, loud / np.abs(loud).max(), atol=1 / 32_000)
    assert (tmp_path / "played.wav").read_bytes() == (tmp_path / "a/speech.wav").read_bytes()


def test_8_bits_play_alike_as_floats() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (1, 256, 12), dtype=np.uint8)
    vocoder = load_vocoder("griffin_lim")
    found = vocoder.decode_message(levels)
    assert torch.equal(found, vocoder.decode_message(levels.astype(np.float32) / 255))
    message = to_grid(luminance(np.repeat(levels[0][..., None], 3, -1))) / 255
    assert torch.equal(found, vocoder.decode_message(message.astype(np.float32)[None]))


# --- which files are pictures

def test_every_kind_of_picture_is_read_in_its_own_size(tmp_path: Path) -> None:
    sizes = {"a.png": (300, 451), "b.jpg": (512, 768), "c.jpeg": (40, 60), "d.webp": (256, 200),
             "e.tiff": (100, 90), "f.bmp": (64, 64), "g.PNG": (512, 512)}
    for name, (rows, columns) in sizes.items():
        Image.fromarray(coloured(rows, columns)).save(tmp_path / name)
    np.save(tmp_path / "h.npy", np.zeros((256, 30), np.float32))
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:100])
    write_png(tmp_path / "sliver.png", np.zeros((800, 8), np.uint8))
    (tmp_path / "readme.txt").write_text("no picture")
    ear = Ear()
    report = read_items(find_pictures(tmp_path), Readers(ear), load_vocoder("griffin_lim"))
    assert [row["name"] for row in report.rows] == sorted([*sizes, "h.npy"])
    assert set(report.left_out) == {"broken.jpg", "sliver.png"}
    assert "plays for 0.03 s (expected at least 0.1 s" in report.left_out["sliver.png"]
    widths = dict(zip((row["name"] for row in report.rows), (len(wave) // MEL.hop for wave in ear.waves),
                      strict=True))
    assert widths == {**{name: round(256 * columns / rows) for name, (rows, columns) in sizes.items()},
                      "h.npy": 30}


def test_a_single_picture(tmp_path: Path) -> None:
    Image.fromarray(coloured(90, 120)).save(tmp_path / "portrait.jpg")
    Image.fromarray(coloured(90, 120)).save(tmp_path / "other.jpg")
    assert [item.name for item in find_pictures(tmp_path / "portrait.jpg")] == ["portrait.jpg"]
    config.compose("evaluate", [f"pictures={tmp_path / 'portrait.jpg'}"])
    with pytest.raises(UserError, match=r"no such folder or picture. Did you mean 'portrait.jpg'"):
        config.compose("evaluate", [f"pictures={tmp_path / 'portrait.jpeg'}"])
    (tmp_path / "portrait.txt").write_text("")
    with pytest.raises(UserError, match=r"portrait.txt: no picture by its name; expected a folder, or"):
        config.compose("evaluate", [f"pictures={tmp_path / 'portrait.txt'}"])


def test_what_shows_a_sample_once_more_is_no_picture_of_its_own(tmp_path: Path) -> None:
    sample(tmp_path / "samples/a", coloured(256, 40))
    for name in ("photograph.jpg", "colour.png", "source.webp"):
        Image.fromarray(coloured(64, 64)).save(tmp_path / "samples/a" / name)
    (tmp_path / ".cache").mkdir()
    Image.fromarray(coloured(64, 64)).save(tmp_path / ".cache/b.png")
    Image.fromarray(coloured(64, 64)).save(tmp_path / "photograph.jpg")  # of nobody's sample
    assert {item.picture.name for item in find_pictures(tmp_path)} == {"image.png", "photograph.jpg"}


def test_sounds_of_any_length_are_heard(tmp_path: Path) -> None:
    for name, seconds in (("a", 0.09), ("b", 0.1), ("c", 3.2), ("d", 20.0)):
        write_png(tmp_path / f"{name}.png", np.zeros((256, 320), np.uint8))
        write_wave(tmp_path / f"{name}.wav", np.full(round(16_000 * seconds), 0.5))
    ear = Ear()
    report = read_items(find_pictures(tmp_path), Readers(ear, source="wav"))
    assert set(report.left_out) == {"a.png"} and "0.090 s" in report.left_out["a.png"]
    assert [len(wave) for wave in ear.waves] == [1_600, 51_200, 320_000]


def test_a_broken_record_leaves_the_others_to_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sample(tmp_path / "samples" / name, coloured(256, 40))
    (tmp_path / "samples/a/sample.json").write_text("{")
    for items in (find_run(tmp_path), find_pictures(tmp_path)):
        report = read_items(items, Readers(Ear()), load_vocoder("griffin_lim"))
        assert [row["name"] for row in report.rows] == ["b"]
        assert set(report.left_out) == {"a"} and "sample.json" in report.left_out["a"]


def test_any_broken_file_is_a_line(tmp_path: Path) -> None:
    """A tiff without a width made Pillow raise a TypeError."""
    Image.fromarray(coloured(64, 80)).save(tmp_path / "a.tiff")
    data = (tmp_path / "a.tiff").read_bytes()
    at = data.index(bytes([0, 1, 4, 0])) if bytes([0, 1, 4, 0]) in data else data.index(bytes([0, 1, 3, 0]))
    (tmp_path / "a.tiff").write_bytes(data[:at] + bytes([0, 77]) + data[at + 2:])
    with pytest.raises(UserError, match=r"a.tiff: not a readable picture"):
        read_picture(tmp_path / "a.tiff")


# --- CLIP

def test_clip_looks_at_squares_of_any_picture() -> None:
    reader = load_picture_reader()
    rng = np.random.default_rng(0)
    pictures = [rng.random((256, frames)).astype(np.float32) for frames in (100, 256, 320, 1024)]
    assert [reader.embed_crops([picture]).shape[1] for picture in pictures] == [1, 1, 3, 25]
    together = reader.embed_pictures(pictures)
    for picture, found in zip(pictures, together, strict=True):
        torch.testing.assert_close(reader.embed_pictures([picture])[0], found, atol=1e-5, rtol=1e-4)
    # A narrow picture stands on its own ground: with that ground written beside it, it looks the same.
    whole = np.pad(pictures[0], ((0, 0), (78, 78)), mode="edge")
    torch.testing.assert_close(reader.embed_pictures([whole])[0], together[0], atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match=r"picture 0: shape \(255, 300\)"):
        reader.embed_pictures([np.zeros((255, 300), np.float32)])


# --- metrics

def test_metrics_name_what_they_cannot_measure(tmp_path: Path) -> None:
    """The rest is measured, and the words and pictures of all are read."""
    sizes = {"wide": (256, 1024), "narrow": (512, 400), "other": (256, 1024)}
    items = [sample(tmp_path / "run/samples" / name, coloured(*size, seed))
             for seed, (name, size) in enumerate(sizes.items())]
    other = tmp_path / "reference/samples"
    for seed, (name, size) in enumerate({"wide": (256, 1024), "narrow": (256, 300)}.items(), 9):
        sample(other / name, coloured(*size, seed))
    sets = tmp_path / "set"
    for number in range(2):
        write_png(sets / f"{number}.png", coloured(256, 1024, number))
    metrics = {"ssim": PictureSimilarity(str(other)), "stoi": Intelligibility(str(other)),
               "mcd": CepstralDistortion(str(other)), "fid": PictureDistances(Flat(), str(sets))}
    metrics["fid"].load()
    report = read_items(items, Readers(Ear()), load_vocoder("griffin_lim"), metrics)
    assert len(report.rows) == 3
    rows = {row["name"]: row for row in report.rows}
    assert rows["wide"]["ssim"] is not None and rows["narrow"].get("ssim") is None
    assert rows["wide"]["mcd_dtw"] is not None and rows["narrow"].get("mcd_dtw") is None
    told = "\n".join(report.notes)
    for name in metrics:
        assert f"metrics={name}: no figure of narrow" in told
    assert list(metrics["fid"].total()) == ["fid_flat", "kid_flat"]


def test_metrics_of_speaking_pictures_with_references_of_their_shape(tmp_path: Path) -> None:
    pixels = coloured(512, 400)
    item, _ = sample(tmp_path / "a/x", pixels), sample(tmp_path / "b/x", pixels)
    metrics = {"ssim": PictureSimilarity(str(tmp_path / "b")), "mcd": CepstralDistortion(str(tmp_path / "b"))}
    report = read_items([item], Readers(Ear()), load_vocoder("griffin_lim"), metrics)
    row = report.rows[0]
    assert row["ssim"] == pytest.approx(1) and row["mcd_dtw"] == pytest.approx(0, abs=0.1)


def test_sets_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    for name, columns in (("a", 1024), ("b", 300)):
        write_png(tmp_path / f"{name}.png", coloured(256, columns))
        write_wave(tmp_path / f"{name}.wav", np.ones(8_000))
    with pytest.raises(UserError, match=r"b.png: plays as 300 columns \(fid and kid compare"):
        PictureDistances(Flat(), str(tmp_path)).load()
    metric = SoundDistances(MelStatistics(), str(tmp_path))
    with pytest.raises(UserError, match=r"a.wav: its sound is shorter than a window of 1.28 s"):
        metric.load()
    metric.features.load()
    with pytest.raises(UserError, match=r"shorter than a window"):
        metric.add([Clip("a", np.zeros((256, 50), np.uint8), np.ones(8_000, np.float32))])


# --- reports

@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder with speaking pictures of three shapes, made of photographs."""
    folder = tmp_path_factory.mktemp("logs") / "run"
    for name, (rows, columns) in {"wide": (512, 768), "high": (512, 240), "usual": (256, 1024)}.items():
        write_sample(folder / "samples" / name, coloured(rows, columns), load_vocoder("griffin_lim"), {
            "sample_id": name, "image_prompt": None, "audio_prompt": "a rather long sentence " * 4, "seed": 0,
            "source": {"path": f"/photographs/{name}.jpg", "sha": "0"}, "scores": {"heard": "", "wer": 1.0}})
        Image.fromarray(coloured(60, 60)).save(folder / "samples" / name / "photograph.jpg")
    write_json(folder / "run.json", {"task": "generate", "name": "run"})
    write_json(folder / "result.json", {"samples": 3})
    return folder


def test_a_gallery_keeps_shapes_and_names_photographs(run: Path, tmp_path: Path) -> None:
    write_gallery(find_runs([run]), tmp_path / "gallery.html", "run")
    page = (tmp_path / "gallery.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S).group(1))
    assert {sample["id"]: sample.get("ratio") for sample in data["samples"]} == {
        "wide": 1.5, "high": 0.4688, "usual": None}
    assert {sample["image"] for sample in data["samples"]} == {"wide.jpg", "high.jpg", "usual.jpg"}


def test_a_sheet_of_all_shapes_cuts_none(run: Path, tmp_path: Path) -> None:
    samples = {sample.id: sample for sample in find_runs([run])[0].samples}
    cells = {name: cell(sample) for name, sample in samples.items()}
    assert cells["wide"].width == 768 and cells["high"].width == 480 and cells["usual"].width == 1024
    assert cells["wide"].height > 512 + 3 * LINE + 2 * TOP  # the sentence is wrapped
    write_sheet(find_runs([run]), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= (2 * 1024) // 2 and sheet.height >= (cells["high"].height + 256) // 2


def test_a_video_of_a_narrow_picture(run: Path) -> None:
    av = pytest.importorskip("av")
    paths = {path.parent.name: path for path in write_videos(find_runs([run]))}
    with av.open(str(paths["high"])) as container:
        video = container.streams.video[0]
        assert video.width == 480 and abs(video.frames - round(25 * 1.2)) <= 1


def test_a_study_asks_about_photographs(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    write_study(find_runs([run, other]), tmp_path / "study.html")
    assert "Which shows “wide.jpg”?" in (tmp_path / "study.html").read_text(encoding="utf-8")


class Red:
    """Colours everything red."""

    def chroma(self, gray: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        assert gray.shape == (256, 1024)
        return np.stack([gray, 0 * gray, 0 * gray]) / 255.0


def test_colouring_leaves_alone_what_has_its_colours(run: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert colourless(sorted((run / "samples").iterdir())) == []
    assert "left as they are, 3 of 3 samples (in colour already): high" in capsys.readouterr().out
    gray = np.repeat(coloured(512, 300)[..., :1], 3, -1)
    write_png(tmp_path / "gray/image.png", gray)
    write_json(tmp_path / "gray/sample.json", {"image_prompt": None})
    assert colourless([tmp_path / "gray"]) == []
    write_json(tmp_path / "gray/sample.json", {"image_prompt": "a frog"})
    assert colourless([tmp_path / "gray"]) == [tmp_path / "gray"]
    brightness = luminance(gray)
    chroma = chroma_of(Red(), brightness, "a frog", 0)
    write_colour(tmp_path / "gray", brightness, chroma, {})
    painted = np.asarray(Image.open(tmp_path / "gray/colour.png"))
    assert np.array_equal(luminance(painted), brightness) and painted[..., 0].mean() > painted[..., 1].mean()


def test_tables_name_photographs(run: Path) -> None:
    rows = read_rows(sorted((run / "samples").iterdir()))
    assert [row["photograph"] for row in rows] == ["high.jpg", "usual.jpg", "wide.jpg"]
