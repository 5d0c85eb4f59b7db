"""Evaluation end to end: which files are read, what is written, and what happens to those that are broken."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hydra.core.hydra_config import HydraConfig
from machine import needs_flite
from omegaconf import OmegaConf

from images_that_speak import cli, config
from images_that_speak.audio import vocoder
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.picture import write_png
from images_that_speak.audio.wave import write_wave
from images_that_speak.checks.evaluate import check
from images_that_speak.errors import UserError
from images_that_speak.files import read_json, write_json
from images_that_speak.reports.folders import find_runs
from images_that_speak.resources import ROOT
from images_that_speak.runs import as_made, differences, finished, open_run
from images_that_speak.runs.identity import family_fingerprint
from images_that_speak.scoring import evaluate as module
from images_that_speak.scoring.ctc import CTCReader
from images_that_speak.scoring.evaluate import read_back, stored_rows
from images_that_speak.scoring.heard import Heard, SpeechReader
from images_that_speak.scoring.items import find_pictures, find_run, item_of, named_apart
from images_that_speak.scoring.judges import Readers, with_second_opinion
from images_that_speak.scoring.metric import Clip, Metric, Scores
from images_that_speak.scoring.reading import read_items
from images_that_speak.scoring.seen import PictureJudge, PictureReader, Shown
from images_that_speak.scoring.sets import ClipSquares, PictureDistances
from images_that_speak.scoring.tables import markdown
from images_that_speak.speech.tts import Flite

CONCEPTS = ("a cat", "two dogs", "a house")
PHRASES = ("happy baby music", "blue ocean dream", "seven silver apple")


class Ear(SpeechReader):
    """Hears the phrase whose number is the loudness of the wave in tenths; in silence nothing."""

    name = "ear"
    normaliser = "plain"

    def read(self, wave: np.ndarray) -> Heard:
        level = round(float(np.abs(wave).max()) * 10)
        return Heard(PHRASES[level - 1] if level else "")


class Taught(PictureReader):
    """A CLIP that knows three captions and takes all other sentences for a little like the first."""

    def __init__(self, name: str):
        self.name, self.drawings = name, True

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.stack([torch.eye(3)[CONCEPTS.index(text)] if text in CONCEPTS else torch.eye(3)[0] / 2
                            for text in texts])


class Eye(PictureJudge):
    """Sees the concept whose number is the brightness of the first pixel in tenths."""

    name, needs_caption, needs_colour = "eye", True, False

    def look(self, pictures: list[Shown]) -> list[int]:
        return [round(float(shown.luminance[0, 0]) * 10) - 1 for shown in pictures]

    def judge(self, looks: list[int], captions: list[str | None]) -> list[dict]:
        return Taught(self.name).judge([torch.eye(3)[look] for look in looks], captions)


class Player:
    """A vocoder whose loudness is the brightness of the last pixel."""

    def to(self, device: str) -> Player:
        return self

    def decode_message(self, pictures: np.ndarray) -> torch.Tensor:
        assert pictures.dtype == np.float32
        frames = pictures.shape[2]
        return torch.from_numpy(pictures[:, -1, -1])[:, None].expand(-1, frames * MEL.hop)


READERS = Readers(Ear(), Eye(), "picture")


def picture(concept: int, phrase: int) -> np.ndarray:
    pixels = np.zeros((256, 1024), np.float32)
    pixels[0, 0], pixels[-1, -1] = (concept + 1) / 10, (phrase + 1) / 10
    return pixels


def make_run(folder: Path) -> Path:
    """Nine samples, every concept with every phrase; in (0, 1) another phrase is played, (2, 0) is silent."""
    for concept in range(3):
        for phrase in range(3):
            where = folder / "samples" / f"s{concept}{phrase}"
            played = {(0, 1): 0, (2, 0): -1}.get((concept, phrase), phrase)
            write_png(where / "image.png", picture(concept, played))
            write_wave(where / "speech.wav", np.full(MEL.samples, (played + 1) / 10, np.float32))
            write_json(where / "sample.json", {
                "sample_id": where.name, "image_prompt": CONCEPTS[concept], "audio_prompt": PHRASES[phrase],
                "seed": 0, "settings": {"steps": 2}, "scores": {}})
    return folder


def compose(tmp_path: Path, *overrides: str):
    # Which weights there are does not matter here: the vocoder and the readers are stand-ins.
    return config.compose("evaluate", [f"paths.logs={tmp_path / 'logs'}", "family=pocket",
                                       f"family.weights={weights(tmp_path)}", "bootstrap=100", *overrides])


def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    if not folder.exists():
        write_json(folder / "family.json", {"name": "stand-in"})
    return folder


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_readers", lambda section, device, see=True: READERS)
    monkeypatch.setattr(vocoder, "load_vocoder", lambda path: Player())
    monkeypatch.setattr(module, "vocoder_of", lambda cfg: "player")


def test_a_run_is_read_back(tmp_path: Path, stand_ins: None, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    result = module.evaluate(compose(tmp_path, f"run={run}"))
    # 27 words; (0, 1) is three wrong, (2, 0) three missing.
    assert result["samples"] == 9
    assert result["wer"] == pytest.approx(6 / 27)
    assert result["deletions"] == result["substitutions"] == pytest.approx(3 / 27)
    low, high = result["wer_interval"]
    assert low <= result["wer"] <= high
    assert result["top1"] == 1.0 and result["clip"] == pytest.approx(100)
    assert result["joint"] == pytest.approx(7 / 9)
    scores = read_json(run / "samples/s01/sample.json")["scores"]
    assert (scores["heard"], scores["wer"], scores["joint"]) == (PHRASES[0], 1.0, False)
    assert (scores["speech_reader"], scores["picture_reader"]) == ("ear", "eye")
    folder = next((tmp_path / "logs/evaluate").iterdir())
    assert json.loads((folder / "result.json").read_text())["wer"] == result["wer"]
    with open(folder / "samples.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and rows[1]["heard"] == PHRASES[0]
    assert "| 22.2 % [" in (folder / "totals.md").read_text()
    assert "silent, counted as nothing heard: s20" in capsys.readouterr().out


def test_runs_of_the_same_prompts_keep_their_own_scores(tmp_path: Path, stand_ins: None) -> None:
    """The folder of a sample is named after its prompts and seed, so that both runs have all names."""
    first, second = make_run(tmp_path / "runs/first"), make_run(tmp_path / "runs/second")
    write_png(second / "samples/s00/image.png", picture(0, 1))
    for run in (first, second):
        (run / "samples/s22/image.png").write_bytes(b"no picture")
    result = module.evaluate(compose(tmp_path, f"pictures={tmp_path / 'runs'}"))
    assert result["samples"] == 16 and result["wer"] == pytest.approx((6 + 9) / 48)
    heard = [read_json(run / "samples/s00/sample.json")["scores"]["heard"] for run in (first, second)]
    assert heard == list(PHRASES[:2])
    assert [entry["file"] for entry in result["left_out"]] == ["first/samples/s22", "second/samples/s22"]
    with open(next((tmp_path / "logs/evaluate").iterdir()) / "samples.csv") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert len(set(names)) == 16 and names[0] == "first/samples/s00"
    # Also where nothing but the folders is given.
    both = [run / "samples/s00" for run in (first, second)]
    read_items(named_apart([item_of(folder) for folder in both]), READERS, Player())
    heard = [read_json(folder / "sample.json")["scores"]["heard"] for folder in both]
    assert heard == list(PHRASES[:2])


def test_a_picture_in_colour_is_no_other_sample(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    shutil.copy(run / "samples/s00/image.png", run / "samples/s00/colour.png")
    write_png(tmp_path / "samples/blue_colour.png", picture(0, 0))  # anyone's picture
    names = [item.name for item in find_pictures(run)]
    assert len(names) == 10 and "samples/blue_colour.png" in names
    (tmp_path / "alone").mkdir()
    for name in ("one.png", "two.png", "colour.png", "one_spec.png", "one_video.png"):
        shutil.copy(run / "samples/s00/image.png", tmp_path / "alone" / name)
    found = PictureDistances(ClipSquares(), str(tmp_path / "alone"))
    assert [path.name for path in found.files] == ["one.png", "two.png"]


def test_an_evaluation_that_is_logged_to_csv_has_its_samples_still(tmp_path: Path, stand_ins: None) -> None:
    """The logger too has a samples.csv, which knows no files."""
    run = make_run(tmp_path / "run")
    result = module.evaluate(compose(tmp_path, f"run={run}", "logger=csv", "metrics=ssim",
                                     f"metrics.ssim.reference={run}"))
    read, = find_runs([tmp_path / "logs/evaluate"])
    assert len(read.samples) == result["samples"] == 9
    assert (read.path / "metrics.csv").read_text().startswith("metric,value,")


class Deaf(Ear):
    """A judge that never hears the first word."""

    name = "deaf"

    def read(self, wave: np.ndarray) -> Heard:
        return Heard(" ".join(super().read(wave).text.split()[1:]))


def test_two_judges_stand_in_one_table(tmp_path: Path, stand_ins: None,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    both = Readers(Ear(), Eye(), "picture", Deaf())
    monkeypatch.setattr(module, "load_readers", lambda section, device, see=True: both)
    result = module.evaluate(compose(tmp_path, f"run={run}"))
    # As the first one hears it, and one word less of the eight phrases that are no silence: in the phrase
    # that is another one that was wrong anyway.
    assert result["wer"] == pytest.approx(6 / 27) and result["joint"] == pytest.approx(7 / 9)
    assert result["second_wer"] == pytest.approx((6 + 7) / 27)
    low, high = result["second_wer_interval"]
    assert low <= result["second_wer"] <= high
    assert (result["speech_reader"], result["second_reader"]) == ("ear", "deaf")
    scores = read_json(run / "samples/s00/sample.json")["scores"]
    assert (scores["second_heard"], scores["second_wer"]) == ("baby music", pytest.approx(1 / 3))
    folder = next((tmp_path / "logs/evaluate").iterdir())
    assert "| WER (ear) | WER (deaf) |" in (folder / "totals.md").read_text()
    assert "| heard (ear) | heard (deaf) |" in (folder / "samples.md").read_text()


def test_bad_files_are_named_and_the_good_ones_scored(tmp_path: Path, stand_ins: None,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    write_png(folder / "good.png", picture(0, 0))
    np.save(folder / "nan.npy", np.full((256, 1024), np.nan, np.float32))
    np.save(folder / "shape.npy", np.zeros((80, 1024), np.float32))
    np.save(folder / "range.npy", np.full((256, 1024), -11, np.float32))
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "cut.npy").write_bytes((folder / "nan.npy").read_bytes()[:1000])
    prompts = tmp_path / "pairs.csv"
    prompts.write_text(f"file,image_prompt,audio_prompt\ngood.png,{CONCEPTS[0]},{PHRASES[0]}\n")
    result = module.evaluate(compose(tmp_path, f"pictures={folder}", f"prompts={prompts}"))
    assert result["samples"] == 1 and result["wer"] == 0
    assert "top1" not in result  # one prompt: nothing to confuse it with
    left_out = {entry["file"]: entry["error"] for entry in result["left_out"]}
    assert set(left_out) == {"nan.npy", "shape.npy", "range.npy", "cut.png"}
    assert "NaN" in left_out["nan.npy"] and "(80, 1024)" in left_out["shape.npy"]
    assert all(str(folder) in error for error in left_out.values())
    assert "left out, 4 of 5" in capsys.readouterr().out
    (folder / "good.png").unlink()
    with pytest.raises(UserError, match="nothing could be read back"):
        read_items(find_pictures(folder), READERS, Player())


@pytest.mark.parametrize(("wave", "rate", "said"), [
    (np.zeros(MEL.samples), 22_050, "22050 Hz"),
    (np.zeros((MEL.samples, 2)), 16_000, "2 channels"),
    (np.zeros(1_500), 16_000, "0.094 s (expected at least 0.1 s"),
])
def test_bad_sound_beside_a_picture(tmp_path: Path, wave: np.ndarray, rate: int, said: str) -> None:
    run = make_run(tmp_path)
    soundfile.write(run / "samples/s00/speech.wav", wave, rate)
    (run / "samples/s01/speech.wav").write_bytes(b"RIFF")
    report = read_items(find_run(run), Readers(Ear(), Eye(), "wav"))
    assert set(report.left_out) == {"s00", "s01"}
    assert said in report.left_out["s00"] and "not a readable sound" in report.left_out["s01"]
    assert len(report.rows) == 7


# --- whose vocoder plays

def made(tmp_path: Path, *overrides: str) -> Path:
    """A finished run of generate.py with one sample, as `overrides` would make it.

    In tmp_path/foreign lies a pipeline in diffusers layout, as far as a layout looks, with a vocoder.
    """
    foreign = tmp_path / "foreign"
    for part in ("unet", "text_encoder", "tokenizer", "vocoder"):
        (foreign / part).mkdir(parents=True, exist_ok=True)
    write_json(foreign / "scheduler/scheduler_config.json", {"beta_schedule": "scaled_linear"})
    write_json(foreign / "vae/config.json", {"in_channels": 3, "latent_channels": 4,
                                             "block_out_channels": [1, 1, 1, 1]})
    cfg = config._compose("generate", [*places(tmp_path), *overrides])
    with open_run(cfg, "generate") as run:
        write_png(run.sample_dir("s") / "image.png", picture(0, 1))
        write_json(run.sample_dir("s") / "sample.json", {
            "sample_id": "s", "image_prompt": CONCEPTS[0], "audio_prompt": PHRASES[1]})
        run.finish({})
    return run.dir


def places(tmp_path: Path) -> list[str]:
    write_json(tmp_path / "weights/pocket/family.json", {"name": "stand-in"})
    return [f"paths.logs={tmp_path / 'logs'}", f"paths.weights={tmp_path / 'weights'}"]


def foreign(tmp_path: Path) -> list[str]:
    return ["family=sd15", *(f"family.{branch}={tmp_path / 'foreign'}" for branch in ("image", "speech"))]


@pytest.fixture
def played_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The vocoders that were loaded."""
    loaded: list[str] = []

    def load(path: str | Path) -> Player:
        loaded.append(str(path))
        return Player()

    monkeypatch.setattr(vocoder, "load_vocoder", load)
    monkeypatch.setattr(module, "load_readers", lambda section, device, see=True: READERS)
    return loaded


def test_a_run_is_played_by_its_own_vocoder(tmp_path: Path, played_by: list[str],
                                            capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path, *foreign(tmp_path))
    cfg = config._compose("evaluate", [*places(tmp_path), f"run={run}"])
    assert module.evaluate(cfg)["wer"] == 0
    assert played_by == [str(tmp_path / "foreign/vocoder")]
    assert f"family as in {run}/config.yaml" in capsys.readouterr().out
    # It says so itself, and is found again by the same command; one of another vocoder is another run.
    folder = next((tmp_path / "logs/evaluate").iterdir())
    taken = as_made(cfg)
    assert OmegaConf.load(folder / "config.yaml").family.speech == str(tmp_path / "foreign")
    assert finished(taken, "evaluate") == (folder, read_json(folder / "result.json"))
    assert differences(folder, taken) == [] and as_made(taken) is taken
    assert f"{'played':<12} by the vocoder of {tmp_path / 'foreign'}" in check(cfg)[0]
    other = config._compose("evaluate", [*places(tmp_path), f"run={run}", "vocoder.path=griffin_lim"])
    module.evaluate(other)
    assert played_by[1:] == ["griffin_lim"] and len([*(tmp_path / "logs/evaluate").iterdir()]) == 2
    # Without its folders, the family is named as what is missing, or another vocoder plays.
    shutil.rmtree(tmp_path / "foreign")
    with pytest.raises(UserError, match=r"family.image=.*foreign: no such folder"):
        module.evaluate(config._compose("evaluate", [*places(tmp_path), f"run={run}", "fresh=true"]))
    assert f"family as in {run}/config.yaml" in capsys.readouterr().out


def test_each_run_of_a_folder_is_played_by_its_own_vocoder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs of this family, one of another: what is heard tells which vocoder played."""
    shipped = f"paths.weights={ROOT / 'weights'}"
    *_, other = (made(tmp_path, shipped, *overrides) for overrides in ([], ["steps=3"], foreign(tmp_path)))
    write_png(tmp_path / "logs/generate/anyone.png", picture(1, 0))
    loaded: list[str] = []

    class Louder(Player):
        """The vocoder of the other family."""

        def decode_message(self, pictures: np.ndarray) -> torch.Tensor:
            return super().decode_message(pictures) + 0.1

    def load(path: str) -> Player:
        loaded.append(path)
        return Louder() if "foreign" in path else Player()

    monkeypatch.setattr(vocoder, "load_vocoder", load)
    monkeypatch.setattr(module, "load_readers", lambda section, device, see=True: READERS)
    where = [*places(tmp_path), shipped, f"pictures={tmp_path / 'logs/generate'}"]
    cfg = config._compose("evaluate", where)
    family = family_fingerprint(OmegaConf.to_container(cfg.family, resolve=True))
    write_json(tmp_path / f"logs/anchors/{family}-0/anchors.json",
               {"speech_reader": "pocketsphinx", "rows": [{"what": "anchor", "samples": 1}]})
    assert module.evaluate(cfg)["samples"] == 4
    with open(next((tmp_path / "logs/evaluate").glob("*/samples.csv"))) as file:
        heard = {row["name"].split("/")[0]: row["heard"] for row in csv.DictReader(file)}
    assert heard.pop("anyone.png") == PHRASES[0] and len(heard) == 3
    assert {name: PHRASES.index(text) for name, text in heard.items()} == {
        name: 2 if name == other.name else 1 for name in heard}
    assert sorted(loaded) == sorted([str(tmp_path / "foreign/vocoder"), "griffin_lim"])
    # The anchors of one family say nothing about another.
    assert "anchor" not in capsys.readouterr().out
    played, = (line for line in check(cfg)[0] if line.startswith("played"))
    assert str(tmp_path / "foreign") in played and "griffin_lim" in played
    # What the command says comes first.
    module.evaluate(config._compose("evaluate", [*where, "vocoder.path=griffin_lim"]))
    assert loaded[2:] == ["griffin_lim"]


def test_what_is_taken_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(run: Path, *overrides: str, where: Path = tmp_path) -> dict:
        cfg = config._compose("evaluate", [*places(where), f"run={run}", *overrides])
        found = as_made(cfg)
        return {key: value for key, value in config.changed(found, "evaluate").items() if key != "run"}

    lora = tmp_path / "lora"
    write_json(lora / "pytorch_lora_weights.safetensors", {})
    plain = made(tmp_path)
    tuned = made(tmp_path, f"family.lora={lora}", "vocoder.path=griffin_lim")
    mine = {key: value for key, value in taken(plain).items() if key.startswith("paths.")}
    assert taken(plain) == mine
    # The weights of a family that ships are those of this checkout, wherever the run was made.
    moved = taken(tuned, where=tmp_path / "moved")
    assert {key: value for key, value in moved.items() if not key.startswith("paths.")} == {
        "family.lora": str(lora), "vocoder.path": "griffin_lim"}
    assert taken(tuned, "vocoder.path=here") == {**mine, "family.lora": str(lora), "vocoder.path": "here"}
    assert taken(tuned, "family.template='a {}'") == {**mine, "family.template": "a {}"}
    shutil.rmtree(lora)
    assert taken(tuned, "vocoder.path=here") == {**mine, "vocoder.path": "here"}
    # Also what is the default can be meant.
    job = OmegaConf.create({"hydra": {"overrides": {"task": ["family=pocket"]}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", job)
    assert taken(tuned) == mine


def test_a_command_takes_them_before_it_looks_for_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    lora = tmp_path / "lora"
    write_json(lora / "pytorch_lora_weights.safetensors", {})
    run = made(tmp_path, f"family.lora={lora}", "vocoder.path=griffin_lim")
    monkeypatch.setattr(module, "load_readers", lambda section, device, see=True: READERS)
    monkeypatch.setattr(vocoder, "load_vocoder", lambda path: Player())
    arguments = ["evaluate.py", *places(tmp_path), f"run={run}"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", list(arguments))
        cli.launch("evaluate", "images_that_speak.scoring.evaluate.evaluate")
    out = capsys.readouterr().out
    assert "finished already" in out and "settings have changed" not in out
    folder, = (tmp_path / "logs/evaluate").iterdir()
    assert read_json(folder / "run.json")["changed"]["vocoder.path"] == "griffin_lim"
    # What is gone is asked for by name, with where the name comes from.
    shutil.rmtree(lora)
    monkeypatch.setattr(sys, "argv", [*arguments, "fresh=true"])
    with pytest.raises(SystemExit):
        cli.launch("evaluate", "images_that_speak.scoring.evaluate.evaluate")
    told = capsys.readouterr()
    assert f"family and vocoder as in {run}/config.yaml" in told.out and f"family.lora={lora}" in told.err


def test_pictures_of_the_published_layout(tmp_path: Path) -> None:
    for stem in ("one", "two"):
        write_png(tmp_path / f"{stem}_img.png", picture(0, 1))
        write_png(tmp_path / f"{stem}_spec.png", picture(1, 1))
        np.save(tmp_path / f"{stem}.npy", picture(0, 1))
        write_wave(tmp_path / f"{stem}.wav", np.zeros(MEL.samples))
    np.save(tmp_path / "three.npy", picture(0, 2))
    prompts = tmp_path / "pairs.csv"
    prompts.write_text(f"file,image_prompt,audio_prompt\none,a cat,{PHRASES[1]}\nthree.npy,a cat,nothing\n")
    items = find_pictures(tmp_path, prompts)
    assert [item.name for item in items] == ["one_img.png", "three.npy", "two_img.png"]
    assert items[0].wave == tmp_path / "one.wav" and items[1].wave is None
    assert [item.audio_prompt for item in items] == [PHRASES[1], "nothing", None]
    rows = read_items(items, READERS, Player()).rows
    assert [row["heard"] for row in rows] == [PHRASES[1], PHRASES[2], PHRASES[1]]
    assert [row["wer"] for row in rows] == [0.0, 3.0, None]
    assert [row["clip"] for row in rows] == [100.0, 100.0, None]
    prompts.write_text("file,image_prompt,audio_prompt\nfour.png,a cat,nothing\n")
    with pytest.raises(UserError, match="no picture in .* for 'four.png'"):
        find_pictures(tmp_path, prompts)
    with pytest.raises(UserError, match="holds no picture"):
        find_pictures(tmp_path / "nowhere")


def test_prompts_and_sounds_go_to_the_picture_that_is_meant(tmp_path: Path) -> None:
    for name in ("a/x_img.png", "b/x_img.png", "take.1.png", "x_img.png"):
        write_png(tmp_path / name, picture(0, 1))
    for name in ("take.1.wav", "take.wav"):
        write_wave(tmp_path / name, np.zeros(MEL.samples))
    prompts = tmp_path / "pairs.csv"
    prompts.write_text("file,image_prompt,audio_prompt\nb/x,a cat,two\nx_img.png,a cat,all others\n")
    items = {item.name: item for item in find_pictures(tmp_path, prompts)}
    assert {name: item.audio_prompt for name, item in items.items()} == {
        "a/x_img.png": "all others", "b/x_img.png": "two", "take.1.png": None, "x_img.png": "all others"}
    assert items["take.1.png"].wave == tmp_path / "take.1.wav"


def test_read_back_after_generating(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    folders = sorted((run / "samples").iterdir())
    # As an evaluation killed while it wrote leaves it; the run itself is finished and never opened again.
    (folders[0] / ".sample.0123abcd.tmp.json").touch()
    found = read_back(folders, READERS, quiet=True)
    assert not list((run / "samples").rglob(".*"))
    assert found["wer"] == pytest.approx(6 / 27) and found["samples"] == 9
    assert read_json(folders[0] / "sample.json")["scores"]["source"] == "wav"
    one = read_back(folders[:1], READERS)
    assert one["wer"] == 0 and "wer_interval" not in one and "top1" not in one
    with pytest.raises(UserError, match="no such file"):
        read_back([tmp_path / "nowhere"], READERS)


def test_metrics_measure_what_was_generated(tmp_path: Path) -> None:
    """Figures of each sample in its sample.json and their mean, those of the set beside it."""

    class Levels(Metric):
        seen = 0

        def add(self, clips: Sequence[Clip]) -> list[Scores]:
            self.seen += len(clips)
            return [{"ssim": float(number % 2)} for number, _ in enumerate(clips)]

        def total(self) -> dict[str, float]:
            return {"fid": float(self.seen)}

    folders = sorted((make_run(tmp_path) / "samples").iterdir())
    found = read_back(folders[:4], READERS, quiet=True, metrics={"levels": Levels()})
    assert (found["ssim"], found["fid"]) == (0.5, 4.0)
    assert read_json(folders[1] / "sample.json")["scores"]["ssim"] == 1.0


def test_a_missing_eye_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    section = {"speech": {"_target_": "images_that_speak.scoring.heard.PocketsphinxReader",
                          "words": ["happy", "baby"]},
               "picture": {"_target_": "images_that_speak.scoring.seen.load_picture_reader",
                           "model": str(tmp_path / "nowhere")}}
    found = read_back([run / "samples/s20"], section)
    assert found["wer"] == 1.0 and "clip" not in found
    out = capsys.readouterr().out
    assert "what is seen is not scored" in out and "listened for besides: music" in out


def test_other_settings_have_anchors_of_their_own(tmp_path: Path) -> None:
    from images_that_speak.scoring.anchors import _key

    for name in ("first", "other"):
        write_json(tmp_path / name / "pocket/family.json", {"name": name})
    lora, vocoder = tmp_path / "lora", tmp_path / "vocoder"
    write_json(lora / "pytorch_lora_weights.safetensors", {})
    write_json(vocoder / "config.json", {})

    def key(*overrides: str) -> str:
        usual = [] if any(text.startswith("composition=") for text in overrides) else ["composition=masks"]
        words = [f"paths.weights={tmp_path / 'first'}", *usual, *overrides]
        return _key(config._compose("generate", words), [])

    plain = key()
    assert key("batch_size=2", "num_samples=3", f"paths.data={tmp_path}") == plain
    choices = [("scene=anywhere",), ("scene.margin=0.3",), (f"family.lora={lora}",),
               (f"vocoder.path={vocoder}",), ("family.template='a drawing of {}'",),
               (f"paths.weights={tmp_path / 'other'}",),
               *(("family=sd15", f"family.speech={name}")
                 for name in (tmp_path / "first", tmp_path / "other", "a/b"))]
    # The speech alone is said in as many draws as the composition makes; the rest of it joins two branches.
    draws = [key(*each) for each in (("composition.draws=0",), ("composition.draw_steps=3",),
                                     ("composition=weighted_average",))]
    assert len({plain, *draws}) == 4 and key("composition.edge=0.3") == plain
    found = [plain, *(key(*choice) for choice in choices)]
    assert len(set(found)) == len(found)
    # Those that are read below a table are of the same family, in whatever settings.
    families = {choice: made.split("-")[0] for choice, made in zip([(), *choices], found, strict=True)}
    assert [choice for choice, family in families.items() if family == families[()]] == [
        (), *choices[:2], choices[3]]
    # What lies there counts, not where; and how networks are run does not.
    write_json(lora / "pytorch_lora_weights.safetensors", {"other": 1})
    write_json(vocoder / "config.json", {"other": 1})
    assert key(f"family.lora={lora}") != found[3] and key(f"vocoder.path={vocoder}") != found[4]
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert key(f"paths.weights={tmp_path / 'copy'}") == plain
    assert key(*choices[-1], "family.running.attention=eager") == found[-1]


def test_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tiny_family import tiny_pocket_family

    from images_that_speak.scoring import anchors as anchors_module
    from images_that_speak.speech import tts

    class Tone:
        name, version, voices = "tone", "1", ("slt",)

        def speak(self, text: str, voice: str) -> tts.Utterance:
            assert voice == "slt"
            time = np.arange(8000) / 16_000
            return tts.Utterance(np.sin(2 * np.pi * 440 * time).astype(np.float32), [])

    class Deaf(Ear):
        name = "pocketsphinx"

        def read(self, wave: np.ndarray) -> Heard:
            assert wave.shape == (MEL.samples,)
            return Heard("happy")

    class Blind(Eye):
        def look(self, pictures: list[Shown]) -> list[int]:
            return [0] * len(pictures)

    tiny_pocket_family(tmp_path / "family")
    prompts = tmp_path / "pairs.csv"
    prompts.write_text("image_prompt,audio_prompt\na cat,happy baby\ntwo dogs,happy baby\na cat,blue ocean\n")
    overrides = [f"family.weights={tmp_path / 'family'}", f"paths.logs={tmp_path / 'logs'}"]
    cfg = config.compose("generate", [*overrides, "composition=masks", f"prompts={prompts}", "steps=2",
                                      "device=cpu"])
    monkeypatch.setattr(anchors_module, "load_readers", lambda section, device: Readers(Deaf(), Blind()))
    monkeypatch.setattr(tts, "Flite", Tone)
    found = anchors_module.anchors(cfg, bootstrap=50)
    names = list(anchors_module.NAMES)
    assert [name for name in names if name in found] == names and not found["left_out"]
    # Two phrases of two words, "happy" heard for both: one word right of four; two pictures, one a cat.
    assert {found[name]["wer"] for name in names[:4]} == {0.75}
    assert found["image_alone"]["top1"] == 0.5 and "wer" not in found["image_alone"]
    assert "clip" not in found["speech_alone"]
    folder = next((tmp_path / "logs/anchors").iterdir())
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/image.png")}
    assert len(made) == 2 + 2 + 2 + 2
    # Again without flite: what is there is not made again, and what cannot be made is named.
    def missing() -> None:
        raise UserError("tts=flite: not installed")

    monkeypatch.setattr(tts, "Flite", missing)
    again = anchors_module.anchors(cfg, bootstrap=50)
    assert set(again["left_out"]) == {"tts", "copy_synthesis", "autoencoder"}
    assert again["speech_alone"] == found["speech_alone"]
    assert made == {path: path.stat().st_mtime_ns for path in folder.glob("*/*/image.png")}
    assert "left out (tts=flite: not installed)" in capsys.readouterr().out
    evaluation = config.compose("evaluate", [*overrides, f"pictures={folder}"])
    assert stored_rows([evaluation], "pocketsphinx") == again["rows"]
    assert stored_rows([evaluation], "whisper-base") == []
    assert [row["what"] for row in again["rows"]] == [anchors_module.NAMES[name] for name in names[3:]]


def test_a_prompt_that_the_reader_was_not_taught_gets_no_clip(
        tmp_path: Path, stand_ins: None, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    for folder in (run / "samples").glob("s2*"):
        record = read_json(folder / "sample.json")
        write_json(folder / "sample.json", {**record, "image_prompt": "a kitten"})
    result = module.evaluate(compose(tmp_path, f"run={run}"))
    assert result["no_clip"] == "'a kitten', which the eye CLIP was not taught"
    # The others are told from one another as before.
    assert result["top1"] == 1.0 and result["clip"] == pytest.approx(100)
    scores = read_json(run / "samples/s20/sample.json")["scores"]
    assert scores["clip"] is None and scores["rank"] is None and "'a kitten'" in scores["no_clip"]
    told = " ".join(capsys.readouterr().out.split())
    assert "no CLIP figure for 'a kitten', which the eye CLIP was not taught" in told


def test_a_table_shows_a_dash_where_no_caption_was_taught(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"image_prompt": "a kitten", "wer": 0.0, "clip": None, "no_clip": "'a kitten'"}]
    columns = {"image_prompt": "image prompt", "wer": "WER", "clip": "CLIP", "rank": "rank"}
    assert markdown(rows, columns).splitlines() == [
        "| image prompt | WER | CLIP |", "| --- | --- | --- |", "| a kitten | 0.00 | – |"]


def test_pictures_without_prompts_are_named(tmp_path: Path, stand_ins: None,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "pictures/one.png", picture(0, 0))
    result = module.evaluate(compose(tmp_path, f"pictures={tmp_path / 'pictures'}"))
    assert "clip" not in result and "no_clip" not in result
    with open(next((tmp_path / "logs").rglob("samples.csv")), encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["seen_as"] == CONCEPTS[0] and float(row["seen_clip"]) == pytest.approx(100) and not row["clip"]
    assert "finds nearest to a picture without a prompt" in capsys.readouterr().out


def test_single_words_of_the_familys_voices_are_heard_by_the_judge_that_can(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    items = [item for item in find_run(run) if item.name == "s20"]
    for phrase, expected in (("apple", True), ("apple candle", False)):
        asked = [replace(item, audio_prompt=phrase) for item in items]
        readers = with_second_opinion(READERS, asked, "auto")
        assert (readers.second is not None and readers.second.name == "ctc") == expected
        assert any("single word" in note for note in read_items(asked, replace(READERS, source="wav")).notes
                   ) == expected
    one = [replace(items[0], audio_prompt="apple")]
    # It was not taught other voices; and whoever chose two judges, or this one, has them.
    for record in (None, {**items[0].record, "voice": "hibari"}):
        assert with_second_opinion(READERS, [replace(one[0], record=record)]) is READERS
    for chosen in (replace(READERS, second=Ear()), replace(READERS, speech=CTCReader(["apple"]))):
        assert with_second_opinion(chosen, one) is chosen


@needs_flite
def test_a_run_of_one_word_shows_what_both_judges_heard(tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run") / "samples/s00"
    wave = np.zeros(MEL.samples, np.float32)
    said = Flite().speak("apple", "slt").wave
    wave[8000:8000 + len(said)] = said
    write_wave(folder / "speech.wav", wave)
    write_json(folder / "sample.json", {**read_json(folder / "sample.json"), "audio_prompt": "apple"})
    section = {"speech": {"_target_": "images_that_speak.scoring.heard.PocketsphinxReader",
                          "words": ["candle", "table"], "garbage": 0}, "picture": None, "source": "picture"}
    result = module.read_back([folder], section, device="auto")
    assert result["second_wer"] == 0
    assert read_json(folder / "sample.json")["scores"]["second_heard"] == "apple"
    assert "single word" in capsys.readouterr().out
