"""A study with people: a blinded page of two alternatives at a time, and what its answers come to.

The page holds pictures and sounds, but no run's name; which side is which run stands in a key file apart.
"""

from __future__ import annotations

import html
import io
import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError, few, nearest
from ..files import content_hash, read_json, write_json
from ..scoring.statistics import Interval, ratio, resampling_weights, wilson
from .folders import RunFolder, Sample
from .page import EMBED_LIMIT, PARTS, data_url, png_url, render, write_page

# What is asked; `shows` hides the sounds, `says` the pictures.
QUESTIONS = {"shows": "Which shows “{image}”?", "says": "Which says “{audio}”?",
             "better": "Which is better, to show “{image}” and to say “{audio}”?"}
# What both samples must have for it; prompts that differ would leave open which of them is asked about.
NEEDED = {"shows": ("image_prompt",), "says": ("audio_prompt", "sound"),
          "better": ("image_prompt", "audio_prompt", "sound")}
LACKING = {"image_prompt": "without one and the same image prompt in both runs",
           "audio_prompt": "without one and the same audio prompt in both runs",
           "sound": "without a sound in both runs"}
SIDES = ("left", "right")
TITLE = "Which of the two?"
SCRIPTS = ("core.js", "study.js")


def write_study(runs: Sequence[RunFolder], path: Path, questions: Sequence[str] = tuple(QUESTIONS),
                most: int | None = None, seed: int = 0, title: str = TITLE) -> Path:
    """Write the page of a study to `path`, and its key beside it; returns the key's path.

    Args:
        runs: two or more; every two of them are compared on the samples that both have.
        questions: of QUESTIONS. most: samples of each two runs that are asked about, chosen by `seed`; None
            takes all. seed: of the choice, the order, and the sides.

    A sample that lacks what a question is about is named and left out of it. Raises UserError when there are
    fewer than two runs, no sample is in two of them, or nothing can be asked about those.
    """
    if len(runs) < 2:
        raise UserError(f"study: {len(runs)} run (expected at least two, which are compared)")
    for name in questions:
        if name not in QUESTIONS:
            raise UserError(f"--questions {name}: expected some of {', '.join(QUESTIONS)}."
                            f"{nearest(name, QUESTIONS)}")
    draw = random.Random(seed)
    trials, told = _trials(runs, questions, most, draw)
    if not trials and told:
        raise UserError("study: nothing to ask about\n" + "\n".join(told))
    if not trials:
        raise UserError(f"study: no sample is in two of the {len(runs)} runs (expected runs of the same "
                        "prompts and seeds)")
    draw.shuffle(trials)
    study = content_hash([seed, [run.name for run in runs], trials])
    trials = [{"trial": f"{number:04d}", **trial} for number, trial in enumerate(trials, 1)]
    key_path = path.with_suffix(".key.json")
    data = {"study": study, **_media(runs, trials, draw)}
    # Without the command in its foot, which names the runs.
    body = (PARTS / "study.html").read_text(encoding="utf-8").replace("{title}", html.escape(title))
    write_page(path, render(title, body, data, SCRIPTS))
    write_json(key_path, {"study": study, "seed": seed, "runs": [run.name for run in runs],
                          "folders": [str(run.path.resolve()) for run in runs], "trials": trials})
    print("\n".join([*told, f"{len(trials)} questions; which run is which: {key_path}"]))
    return key_path


def _trials(runs: Sequence[RunFolder], questions: Sequence[str], most: int | None,
            draw: random.Random) -> tuple[list[dict[str, Any]], list[str]]:
    """The questions of every two runs in order, and what had to be left out, a line for each reason."""
    trials: list[dict[str, Any]] = []
    left_out: dict[tuple[str, str], dict[str, None]] = {}
    for pair in combinations(range(len(runs)), 2):
        samples = _shared(runs[pair[0]], runs[pair[1]])
        lacks = {(question, name): _lacks(question, both)
                 for question in questions for name, both in samples.items()}
        for (question, name), lack in lacks.items():
            if lack is not None:
                left_out.setdefault((question, lack), {})[name] = None
        whole = sorted(name for name in samples
                       if any(lacks[question, name] is None for question in questions))
        chosen = whole if most is None else sorted(draw.sample(whole, min(most, len(whole))))
        for question in questions:
            asked = [name for name in chosen if lacks[question, name] is None]
            # Each run is on the left as often as on the right, but for one.
            turns = [pair if number % 2 else pair[::-1] for number in range(len(asked))]
            draw.shuffle(turns)
            trials += [{"question": question, "sample": name, "left": turn[0], "right": turn[1]}
                       for name, turn in zip(asked, turns, strict=True)]
    told = [f"{question}: left out {few(names)}, {LACKING[lack]}"
            for (question, lack), names in left_out.items()]
    return trials, told


def _shared(a: RunFolder, b: RunFolder) -> dict[str, tuple[Sample, Sample]]:
    """{sample_id: the sample of both} for samples that both runs have, with a picture."""
    there = {sample.id: sample for sample in a.samples if sample.image.exists()}
    return {sample.id: (there[sample.id], sample) for sample in b.samples
            if sample.id in there and sample.image.exists()}


def _lacks(question: str, samples: Sequence[Sample]) -> str | None:
    """The first thing that a question is about and `samples` have not all, or not alike; None: no such."""
    for name in NEEDED[question]:
        values = [vars(sample)[name] for sample in samples]
        if not all(values) or (name != "sound" and len(set(values)) > 1):
            return name
    return None


def _media(runs: Sequence[RunFolder], trials: Sequence[Mapping[str, Any]],
           draw: random.Random) -> dict[str, Any]:
    """{media, trials} for the page: each picture and sound once, in an order that tells nothing."""
    samples = [{sample.id: sample for sample in run.samples} for run in runs]
    files: dict[Path, str] = {}

    def wanted(trial: Mapping[str, Any], side: str) -> dict[str, Path]:
        sample = samples[trial[side]][trial["sample"]]
        found = {"picture": sample.image} if trial["question"] != "says" else {}
        return found | ({"sound": sample.sound} if trial["question"] != "shows" and sample.sound else {})

    paths = list(dict.fromkeys(path for trial in trials for side in SIDES
                               for path in wanted(trial, side).values()))
    draw.shuffle(paths)
    for path in paths:
        files[path] = (_bare(path) if path.suffix == ".png" else data_url(path)) or ""
    size = sum(map(len, files.values()))
    if size > EMBED_LIMIT:
        raise UserError(f"study: pictures and sounds of {size / 2**20:.0f} MiB (expected at most "
                        f"{EMBED_LIMIT / 2**20:.0f}, for all are in the page); give --most, or fewer "
                        "questions")
    place = {path: number for number, path in enumerate(files)}
    told = []
    for trial in trials:
        sample = samples[trial["left"]][trial["sample"]]
        text = QUESTIONS[trial["question"]].format(image=sample.image_prompt, audio=sample.audio_prompt)
        told.append({"trial": trial["trial"], "text": text, **{
            side: {kind: place[path] for kind, path in wanted(trial, side).items()} for side in SIDES}})
    return {"media": list(files.values()), "trials": told}


def _bare(picture: Path) -> str:
    """A picture as a data: URL without what its file says beside it, such as who made it and how."""
    packed = io.BytesIO()
    try:
        with Image.open(picture) as image:
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{picture}: not a readable picture ({error})") from error
    Image.fromarray(pixels).save(packed, "png")
    return png_url(packed.getvalue())


# --- reading answers


def read_study(key_path: Path, answers: Sequence[Path], resamplings: int = 1000) -> list[dict[str, Any]]:
    """How often each run was chosen: one row for each question and each two runs.

    Args:
        key_path: what `write_study` wrote. answers: the files that the page gave, one a rater.

    Returns rows {question, run, other, wins, answers, raters, rate, low, high, left}: `rate` is wins over
    answers; its 95 % interval is Wilson's where there is one rater or all chose alike, else a bootstrap over
    raters and samples. `left` is how often the left side was chosen, which should be about half. They are
    also written beside the key. Raises UserError for answers of another study, or of one rater twice.
    """
    key = read_json(key_path)
    if not isinstance(key, dict) or "trials" not in key:
        raise UserError(f"{key_path}: not the key of a study (expected what `reports study` wrote)")
    trials = {trial["trial"]: trial for trial in key["trials"]}
    found: list[dict[str, Any]] = []
    raters: dict[str, Path] = {}
    for path in answers:
        given = read_json(path)
        if not isinstance(given, dict) or given.get("study") != key["study"]:
            raise UserError(f"{path}: answers of another study than {key_path}")
        rater = str(given.get("rater"))
        if rater in raters:
            raise UserError(f"{path}: rater {rater!r} has answered already, in {raters[rater]}")
        raters[rater] = path
        if not isinstance(given.get("answers"), list):
            raise UserError(f"{path}: holds no answers (expected the file that the page of the study saves)")
        answered: set[str] = set()
        for answer in given["answers"]:
            trial, side = ((trials.get(answer.get("trial")), answer.get("choice"))
                           if isinstance(answer, dict) else (None, None))
            if trial is None or side not in SIDES:
                raise UserError(f"{path}: {answer} is no answer to a question of {key_path}")
            if trial["trial"] in answered:
                raise UserError(f"{path}: question {trial['trial']} is answered twice")
            answered.add(trial["trial"])
            found.append({**trial, "rater": rater, "side": side, "winner": trial[side]})
    rows = _rates(found, key["runs"], resamplings)
    result = key_path.with_name(key_path.name.removesuffix(".key.json") + ".result.json")
    write_json(result, {"study": key["study"], "raters": len(raters), "rows": rows})
    return rows


def _rates(answers: Sequence[Mapping[str, Any]], names: Sequence[str],
           resamplings: int) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for answer in answers:
        pair = tuple(sorted((answer["left"], answer["right"])))
        groups.setdefault((list(QUESTIONS).index(answer["question"]), *pair), []).append(answer)
    rows = []
    for (question, first, second), given in sorted(groups.items()):
        wins = [float(answer["winner"] == first) for answer in given]
        raters = [answer["rater"] for answer in given]
        interval = win_rate(wins, raters, [answer["sample"] for answer in given], resamplings)
        rows.append({"question": list(QUESTIONS)[question], "run": names[first], "other": names[second],
                     "wins": int(sum(wins)), "answers": len(wins), "raters": len(set(raters)),
                     "rate": interval.value, "low": interval.low, "high": interval.high,
                     "left": sum(answer["side"] == "left" for answer in given) / len(given)})
    return rows


def win_rate(wins: Sequence[float], raters: Sequence[str], samples: Sequence[str],
             resamplings: int = 1000) -> Interval:
    """The share of wins (0 or 1 each) with a 95 % interval.

    A bootstrap over raters and samples, which both were drawn from many; Wilson's where there is one rater,
    or where all answers are alike and a bootstrap would claim to be certain.
    """
    if len(set(raters)) == 1 or len(set(wins)) == 1:
        return wilson(int(sum(wins)), len(wins))
    return ratio(wins, [1.0] * len(wins), resampling_weights(samples, raters, resamplings))


def print_study(rows: Sequence[Mapping[str, Any]]) -> None:
    from ..scoring.tables import print_table

    shown = [{**row, "rate": Interval(row["rate"], row["low"], row["high"]).percent(),
              "wins": f"{row['wins']} of {row['answers']}", "left": f"{100 * row['left']:.0f} %"}
             for row in rows]
    print_table(shown, {"question": "which", "run": "run", "other": "against", "wins": "chosen",
                        "rate": "rate [95 %]", "raters": "raters", "left": "left side"})
