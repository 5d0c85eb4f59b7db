"""A study with people: what the page gives away, how a rater gets through it, what the answers come to."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import needs_browser, open_browser
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from report_runs import write_run
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from images_that_speak.reports.commands import main
from images_that_speak.reports.folders import find_runs
from images_that_speak.reports.study import read_study, win_rate, write_study
from images_that_speak.scoring.statistics import wilson

SAMPLES = [{"image": f"{number} cats", "audio": f"happy music {number}"} for number in range(4)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    return write_run(root / "masks__0a1", SAMPLES), write_run(root / "average__0b2", SAMPLES[:3])


def keyed(page: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data in the page, and its key."""
    found = re.search(r'type="application/json">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found[1]), json.loads(page.with_suffix(".key.json").read_text())


def answered(key: dict[str, Any], rater: str, choose: Any) -> dict[str, Any]:
    """Answers by a function of a trial that says which run (0 or 1) is chosen."""
    return {"study": key["study"], "rater": rater, "answers": [
        {"trial": trial["trial"], "choice": "left" if trial["left"] == choose(trial) else "right"}
        for trial in key["trials"]]}


def test_the_page_gives_nothing_away(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "study.html"
    assert main(["study", *map(str, runs), "-o", str(page), "--title", "Which <b>?"]) == 0
    text = page.read_text()
    for secret in ("masks", "average", str(runs[0].parent), "000000000000"):
        assert secret not in text
    assert "Which &lt;b&gt;?" in text
    data, key = keyed(page)
    # Three samples are in both runs; each is asked about three times, each run half of the times on the left.
    assert len(data["trials"]) == len(key["trials"]) == 9
    assert Counter(trial["question"] for trial in key["trials"]) == {"shows": 3, "says": 3, "better": 3}
    assert {trial["sample"] for trial in key["trials"]} == {f"{number:012x}" for number in range(3)}
    for question in ("shows", "says", "better"):
        lefts = Counter(trial["left"] for trial in key["trials"] if trial["question"] == question)
        assert sorted(lefts.values()) == [1, 2]
    for trial, meant in zip(data["trials"], key["trials"], strict=True):
        kinds = {"shows": {"picture"}, "says": {"sound"}, "better": {"picture", "sound"}}[meant["question"]]
        assert set(trial["left"]) == set(trial["right"]) == kinds
        number = int(meant["sample"], 16)
        for kind, words in (("picture", f"{number} cats"), ("sound", f"happy music {number}")):
            assert (words in trial["text"]) == (kind in kinds)
    # One seed gives one page, another another order.
    again, other = (tmp_path / name for name in ("again.html", "other.html"))
    write_study(find_runs(runs), again, title="Which <b>?")
    write_study(find_runs(runs), other, seed=1)
    assert again.read_text() == text
    texts = [[trial["text"] for trial in keyed(place)[0]["trials"]] for place in (page, other)]
    assert texts[0] != texts[1] and sorted(texts[0]) == sorted(texts[1])
    write_study(find_runs(runs), other, ["shows"], most=2)
    assert len(keyed(other)[1]["trials"]) == 2


def test_what_a_picture_s_file_says_is_not_in_the_page(tmp_path: Path) -> None:
    """As programs write their settings into a png; its pixels stay as they are."""
    runs = [write_run(tmp_path / name, SAMPLES[:1]) for name in "ab"]
    note = PngInfo()
    note.add_text("parameters", "made by the secret method")
    for run, mode in zip(runs, ("P", "RGB"), strict=True):
        image = run / f"samples/{0:012x}/image.png"
        Image.open(image).convert(mode).save(image, pnginfo=note)
    write_study(find_runs(runs), tmp_path / "study.html", ["shows"])
    media = [base64.b64decode(url.partition(",")[2]) for url in keyed(tmp_path / "study.html")[0]["media"]]
    assert len(media) == 2 and not [data for data in media if b"secret" in data]
    wanted, *found = (np.asarray(Image.open(source).convert("L")) for source in
                      (runs[0] / f"samples/{0:012x}/image.png", *map(io.BytesIO, media)))
    assert all(np.array_equal(pixels, wanted) for pixels in found)


def test_what_cannot_be_compared_is_told(runs: tuple[Path, Path], tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "study.html")]
    assert main(["study", str(runs[0]), *out]) == 2
    assert "at least two" in capsys.readouterr().err
    assert main(["study", *map(str, runs), *out, "--questions", "shws"]) == 2
    assert "Did you mean 'shows'?" in capsys.readouterr().err
    strange = write_run(tmp_path / "strange", [{**SAMPLES[0], "id": "f" * 12}])
    assert main(["study", str(runs[0]), str(strange), *out]) == 2
    assert "no sample is in two" in capsys.readouterr().err


def test_nothing_is_asked_about_what_a_sample_has_not(tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """As pictures that came without prompts, or of one side only, as anchors."""
    samples: list[dict[str, Any]] = [
        *SAMPLES[:2], {"image": None, "audio": None, "id": "x0_img.png"}, {"image": "a cat", "audio": "",
                                                                          "id": "drawn"}]
    other = [*samples[:1], {**SAMPLES[1], "audio": "other words"}, *samples[2:]]
    runs = [write_run(tmp_path / name, rows) for name, rows in (("a", samples), ("b", other))]
    page = tmp_path / "study.html"
    assert main(["study", *map(str, runs), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert "shows: left out x0_img.png, without one and the same image prompt in both runs" in out
    assert f"says: left out {1:012x}, drawn, x0_img.png, without one and the same audio prompt" in out
    data, key = keyed(page)
    assert Counter(trial["question"] for trial in key["trials"]) == {"shows": 3, "says": 1, "better": 1}
    assert not [trial["text"] for trial in data["trials"] if "None" in trial["text"] or "“”" in trial["text"]]
    unnamed = [write_run(tmp_path / name, samples[2:3]) for name in "cd"]
    assert main(["study", *map(str, unnamed), "-o", str(page)]) == 2
    told = capsys.readouterr().err
    assert "nothing to ask about" in told
    assert "says: left out x0_img.png, without one and the same audio prompt" in told


def test_win_rates(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first run always shows better; both raters find one and the same of three to say it better."""
    page = tmp_path / "study.html"
    key = json.loads(write_study(find_runs(runs), page).read_text())

    def choose(trial: dict[str, Any]) -> int:
        return 0 if trial["question"] == "shows" or trial["sample"] == f"{1:012x}" else 1

    files = []
    for rater in ("ann", "bob"):
        files.append(tmp_path / f"{rater}.json")
        files[-1].write_text(json.dumps(answered(key, rater, choose)))
    rows = {row["question"]: row for row in read_study(page.with_suffix(".key.json"), files)}
    shows, says = rows["shows"], rows["says"]
    assert (shows["wins"], shows["answers"], shows["raters"], shows["rate"]) == (6, 6, 2, 1)
    assert shows["low"] == pytest.approx(wilson(6, 6).low) and shows["high"] == 1
    assert (says["run"], says["other"]) == ("masks__0a1", "average__0b2")
    assert (says["wins"], says["answers"]) == (2, 6) and says["rate"] == pytest.approx(1 / 3)
    # Three samples, on which the raters agree: less is known than six answers would tell.
    assert says["low"] == 0 and says["high"] == 1
    assert json.loads((tmp_path / "study.result.json").read_text())["rows"] == list(rows.values())
    assert main(["answers", str(page.with_suffix(".key.json")), *map(str, files)]) == 0
    assert "2 of 6" in capsys.readouterr().out
    for wrong, said in (({"study": "other"}, "another study"), ({"rater": "bob"}, "has answered already"),
                        ({"answers": [{"trial": "0001", "choice": "both"}]}, "no answer to a question"),
                        ({"answers": ["left"]}, "no answer to a question"),
                        ({"answers": None}, "holds no answers"),
                        ({"answers": 2 * [{"trial": "0001", "choice": "left"}]}, "0001 is answered twice")):
        (tmp_path / "wrong.json").write_text(json.dumps({**answered(key, "eve", choose), **wrong}))
        assert main(["answers", str(page.with_suffix(".key.json")), str(files[1]),
                     str(tmp_path / "wrong.json")]) == 2
        assert said in capsys.readouterr().err


def test_intervals_of_shares() -> None:
    # Newcombe (1998), table I, method 3.
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                         (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)):
        found = wilson(successes, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    one = win_rate([1, 0, 1, 1], ["ann"] * 4, list("abcd"))
    assert one == wilson(3, 4)
    # Eight raters of one mind about each sample know no more than one of them.
    many = win_rate([1, 0, 1, 1] * 8, [f"r{i // 4}" for i in range(32)], list("abcd") * 8)
    assert many.value == 0.75 and many.low is not None and many.low < wilson(24, 32).low


@needs_browser
def test_a_rater_needs_no_mouse(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """By keyboard through the whole page, one step back and once closed on the way; the file is read back."""
    page = tmp_path / "study.html"
    key = json.loads(write_study(find_runs(runs), page, ["shows", "says"]).read_text())
    wanted = {trial["trial"]: "left" if trial["left"] == (trial["question"] == "says") else "right"
              for trial in key["trials"]}
    with open_browser() as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior",
                               {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")})

        def press(*keys: str) -> None:
            ActionChains(driver).send_keys(*keys).perform()

        def text(selector: str) -> str:
            return driver.find_element("css selector", selector).text

        def until(condition: Any) -> None:
            WebDriverWait(driver, 60, 0.05).until(lambda _: condition())

        def begin(rater: str = "Ann B.") -> None:
            driver.get(page.as_uri())
            driver.find_element("id", "rater").click()
            press(rater, Keys.ENTER)

        def answer(number: int) -> None:
            trial = key["trials"][number]
            until(lambda: text("#progress") == f"{number + 1} of 6")
            pictures = driver.find_elements("css selector", "#trial img")
            if trial["question"] == "says":
                assert not pictures
                press("1")
                assert "listen to the left and the right" in text("#hint")
                for letter in "qw":
                    press(letter)
                    heard = "left" if letter == "q" else "right"
                    until(lambda heard=heard: "Pause" in text(f"[data-side={heard}]"))
            else:
                assert len(pictures) == 2
                assert driver.execute_script("return arguments[0].naturalWidth", pictures[0]) == 1024
            press({"left": Keys.ARROW_LEFT, "right": "2"}[wanted[trial["trial"]]])

        begin()
        answer(0)
        answer(1)
        until(lambda: text("#progress") == "3 of 6")
        press("u")
        answer(1)
        until(lambda: text("#progress") == "3 of 6")
        begin("Bob")  # at the same computer, in between
        answer(0)
        until(lambda: text("#progress") == "2 of 6")
        begin()  # as after a browser was closed
        for number in range(2, 6):
            answer(number)
        until(lambda: "last one" in text("#end"))
        press(Keys.TAB, Keys.ENTER)
        until(lambda: list((tmp_path / "downloads").glob("answers-*.json")))
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        driver.save_screenshot(str(tmp_path / "end.png"))
    file, = (tmp_path / "downloads").glob("answers-*.json")
    assert "masks" not in file.read_text() and json.loads(file.read_text())["rater"] == "Ann B."
    rows = {row["question"]: row for row in read_study(page.with_suffix(".key.json"), [file])}
    # The first run was chosen for what it shows, never for what it says.
    assert {name: (row["wins"], row["answers"]) for name, row in rows.items()} == {
        "shows": (3, 3), "says": (0, 3)}
