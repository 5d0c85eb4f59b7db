"""What the pages are made of: run folders found and read, words aligned, pages that need no server."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from PIL import Image
from report_runs import picture_and_sound, write_run

from images_that_speak.config import flatten
from images_that_speak.errors import UserError
from images_that_speak.reports import page as page_module
from images_that_speak.reports.commands import main
from images_that_speak.reports.folders import chosen, find_runs, short_names, varied
from images_that_speak.reports.page import sample_data
from images_that_speak.reports.sheet import GAP, cell, choose
from images_that_speak.reports.transcript import align, align_all
from images_that_speak.scoring.statistics import word_errors

SAMPLES = [
    {"image": "a cat", "audio": "happy baby music", "heard": "happy maybe", "clip": 21.5, "top1": True},
    {"image": "two dogs", "audio": "blue ocean dream", "heard": "blue ocean dream", "clip": 12.0,
     "top1": False},
]


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.S)
    assert found
    return json.loads(found[1])


# --- words

@pytest.mark.parametrize(("asked", "heard", "words"), [
    ("happy baby music", "happy baby music",
     [("=", "happy", "happy"), ("=", "baby", "baby"), ("=", "music", "music")]),
    ("happy baby music", "happy maybe",
     [("=", "happy", "happy"), ("s", "baby", "maybe"), ("d", "music", "")]),
    ("blue", "so blue", [("i", "", "so"), ("=", "blue", "blue")]),
    ("Two CATS!", "2 cats", [("=", "two", "two"), ("=", "cats", "cats")]),
    ("blue ocean", "", [("d", "blue", ""), ("d", "ocean", "")]),
    ("", "something", [("i", "", "something")]),
    ("", "", []),
])
def test_alignment(asked: str, heard: str, words: list[tuple[str, str, str]]) -> None:
    assert align(asked, heard) == words


def test_alignment_counts_what_wer_counts() -> None:
    rng = random.Random(0)
    pairs = [(" ".join(rng.choices("abcd", k=rng.randint(1, 7))),
              " ".join(rng.choices("abcd", k=rng.randint(0, 7)))) for _ in range(200)]
    for (asked, heard), words in zip(pairs, align_all(pairs), strict=True):
        kinds = [kind for kind, _, _ in words]
        errors = word_errors(asked, heard)
        assert errors is not None
        assert (kinds.count("i"), kinds.count("d"), kinds.count("s")) == (
            errors.insertions, errors.deletions, errors.substitutions)
        assert [a for _, a, _ in words if a] == asked.split()
        assert [h for _, _, h in words if h] == heard.split()


# --- folders

def test_runs_are_found_once_wherever_they_lie(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "generate/a"), write_run(tmp_path / "generate/b")
    sweep = tmp_path / "sweeps/s"
    sweep.mkdir(parents=True)
    (sweep / "0").symlink_to(a)
    (sweep / "round").symlink_to(tmp_path / "sweeps")  # a link that never ends
    assert [run.path for run in find_runs([a])] == [a]
    assert [run.name for run in find_runs([tmp_path / "generate"])] == ["a", "b"]
    assert [run.name for run in find_runs([sweep])] == ["0"]
    assert [run.path for run in find_runs([b, tmp_path / "generate", a])] == [b, a]


def test_a_path_that_holds_no_run_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "default__123")
    with pytest.raises(UserError, match=r"defualt__123: no such folder.*Did you mean 'default__123'"):
        find_runs([tmp_path / "defualt__123"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds no run \(expected run\.json"):
        find_runs([tmp_path / "empty"])


def test_settings_that_differ_and_what_follows_from_them(tmp_path: Path) -> None:
    for name, weight in (("a", 0.6), ("b", 1.0)):
        write_run(tmp_path / name, changed={"guidance.audio_weight": weight}, config={
            "steps": 8, "guidance": {"audio_weight": weight, "image_scale": 3}, "device": name,
            "composition": {"audio_weight": weight}, "paths": {"logs": name}})
    runs = find_runs([tmp_path])
    different = varied(runs)
    assert different == {"guidance.audio_weight": [0.6, 1.0], "composition.audio_weight": [0.6, 1.0]}
    assert chosen(runs, different) == ["guidance.audio_weight"]
    assert short_names(different) == {key: key for key in different}
    assert short_names(["guidance.audio_weight", "steps"]) == {"guidance.audio_weight": "audio_weight",
                                                               "steps": "steps"}


def test_settings_are_told_once_and_as_people_know_them(tmp_path: Path) -> None:
    """Of runs that differ in prompt, seed, scheduler and composition: what the gallery filters by."""
    package = "images_that_speak.diffusion.composition."
    for name, scheduler, compose in (("a", {"name": "ddim"}, "MeanOfDraws"), ("b", {"name": "unipc"}, "Mask"),
                                     ("c", {"name": "dpm", "algorithm_type": "sde"}, "Mask")):
        config = {"seed": ord(name), "image_prompt": f"{name} cat", "scheduler": scheduler,
                  "composition": {"_target_": package + compose}}
        write_run(tmp_path / name, [{"image": f"{name} cat", "audio": "blue", "seed": ord(name)}], config,
                  flatten(config))
    data = sample_data(find_runs([tmp_path]), tmp_path / "page.html")
    shown = [key["short"] for key in data["keys"] if key["shown"]]
    assert shown == ["composition", "scheduler"]
    at = [key["key"] for key in data["keys"]].index("composition")
    assert [run["values"][at] for run in data["runs"]] == ["mean_of_draws", "mask", "mask"]


def test_a_setting_that_follows_another_is_told_once(tmp_path: Path) -> None:
    """Also where a whole group was chosen, whose options all count as changed."""
    for name, weight in (("a", 0.5), ("b", 0.9)):
        write_run(tmp_path / name, config={"guidance": {"audio_weight": weight},
                                           "composition": {"audio_weight": weight}},
                  changed={"guidance.audio_weight": weight,
                           "composition.audio_weight": "${guidance.audio_weight}"})
    runs = find_runs([tmp_path])
    assert chosen(runs, varied(runs)) == ["guidance.audio_weight"]


def test_an_option_that_varies_within_a_choice_is_told(tmp_path: Path) -> None:
    for name, scheduler in (("a", {"name": "ddim"}), ("b", {"name": "dpm", "solver_order": 2}),
                            ("c", {"name": "dpm", "solver_order": 3})):
        write_run(tmp_path / name, config={"scheduler": scheduler},
                  changed=flatten({"scheduler": scheduler}))
    runs = find_runs([tmp_path])
    assert chosen(runs, varied(runs)) == ["scheduler.name", "scheduler.solver_order"]


def test_an_evaluation_shows_the_samples_it_read_with_its_own_scores(tmp_path: Path) -> None:
    made = write_run(tmp_path / "made", SAMPLES, {"steps": 8}, {"steps": 8})
    read = write_run(tmp_path / "read", config={"run": str(made), "reader": {"source": "wav"}, "steps": 99},
                     task="evaluate")
    rows = [f"{sample.id},a cat,happy baby music,happy,0.5,True,False,{sample.image}"
            for sample in find_runs([made])[0].samples]
    (read / "samples.csv").write_text("name,image_prompt,audio_prompt,heard,wer,top1,joint,file\n"
                                      + "\n".join([*rows, "gone,,,,,,,/nowhere/image.png"]))
    run = find_runs([read])[0]
    assert [sample.id for sample in run.samples] == [f"{0:012x}", f"{1:012x}"]
    assert all(sample.scores["wer"] == 0.5 and sample.scores["top1"] is True and sample.sound
               for sample in run.samples)
    assert run.config == {"steps": 8, "run": str(made), "reader.source": "wav"}


def test_a_sound_beside_a_picture_may_be_flac(tmp_path: Path) -> None:
    """As evaluate.py finds it."""
    picture_and_sound(tmp_path / "anyone")
    wave, rate = soundfile.read(tmp_path / "anyone/speech.wav")
    soundfile.write(tmp_path / "anyone/image.flac", wave, rate)
    read = write_run(tmp_path / "read", task="evaluate")
    (read / "samples.csv").write_text(f"name,heard,wer,file\nx,word,0.5,{tmp_path}/anyone/image.png")
    assert [sample.sound for sample in find_runs([read])[0].samples] == [tmp_path / "anyone/image.flac"]
    assert main(["gallery", str(read), "--embed"]) == 0
    sound = data_of(read / "gallery.html")["samples"][0]["sound"]
    assert sound.startswith("data:audio/flac") and np.allclose(
        soundfile.read(io.BytesIO(base64.b64decode(sound.partition(",")[2])))[0], wave, atol=1e-4)


def test_an_evaluation_of_several_runs_has_samples_of_each(tmp_path: Path) -> None:
    """Of the same prompts and seeds, so that their folders have the same names."""
    images = [sample.image for name in "ab" for sample in find_runs([write_run(tmp_path / name, SAMPLES)])[0]
              .samples]
    read = write_run(tmp_path / "read", config={"pictures": str(tmp_path)}, task="evaluate")
    (read / "samples.csv").write_text("name,heard,wer,file\n" + "\n".join(
        f"{number},word{number},0.5,{image}" for number, image in enumerate(images)))
    found = find_runs([read])[0].samples
    ids = [f"{name}/samples/{number:012x}" for name in "ab" for number in range(len(SAMPLES))]
    assert [sample.id for sample in found] == ids
    assert [sample.scores["heard"] for sample in found] == [f"word{number}" for number in range(len(images))]
    # Beside another such, each is compared with itself.
    page = tmp_path / "compare.html"
    copy = tmp_path / "again"
    shutil.copytree(read, copy)
    assert main(["compare", str(read), str(copy), "-o", str(page)]) == 0
    assert f"{len(ids)} of {len(ids)} samples are in all runs" in page.read_text()


def test_metrics_leave_out_a_line_cut_off(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", task="train")
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "note": "x"}\n{"st')
    assert find_runs([run])[0].metrics == {"loss": [(1, 2.0), (2, 1.0)]}


# --- pages

def test_pictures_and_sounds_are_found_from_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "logs/a+b #1 100%/x", SAMPLES)
    for target in (run / "gallery.html", tmp_path / "pages/deep/gallery.html"):
        assert main(["gallery", str(run), "-o", str(target)]) == 0
        data = data_of(target)
        for sample in data["samples"]:
            base = target.parent / unquote(data["runs"][sample["run"]]["base"])
            assert (base / sample["id"] / "image.png").resolve().exists()
    assert main(["gallery", str(run)]) == 0  # by default into the folder that was named


def test_a_prompt_cannot_leave_the_data(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--"
    run = write_run(tmp_path / "run", [{"image": evil, "audio": "blue", "heard": "blue"}])
    assert main(["gallery", str(run), "--title", evil]) == 0
    assert data_of(run / "gallery.html")["samples"][0]["image"] == evil
    assert evil not in (run / "gallery.html").read_text()


def test_embedded_sounds_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", SAMPLES)
    target = tmp_path / "one.html"
    assert main(["gallery", str(run), "--embed", "-o", str(target)]) == 0
    for sample in data_of(target)["samples"]:
        kind, _, packed = sample["sound"].partition(",")
        assert kind == "data:audio/flac;base64"
        wave, _ = soundfile.read(io.BytesIO(base64.b64decode(packed)), dtype="int16")
        np.testing.assert_array_equal(
            wave, soundfile.read(run / "samples" / sample["id"] / "speech.wav", dtype="int16")[0])
        assert sample["picture"].startswith("data:image/png;base64,")
    monkeypatch.setattr(page_module, "EMBED_LIMIT", 1000)
    assert main(["gallery", str(run), "--embed", "-o", str(target)]) == 2
    assert "--embed: 2 samples would make a page of about" in capsys.readouterr().err


def test_a_run_without_samples_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", str(write_run(tmp_path / "run", task="train"))]) == 2
    assert "no sample in it" in capsys.readouterr().err


def test_a_sheet_takes_prompts_in_turn(tmp_path: Path) -> None:
    crossed = [{"image": image, "audio": audio, "heard": audio if image == "a cat" else "blue blue"}
               for image in ("a cat", "two dogs", "an owl")
               for audio in ("happy music", "blue ocean", "baby")]
    run = write_run(tmp_path / "run", crossed)
    samples = find_runs([run])[0].samples
    three = choose(samples, 3)
    assert [(s.image_prompt, s.audio_prompt) for s in three] == [
        ("a cat", "happy music"), ("two dogs", "blue ocean"), ("an owl", "baby")]
    assert len({s.id for s in choose(samples, 99)}) == 9
    assert main(["sheet", str(run), "--count", "3"]) == 0
    pixels = np.asarray(Image.open(run / "sheet.png"))
    one = np.asarray(cell(three[0]))
    height, width = one.shape[0] + GAP, one.shape[1] + GAP
    assert pixels.shape == (-(-(2 * height + GAP) // 2), (2 * width + GAP) // 2, 3)
    seen = pixels[GAP // 2:GAP // 2 + 128, GAP // 2:GAP // 2 + 512]
    assert np.abs(seen - one[:256].reshape(128, 2, 512, 2, 3).mean((1, 3))).max() <= 1
    assert len({cell(sample).tobytes() for sample in three}) == 3


def test_no_page_needs_torch_and_help_needs_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SAMPLES)
    code = ("import sys; from images_that_speak.reports.commands import main, parser; "
            "parser().format_help(); assert 'yaml' not in sys.modules and 'numpy' not in sys.modules; "
            f"assert main(['gallery', {str(run)!r}]) == 0; assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
