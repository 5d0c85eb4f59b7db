"""The page to try a family on: what it answers, what it refuses, and the page itself in a browser."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import contrast, needs_browser, open_browser
from omegaconf import OmegaConf
from tiny_family import tiny_pocket_family

from images_that_speak import config
from images_that_speak.demo import app
from images_that_speak.demo.page import refused, shown
from images_that_speak.demo.speaker import Speaker, Spoken
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.generate import generate_batch, plan, read_settings
from images_that_speak.errors import UserError


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Speaker:
    family = tiny_pocket_family(tmp_path_factory.mktemp("pocket"))
    return Speaker(config.compose("demo", [
        f"family.weights={family}", "device=cpu", "steps=2", "port=0", "limits.words=4", "limits.steps=9"]))


def test_it_makes_what_generate_makes(speaker: Speaker) -> None:
    """Byte for byte, and says how far it is."""
    told: list[tuple[int, int]] = []
    spoken = speaker.speak({"image_prompt": "two dogs", "audio_prompt": "blue ocean", "seed": 7, "steps": 3,
                            "guidance.image_scale": 2.0}, lambda *step: told.append(step))
    cfg = config.compose("generate", [
        "composition=masks", f"family.weights={speaker.cfg.family.weights}", "image_prompt=two dogs",
        "audio_prompt=blue ocean", "seed=7", "steps=3", "guidance.image_scale=2"])
    layout = config.instantiate(cfg.family)
    made = generate_batch(Family.load(layout), read_settings(cfg, layout), plan(cfg, layout))
    assert np.array_equal(spoken.picture, np.round(made[0].numpy() * 255).astype(np.uint8))
    assert told == [(done, 11) for done in range(1, 12)]  # four draws of two steps, and three
    assert spoken.wave.shape == (163_840,) and spoken.heard is not None and spoken.wer is not None
    assert OmegaConf.select(speaker.cfg, "guidance.image_scale") == 3.0  # the next visitor's is untouched


@pytest.mark.parametrize(("changes", "said"), [
    ({"audio_prompt": "one two three four five"}, "at most 4 words"),
    ({"image_prompt": "x" * 101}, "100 characters"),
    ({"steps": 10}, "at most 9"),
    ({"steps": 0}, "1 to 1000"),
    ({"steps": "many"}, "steps='many'"),
    ({"audio_prompt": "Привет"}, "letters a to z"),
    ({"image_prompt": "  "}, "expected some words"),
    ({"guidance.audio_weight": 2.0}, "0 to 1"),
    ({"voice": "nobody"}, "expected one of slt, rms"),
    ({"seed": -1, "guidance.image_scale": 1000}, "seed=-1"),
])
def test_what_is_out_of_bounds_is_refused(speaker: Speaker, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        speaker.speak(changes)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == len(changes)


def test_an_unknown_word_is_listened_for_once(speaker: Speaker) -> None:
    before = list(speaker.readers.speech.words)
    reader = speaker._reader("zebra crossing")
    assert {"zebra", "crossing"} <= set(reader.words)
    assert speaker.readers.speech.words == before and speaker._reader("happy") is speaker.readers.speech


def test_one_at_a_time(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = [], []

    def slow(*_: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        raise UserError("enough")

    monkeypatch.setattr("images_that_speak.demo.speaker.generate_batch", slow)
    threads = [threading.Thread(target=app.answering(speaker), args=("a", "b", 1, 3, 1, 2, 0, None))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_errors_are_text(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = app.answering(speaker)
    told = answer("a cat", "one two three four <b>five</b>", 1, 3, 1, 2, 0, None)
    assert 'role="alert"' in told and "at most 4 words" in told and "<b>" not in told
    monkeypatch.setattr(speaker, "speak", lambda *_: 1 / 0)
    told = answer("a cat", "happy", 1, 3, 1, 2, 0, None)
    assert "Something went wrong" in told and "ZeroDivisionError" not in told and "Traceback" not in told


def test_a_prompt_is_no_markup() -> None:
    evil = '"><script>alert(1)</script>'
    page = shown(Spoken(np.zeros((256, 1024), np.uint8), np.zeros(163_840, np.float32), evil, evil, evil, 0.5,
                        20.0, 1.0, {"voice": evil}))
    assert "<script" not in page and "&lt;script" in page
    assert "<script" not in refused([evil])


def test_nobody_is_told(speaker: Speaker) -> None:
    """Nothing is sent of what is done here, and nothing is reachable from elsewhere unless asked for."""
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert app.build(speaker).analytics_enabled is False
    cfg = config.defaults("demo")
    assert cfg.host == "127.0.0.1" and "share" not in cfg


@pytest.fixture(scope="module")
def served(speaker: Speaker) -> Iterator[str]:
    page = app.build(speaker)
    yield app.start(page, speaker.cfg)
    page.close(verbose=False)


def test_a_port_that_is_taken_is_named(served: str, speaker: Speaker) -> None:
    taken = OmegaConf.merge(speaker.cfg, {"port": int(served.rstrip("/").rpartition(":")[2])})
    with pytest.raises(UserError, match="taken already"):
        app.start(app.build(speaker), taken)


@needs_browser
def test_in_a_browser(served: str, tmp_path: Path) -> None:
    """Type, make, play: the head moves with the sound, a mistake is told, nothing comes from elsewhere."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    with open_browser(1200, 900) as driver:
        driver.get(served)
        wait = WebDriverWait(driver, 120)

        def find(selector: str) -> Any:
            return wait.until(lambda _: driver.find_element(By.CSS_SELECTOR, selector))

        box = find("#audio_prompt textarea, #audio_prompt input")
        assert "A picture that speaks" in find("#result").text
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys("blue ocean dream")
        find("#make").click()
        image = find(".spoken img.seen")
        wait.until(lambda _: image.get_property("naturalWidth") == 1024)
        assert [word.text for word in driver.find_elements(By.CSS_SELECTOR, ".word .asked")
                if word.text] == ["blue", "ocean", "dream"]
        head = "return Number(getComputedStyle(document.querySelector('.spoken')).getPropertyValue('--at'))"
        assert driver.execute_script(head) == 0
        find(".spoken .play").click()
        wait.until(lambda _: 0 < driver.execute_script(head) < 1)
        button = find(".spoken .play")
        assert button.get_attribute("aria-label") == "Pause"
        assert contrast(button.value_of_css_property("background-color"),
                        find(".spoken .stay").value_of_css_property("fill")) > 7
        find(".spoken .play").click()
        driver.execute_script("document.querySelector('.spoken audio').currentTime = 5.12")
        wait.until(lambda _: abs(driver.execute_script(head) - 0.5) < 0.01)
        line, figure = find(".spoken .head").rect, find(".spoken figure").rect
        assert abs(line["x"] + line["width"] / 2 - figure["x"] - figure["width"] / 2) < 0.01 * figure["width"]
        find(".spoken .as-sound").click()
        assert find(".spoken .colours").is_displayed() and not image.is_displayed()
        driver.save_screenshot(str(tmp_path / "made.png"))

        box.send_keys(Keys.CONTROL, "a")
        box.send_keys("one two three four five")
        box.send_keys(Keys.ENTER)
        assert "at most 4 words" in find(".refused").text

        loaded = driver.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert loaded and all(name.startswith((served, "data:", "blob:")) for name in loaded)
        severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []
