"""The figures of the Pareto page and of the comparison, against answers that are known."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from report_runs import sweep, write_run

from images_that_speak.errors import UserError
from images_that_speak.figures import FIGURES
from images_that_speak.reports.chart import Frame, thinned, ticks
from images_that_speak.reports.commands import main
from images_that_speak.reports.compare import default_name
from images_that_speak.reports.differences import difference, shared, totals_of, verdict
from images_that_speak.reports.folders import Sample, find_runs
from images_that_speak.reports.front import front, hypervolume, on_front
from images_that_speak.reports.pareto import front_shares, methods, standings
from images_that_speak.scoring.statistics import Interval, score_sample, totals

# --- front and hypervolume

@pytest.mark.parametrize(("points", "area"), [
    ([], 0.0),
    ([(0.5, 20)], 10.0),
    ([(0.5, 20), (0.7, 15)], 10.0),  # dominated: it adds nothing
    ([(0.2, 10), (0.6, 30)], 0.8 * 10 + 0.4 * 20),
    ([(0.6, 30), (0.2, 10), (0.4, 20)], 0.8 * 10 + 0.6 * 10 + 0.4 * 10),
    ([(0.2, 10), (0.2, 10)], 8.0),
    ([(1.2, 30)], 0.0),  # no better than the reference in WER
    ([(0.2, -3)], 0.0),  # nor in CLIP
    ([(0.2, -3), (0.5, 10)], 5.0),
])
def test_hypervolume(points: list[tuple[float, float]], area: float) -> None:
    assert hypervolume(points) == pytest.approx(area)


def test_hypervolume_is_the_area_that_some_point_beats() -> None:
    rng = np.random.default_rng(0)
    points = [(float(wer), float(clip)) for wer, clip in zip(rng.uniform(0, 1.3, 12), rng.uniform(-5, 40, 12),
                                                             strict=True)]
    wer, clip = np.meshgrid((np.arange(500) + 0.5) / 500 * 1.1, -2 + (np.arange(500) + 0.5) / 500 * 42)
    covered = np.zeros_like(wer, bool)
    for point in points:
        covered |= (wer >= point[0]) & (clip <= point[1])
    assert hypervolume(points, (1.1, -2)) == pytest.approx(covered.mean() * 1.1 * 42, rel=0.01)


def test_the_front_is_who_nobody_beats() -> None:
    points = [(0.5, 20), (0.3, 10), (0.6, 15), (0.3, 10), (0.3, 9)]
    assert front(points) == [1, 3, 0]
    wer, clip = np.asarray(points).T
    # Every row of many is judged by itself.
    both = on_front(np.stack([wer, wer[::-1]]), np.stack([clip, clip[::-1]]))
    assert both.tolist() == [[True, True, False, True, False], [False, True, False, True, True]]


# --- differences

def samples(rows: list[tuple[str, str, float, float]]) -> list[Sample]:
    """(image prompt, audio prompt, WER over 4 words, CLIP)."""
    return [Sample(f"{image} {audio}", Path("x"), None, None, image, audio, 0,
                   {"wer": wer, "words": 4, "clip": clip, "deletions": 4 * wer})
            for image, audio, wer, clip in rows]


def test_a_difference_that_is_the_same_everywhere_is_certain() -> None:
    rng = random.Random(0)
    a = samples([(f"i{i}", f"a{j}", rng.choice((0.25, 0.5)), rng.uniform(0, 20))
                 for i in range(4) for j in range(5)])
    b = [Sample(s.id, s.image, None, None, s.image_prompt, s.audio_prompt, 0,
                {**s.scores, "wer": s.scores["wer"] + 0.25, "clip": s.scores["clip"] + 3}) for s in a]
    pairs = shared(a, b[::-1])  # in whichever order
    wer, clip = difference(pairs, FIGURES["wer"]), difference(pairs, FIGURES["clip"])
    assert wer is not None and clip is not None
    assert (wer.value, wer.low, wer.high) == pytest.approx((0.25,) * 3)
    assert (clip.value, clip.low, clip.high) == pytest.approx((3.0,) * 3)
    # Unpaired, prompts differ among themselves, and nothing would be certain.
    alone = totals_of(a, FIGURES["clip"])
    assert alone is not None and alone.low is not None and alone.high is not None
    assert alone.high - alone.low > 3
    assert verdict(wer, FIGURES["wer"]) == "worse" and verdict(clip, FIGURES["clip"]) == "better"


def test_only_shared_samples_count() -> None:
    a = samples([("i", "x", 0.0, 1), ("i", "y", 1.0, 1)])
    b = samples([("i", "y", 0.5, 1), ("i", "z", 0.0, 1)])
    found = difference(shared(a, b), FIGURES["wer"])
    assert found == Interval(-0.5)  # of one pair there is no interval
    assert verdict(found, FIGURES["wer"]) == "undecided"
    assert difference(shared(a, samples([("i", "z", 0, 1)])), FIGURES["wer"]) is None


@pytest.mark.parametrize(("low", "high", "clip", "wer"), [
    (0.1, 0.3, "better", "worse"), (-0.3, -0.1, "worse", "better"), (-0.1, 0.3, "undecided", "undecided"),
    (0.0, 0.3, "undecided", "undecided"), (0.0, 0.0, "the same", "the same")])
def test_verdicts(low: float, high: float, clip: str, wer: str) -> None:
    found = Interval((low + high) / 2, low, high)
    assert verdict(found, FIGURES["clip"]) == clip and verdict(found, FIGURES["wer"]) == wer


def test_totals_are_those_of_scoring() -> None:
    said = {"happy baby music": "happy music", "blue ocean": "blue blue ocean", "silver apple village": ""}
    rows = [{"image_prompt": f"i{i}", "audio_prompt": phrase, **score_sample(phrase, heard, 3.0 * i, i == 1)}
            for i in range(3) for phrase, heard in said.items()]
    figures = totals(rows, 200)
    found = [Sample(str(n), Path("x"), None, None, row["image_prompt"], row["audio_prompt"], 0, row)
             for n, row in enumerate(rows)]
    for key in ("wer", "cer", "per", "insertions", "deletions", "substitutions", "clip", "top1", "joint"):
        assert totals_of(found, FIGURES[key], 200) == figures[key], key


# --- charts

@pytest.mark.parametrize(("low", "high", "marks"), [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3.2, 24, [0, 10, 20]), (0, 3000, [0, 1000, 2000, 3000]),
    (0.1512, 0.1548, [0.152, 0.153, 0.154]), (5, 5, [5])])
def test_ticks_are_round(low: float, high: float, marks: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(marks)


def test_a_frame_puts_corners_into_corners() -> None:
    frame = Frame((0, 10), (1, 100), 200, 100, left=20, bottom=10, top=10, right=30, log=True)
    assert frame.at(0, 1) == (20, 90) and frame.at(10, 100) == (170, 10)
    assert frame.at(5, 10) == (95, 50)  # half the way up a log scale
    assert frame.at(99, 1e9) == (170, 10)  # outside: on the edge


def test_thinning_keeps_the_peaks() -> None:
    points = [(float(x), 1.0) for x in range(5000)]
    points[1234] = (1234.0, 9.0)
    kept = thinned(points)
    assert len(kept) <= 405 and (1234.0, 9.0) in kept and kept[0] == points[0] and kept[-1] == points[-1]
    assert kept == sorted(kept)


# --- pages

def test_standings(tmp_path: Path) -> None:
    placed, left_out = standings(find_runs([sweep(tmp_path)]))
    assert [(standing.run.name, standing.front, standing.share) for standing in placed] == [
        ("a", True, 1.0), ("b", True, 1.0), ("c", False, 0.0)]
    assert left_out == {"d": "running: no result.json yet"}
    # Read anew since: the samples no longer give the result, so resampling them would say nothing of it.
    record = next((tmp_path / "a/samples").glob("*/sample.json"))
    changed = json.loads(record.read_text())
    changed["scores"]["wer"] = 1.0
    record.write_text(json.dumps(changed))
    assert front_shares(find_runs([tmp_path])[:3]) is None


def test_runs_of_other_prompts_share_no_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of easier prompts beats none of the others; each set has its own front, and the page says so."""
    sweep(tmp_path)
    for name, wer, clip in (("e", 0.0, 20.0), ("f", 0.5, 10.0)):
        rows = [{"image": "an owl", "audio": "happy", "clip": clip, "heard": "happy", "seed": seed}
                for seed in range(3)]
        write_run(tmp_path / name, rows, {"seed": 1}, {}, {"wer": wer, "clip": clip})
    placed, _ = standings(find_runs([tmp_path]))
    assert {standing.run.name: (standing.prompts, standing.front) for standing in placed} == {
        "a": (0, True), "b": (0, True), "c": (0, False), "e": (1, True), "f": (1, False)}
    assert main(["pareto", str(tmp_path)]) == 0
    page = (tmp_path / "pareto.html").read_text()
    assert "these runs are of 2 different sets of prompts" in page and "hypervolume <b>" not in page
    assert "an owl | happy" in page and page.count('class="front-line"') == 2
    assert "note: these runs are of 2 different sets of prompts" in capsys.readouterr().out
    assert main(["pareto", *(str(tmp_path / name) for name in "abc"), "-o", str(tmp_path / "p.html")]) == 0
    alone = (tmp_path / "p.html").read_text()
    assert "sets of prompts" not in alone and "hypervolume <b>" in alone


def test_an_evaluation_takes_the_place_of_what_it_read(tmp_path: Path) -> None:
    sweep(tmp_path)
    for name in "abc":
        write_run(tmp_path / f"read-{name}", config={"run": str(tmp_path / name)}, task="evaluate",
                  result={"wer": 0.1, "clip": 1.0, "speech_reader": "whisper", "picture_reader": "vit"})
    placed, _ = standings(find_runs([tmp_path]))
    assert [standing.run.name for standing in placed] == ["read-a", "read-b", "read-c"]
    # One alone was read by other readers than the rest: the rest are compared.
    placed, left_out = standings(find_runs([tmp_path / "a", tmp_path / "b", tmp_path / "read-c"]))
    assert [standing.run.name for standing in placed] == ["a", "b"]
    assert left_out["read-c"].startswith("read by whisper and vit, the others by")


def test_methods_of_several_sweeps_have_a_front_each(tmp_path: Path) -> None:
    target = "images_that_speak.diffusion."
    for name, method, composition, weight, wer, clip in (
            ("a", "method.JointDenoising", "composition.Masks", 1, 0.1, 5.0),
            ("b", "method.JointDenoising", "composition.Masks", 0.8, 0.5, 20.0),
            ("c", "method.JointDenoising", "composition.WeightedAverage", 0.5, 0.9, 30.0),
            ("d", "imprint.ImprintMax", "composition.Masks", 1, 0.6, 10.0)):
        config = {"method": {"_target_": target + method}, "guidance": {"audio_weight": weight},
                  "composition": {"_target_": target + composition, "audio_weight": weight}}
        write_run(tmp_path / name, [], config, {}, {"wer": wer, "clip": clip})
    placed, _ = standings(find_runs([tmp_path]))
    assert [standing.method for standing in placed] == ["masks", "masks", "weighted_average", "imprint_max"]
    letters = methods(placed)
    assert letters == {"masks": "A", "weighted_average": "B", "imprint_max": "C"}
    assert methods(placed[:2]) == {}  # nothing to tell apart
    assert main(["pareto", str(tmp_path)]) == 0
    page = (tmp_path / "pareto.html").read_text()
    assert page.count('class="curve run-') == 3 and "2 runs, hypervolume 12" in page  # 0.9 · 5 + 0.5 · 15
    assert '<th scope="col" title="method">method</th>' in page and ">_target_<" not in page
    svg = page[page.index("<svg"): page.index("</svg>")]
    # Beside a point: what sets it apart within its method, and that once.
    assert re.findall(r'class="named"[^>]*>([^<]*)<', svg) == [
        "composition.audio_weight 1", "composition.audio_weight 0.8"]
    frame = re.search(r'class="curve run-C" d="M([\d.]+) ([\d.]+)L([\d.]+) \2L\3 ([\d.]+)"', svg)
    assert frame is not None  # along d's WER to its CLIP, and from there to the top
    assert float(frame[1]) < float(frame[3]) and float(frame[2]) > float(frame[4])


def test_the_pareto_page_has_figures_first_and_labels_off_the_axis(tmp_path: Path) -> None:
    assert main(["pareto", str(sweep(tmp_path))]) == 0
    page = (tmp_path / "pareto.html").read_text()
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page)
    assert heads[:2] == ["WER", "CLIP"] and "audio_weight" in heads[2:]
    assert '<div class="wide"><table class="runs sortable">' in page
    labels = [float(y) for y in re.findall(r'<text class="named" x="[^"]*" y="([^"]*)"', page)]
    foot = 500 - 52  # of the chart's plane; the run with WER 0 stands on it
    points = [float(y) for y in re.findall(r'class="mark" cx="[^"]*" cy="([^"]*)"', page)]
    assert max(points) == foot and len(labels) == 2 and all(y < foot for y in labels)


def test_pareto_without_figures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    assert main(["pareto", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no run can be placed by WER and CLIP:\n       run: running: no result.json yet" in said


def test_comparing_says_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(write_run(tmp_path / "a__1234567890"))]) == 2
    assert "compare: 1 run (expected 2 to 8)." in capsys.readouterr().err
    for number in range(8):
        write_run(tmp_path / f"b{number}__{number}")
    assert main(["compare", str(tmp_path)]) == 2
    assert "9 runs (expected 2 to 8). pareto and gallery show whole sweeps." in capsys.readouterr().err
    assert default_name(find_runs([tmp_path])[:2]) == "compare-1234567890-0.html"


def test_a_comparison_shows_only_what_differs(tmp_path: Path) -> None:
    sweep(tmp_path)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "c.html")]) == 0
    text = (tmp_path / "c.html").read_text()
    assert '<th scope="row"><code>guidance.audio_weight</code></th><td>0.3</td><td>0.6</td>' in text
    assert "steps" not in text.partition("<h2>Settings")[2].partition("<h2>Figures")[0]
    assert "+4 [+4, +4] <b>▲ better</b>" in text  # CLIP 9 against 5 on every sample
    assert "+66.7 points [+66.7, +66.7] <b>▼ worse</b>" in text  # two edits of three words, everywhere


def test_what_an_evaluation_measures_is_in_every_table(tmp_path: Path) -> None:
    """Figures of each sample with intervals and verdicts; those of sets as they stand."""
    for name, stoi, fid in (("a", 0.25, 40.0), ("b", 0.75, 30.5)):
        made = write_run(tmp_path / "made" / name, [{"image": image, "audio": "blue ocean"}
                                                    for image in ("a cat", "a dog")])
        rows = "".join(f"{where},{image},blue ocean,blue ocean,{stoi},{made}/samples/{where}/image.png\n"
                       for where, image in (("000000000000", "a cat"), ("000000000001", "a dog")))
        read = write_run(tmp_path / "read" / name, config={"run": str(made)}, task="evaluate",
                         result={"stoi": stoi, "fid": fid})
        (read / "samples.csv").write_text(f"name,image_prompt,audio_prompt,heard,stoi,file\n{rows}")
    folders = [str(tmp_path / "read" / name) for name in "ab"]
    assert main(["compare", *folders, "--out", str(tmp_path / "compare.html")]) == 0
    page = (tmp_path / "compare.html").read_text()
    assert "STOI</th><td>0.25 [0.25, 0.25]</td>" in page and "+0.5 [+0.5, +0.5] <b>▲ better</b>" in page
    assert "FID</th><td>40</td><td>30.5</td><td>−9.5</td>" in page
    assert main(["gallery", folders[1], "--out", str(tmp_path / "gallery.html")]) == 0
    page = (tmp_path / "gallery.html").read_text()
    assert "STOI <b>0.75</b>" in page and "FID <b>30.5</b>" in page
    assert '{"key":"stoi","name":"STOI","falling":true,"measured":true}' in page and '"stoi":0.75' in page


def test_an_unreadable_run_says_which(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: not valid JSON"):
        find_runs([run])
