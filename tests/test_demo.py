"""The page to try: what it answers, what it refuses and in which words, and the page itself in a browser."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser import contrast, needs_browser, open_browser
from omegaconf import OmegaConf
from PIL import Image
from tiny_family import tiny_pocket_family

from images_that_speak import config
from images_that_speak.audio.picture import read_picture, read_pixels
from images_that_speak.audio.wave import read_wave
from images_that_speak.demo import app, fields, outcome
from images_that_speak.demo.outcome import Shelf, Spoken
from images_that_speak.demo.shown import refused, shown
from images_that_speak.demo.speaker import Speaker
from images_that_speak.demo.tabs import MakeTab, ReadTab, example_photographs, joins, photograph, styles
from images_that_speak.diffusion.family import Family
from images_that_speak.diffusion.planning import generate_batch, plan, read_settings
from images_that_speak.errors import UserError
from images_that_speak.scoring.heard import PocketsphinxReader
from images_that_speak.scoring.installed import load_installed_reader
from images_that_speak.speaking.make import Maker


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pocket_family(tmp_path_factory.mktemp("pocket"))


def compose(family: Path, *overrides: str) -> Any:
    return config.compose("demo", [
        f"family.weights={family}", "device=cpu", "steps=2", "port=0", "limits.words=4", "limits.steps=9",
        "reader=pocketsphinx", "image_prompt=an owl", "audio_prompt=happy baby music", *overrides])


@pytest.fixture(scope="module")
def speaker(family: Path) -> Speaker:
    """Of the family's own composition: prompts alone."""
    return Speaker(compose(family, "composition=masks"))


@pytest.fixture(scope="module")
def mixing(family: Path) -> Speaker:
    """Photographs and drawings, in the same cells; its own voice is the family's speech branch."""
    return Speaker(compose(family, "picture.rows=256", "voice=slt", "phonemes.rate=3"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A photograph of 300 x 200, a recording of two seconds, and some that are neither."""
    folder = tmp_path_factory.mktemp("files")
    y, x = np.mgrid[0:200, 0:300]
    pixels = np.stack([x * 255 // 300, y, (x + y) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "sea.png")
    t = np.arange(32_000) / 16_000
    hum = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 20)) * np.sin(np.pi * 4 * t) ** 2
    soundfile.write(folder / "me.wav", (0.2 * hum).astype(np.float32), 16_000)
    soundfile.write(folder / "still.wav", np.zeros(16_000, np.float32), 16_000)
    (folder / "text.jpg").write_text("no picture", encoding="utf-8")
    Image.new("RGB", (3, 3)).save(folder / "dot.png")
    return {path.name: path for path in folder.iterdir()}


def coming(speaker: Speaker) -> Future[Speaker]:
    """`speaker`, as the page awaits it."""
    there: Future[Speaker] = Future()
    there.set_result(speaker)
    return there


def tab(speaker: Speaker) -> MakeTab:
    import gradio

    with gradio.Blocks(analytics_enabled=False):
        return MakeTab(speaker.cfg, coming(speaker), Shelf())


def made(tab: MakeTab, **changes: Any) -> str:
    """What the page shows of a request: its fields as they begin, some changed (`.` written as `__`)."""
    values = {key: field.value for key, field in tab.inputs.items()} | {"voice": None}
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return tab.make([], *values.values())[0]


def test_it_makes_what_generate_makes(speaker: Speaker) -> None:
    """Byte for byte, and says how far it is."""
    told: list[tuple[int, int]] = []
    spoken = speaker.speak({"image_prompt": "two dogs", "audio_prompt": "blue ocean", "seed": 7, "steps": 3,
                            "guidance.image_scale": 2.0}, lambda *step: told.append(step))
    cfg = config.compose("generate", [
        f"family.weights={speaker.cfg.family.weights}", "composition=masks", "image_prompt=two dogs",
        "audio_prompt=blue ocean", "seed=7", "steps=3", "guidance.image_scale=2"])
    layout = config.instantiate(cfg.family)
    made = generate_batch(Family.load(layout), read_settings(cfg, layout), plan(cfg, layout))
    assert np.array_equal(spoken.picture, np.round(made[0].numpy() * 255).astype(np.uint8))
    assert np.array_equal(np.round(spoken.message * 255), spoken.picture)
    assert told == [(done, 11) for done in range(1, 12)]  # four draws of two steps, and three
    assert spoken.wave.shape == (163_840,) and spoken.heard is not None and spoken.wer is not None
    assert OmegaConf.select(speaker.cfg, "guidance.image_scale") == 3.0  # the next visitor's is untouched


@pytest.mark.parametrize(("changes", "said"), [
    ({"audio_prompt": "one two three four five"}, "at most 4 words"),
    ({"image_prompt": "x" * 241}, "240 characters"),
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
    common: Any = speaker._load_readers().speech
    before = list(common.words)
    reader = speaker._reader("zebra crossing")
    assert {"zebra", "crossing"} <= set(reader.words)
    assert common.words == before and speaker._reader("happy") is common


def test_one_at_a_time(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = [], []

    def slow(*_: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        raise UserError("enough")

    monkeypatch.setattr("images_that_speak.demo.speaker.generate_batch", slow)
    page = tab(speaker)
    threads = [threading.Thread(target=made, args=(page,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_errors_are_text(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tab(speaker)
    told = made(page, audio_prompt="one two three four <b>five</b>")
    assert 'role="alert"' in told and "at most 4 words" in told and "<b>" not in told
    monkeypatch.setattr(speaker, "speak", lambda *_: 1 / 0)
    told = made(page)
    assert "Something went wrong" in told and "ZeroDivisionError" not in told and "Traceback" not in told


def test_a_prompt_is_no_markup() -> None:
    evil = '"><script>alert(1)</script>'
    page = shown(Spoken(np.zeros((256, 1024), np.uint8), np.zeros((256, 1024), np.float32),
                        np.zeros(163_840, np.float32), evil, evil, 1.0, {"voice": evil}, evil, 0.5, 20.0),
                 "made/x", [evil])
    assert "<script" not in page and "&lt;script" in page
    assert "<script" not in refused([evil])


# --- photographs and voices


def test_a_photograph_is_made_as_generate_makes_it(mixing: Speaker, files: dict[str, Path]) -> None:
    """In the same pixels, by a recording, with no network of the family."""
    given = {"image": str(files["sea.png"]), "speech": str(files["me.wav"]), "style": "clearer_speech",
             "image_prompt": "", "audio_prompt": ""}
    result = mixing.speak(given)
    cfg = config.compose("generate", [
        f"family.weights={mixing.cfg.family.weights}", f"image={given['image']}", f"speech={given['speech']}",
        "style=clearer_speech", "picture.rows=256", "reader=none"])
    maker = Maker.plan(cfg, mixing.layout)
    maker.prepare()
    assert np.array_equal(result.picture, maker.make(maker.jobs)[0][0])
    assert result.picture.shape == (256, 384, 3) and result.message.shape == (256, 384)
    assert result.audio_prompt is None and result.wer is None and result.heard is not None
    assert not result.chance  # another seed would give the same


def test_networks_are_loaded_once(mixing: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded for a request serves the next; another part is loaded beside it."""
    loaded: list[str] = []
    load = Family.load
    monkeypatch.setattr(Family, "load",
                        lambda layout, parts, **rest: loaded.extend(parts) or load(layout, parts, **rest))
    first, again = (mixing.speak({"image_prompt": "two owls", "seed": 3}) for _ in range(2))
    assert sorted(loaded) == ["image", "speech", "vae"]
    assert np.array_equal(first.picture, again.picture) and first.chance
    assert not np.array_equal(first.picture, mixing.speak({"image_prompt": "two owls", "seed": 4}).picture)


def test_what_is_unknown_is_met_by_the_nearest(mixing: Speaker) -> None:
    kitten, cat = (mixing.speak({"image_prompt": name}) for name in ("a kitten", "a cat"))
    assert np.array_equal(kitten.picture, cat.picture)
    assert any("a kitten" in note and "a cat" in note for note in kitten.notes)
    assert not any("a cat" in note for note in cat.notes)


@pytest.mark.parametrize(("changes", "said"), [
    ({"image": "dot.png"}, "Photograph (dot.png): 3x3 pixels"),
    ({"image": "text.jpg"}, "Photograph (text.jpg): not a readable picture"),
    ({"image": "sea.png", "speech": "still.wav"}, "Your voice (still.wav): is silent"),
    ({"audio_prompt": "Привет"}, "What it says: "),
    ({"image_prompt": "   "}, "What is drawn: expected some words"),
    ({"seed": -1}, "Seed -1: expected a whole number"),
    ({"voice": "nobody"}, "Voice nobody: expected one of hibari, flite"),
    ({"rate": 0.2}, "Speed 0.2: expected how much faster"),
    ({"style": "loud"}, "Style loud: expected one of balanced"),
])
def test_what_is_wrong_names_fields(mixing: Speaker, files: dict[str, Path], changes: dict[str, Any],
                                    said: str) -> None:
    """Neither keys of the configuration nor paths of the server."""
    given = {key: str(files[value]) if key in ("image", "speech") else value
             for key, value in changes.items()}
    told = made(tab(mixing), **given)
    assert 'role="alert"' in told and refused([said])[:-10].partition("<p>")[2] in told
    assert told.count("<p>") == 1 and str(files["sea.png"].parent) not in told
    assert not any(f"{key}=" in told for key in fields.FIELDS)


def test_ways_out_name_fields_too() -> None:
    line = ("audio_prompt='so much': takes 14.2 s to say (expected at most 10.24 s, a picture of 1024 "
            "columns): rate=1.46 is fast enough, or say less, or cut it into several pictures with "
            "sentences=FILE")
    assert fields.in_fields(line) == [
        "What it says: takes 14.2 s to say (expected at most 10.24 s, a picture of 1024 columns): Speed 1.46 "
        "is fast enough, or say less"]
    assert fields.in_fields("steps=10: expected at most 9 here") == [
        "Denoising steps 10: expected at most 9 here"]
    assert fields.in_fields("note: 'a kitten' is near") == ["'a kitten' is near"]


def test_styles_are_those_that_ship(mixing: Speaker) -> None:
    named, now = styles(mixing.cfg)
    assert named[0] == ("Balanced", "balanced") and len(named) == 3 and now == "balanced"
    assert mixing.settled({"style": "clearer_speech"}).composition.contested == 0.05
    assert mixing.cfg.composition.contested == OmegaConf.load("configs/style/balanced.yaml").contested
    assert joins(mixing.cfg) and not joins(compose(mixing.cfg.family.weights, "composition=masks"))
    assert not joins(compose(mixing.cfg.family.weights, "method=sds", "limits.steps=999"))


def test_files_need_the_composition_that_takes_them(family: Path, files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="needs composition=modulation"):
        Speaker(compose(family, "composition=masks", f"image={files['sea.png']}"))


def test_an_upload_is_handed_on_as_it_is() -> None:
    """Gradio would turn and convert it, and stumble over what is no picture."""
    from gradio.data_classes import ImageData

    field = photograph("x", "Picture")
    assert field.preprocess(ImageData(path="/uploads/broken.jpg")) == "/uploads/broken.jpg"
    assert field.preprocess(None) is None


# --- any picture


def test_any_picture_is_read_aloud(mixing: Speaker, files: dict[str, Path]) -> None:
    result = mixing.read_aloud(files["sea.png"])
    assert np.array_equal(result.message, read_picture(files["sea.png"]))
    assert np.array_equal(result.picture, read_pixels(files["sea.png"]))
    assert len(result.wave) == 160 * result.message.shape[1] and result.heard is not None
    assert any("words of a list" in note for note in result.notes)  # pocketsphinx

    import gradio

    with gradio.Blocks(analytics_enabled=False):
        read = ReadTab(coming(mixing), Shelf()).read
    assert "Picture: expected one" in read(None)
    assert "Picture (text.jpg): not a readable picture" in read(str(files["text.jpg"]))
    assert "3 s of sound" in read(str(files["sea.png"])).replace("3.8 s", "3 s")


def test_the_files_of_a_result(mixing: Speaker, files: dict[str, Path],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen, saved, is what is played; nobody finds what is not theirs; the oldest go."""
    shelf = Shelf()
    result = mixing.read_aloud(files["sea.png"])
    name = shelf.put(result)
    picture, sound = shelf.file(name, "picture.png"), shelf.file(name, "speech.wav")
    assert picture is not None and sound is not None
    assert np.array_equal(read_picture(picture), result.message)
    assert np.abs(read_wave(sound) - result.wave.clip(-1, 1)).max() < 1e-4
    for wrong in ("sample.json", "../picture.png", ""):
        assert shelf.file(name, wrong) is None
    assert shelf.file("..", "picture.png") is None and shelf.file("", "picture.png") is None
    monkeypatch.setattr(outcome, "KEPT", 1)
    shelf.put(result)
    assert shelf.file(name, "picture.png") is None and not picture.exists()


def test_a_film_is_made_when_it_is_asked_for(mixing: Speaker, files: dict[str, Path],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    shelf = Shelf()
    result = mixing.read_aloud(files["sea.png"])
    name = shelf.put(result)
    film = shelf.file(name, "film.mp4")
    with av.open(str(film)) as container:
        assert container.streams.video[0].width % 300 == 0 and container.streams.audio[0].codec.name == "aac"
    assert "film.mp4" in shown(result, "made/x")
    monkeypatch.setattr("images_that_speak.demo.shown.films", lambda: False)
    monkeypatch.setattr(outcome, "films", lambda: False)
    assert "film.mp4" not in shown(result, "made/x") and shelf.file(shelf.put(result), "film.mp4") is None


def test_pocketsphinx_listens_where_whisper_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(**_: Any) -> None:
        raise UserError("reader.speech: the package faster-whisper is missing")

    monkeypatch.setattr("images_that_speak.scoring.installed.FasterWhisperReader", absent)
    assert isinstance(load_installed_reader(), PocketsphinxReader)


def test_examples_are_files_that_are_there() -> None:
    assert all(path.is_file() for path in example_photographs())


# --- the page


def test_nobody_is_told(speaker: Speaker) -> None:
    """Nothing is sent of what is done here, and nothing is reachable from elsewhere unless asked for."""
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert app.build(speaker.cfg, coming(speaker), Shelf()).analytics_enabled is False
    cfg = config.defaults("demo")
    assert cfg.host == "127.0.0.1" and "share" not in cfg


@pytest.fixture(scope="module")
def served(mixing: Speaker) -> Iterator[str]:
    shelf = Shelf()
    page = app.build(mixing.cfg, coming(mixing), shelf)
    yield app.start(page, mixing.cfg, shelf)
    page.close(verbose=False)


def test_a_port_that_is_taken_is_named(served: str, speaker: Speaker) -> None:
    taken = OmegaConf.merge(speaker.cfg, {"port": int(served.rstrip("/").rpartition(":")[2])})
    with pytest.raises(UserError, match="taken already"):
        app.start(app.build(taken, coming(speaker), Shelf()), taken, Shelf())


@needs_browser
def test_in_a_browser(served: str, files: dict[str, Path], tmp_path: Path) -> None:
    """Type, make, play, another seed, a photograph, look back, read aloud; nothing comes from elsewhere."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    with open_browser(1200, 1000) as driver:
        driver.get(served)
        wait = WebDriverWait(driver, 30)

        def find(selector: str) -> Any:
            return wait.until(lambda _: driver.find_element(By.CSS_SELECTOR, selector))

        def source(of: str = "#result") -> str:
            """The address of the picture that is shown, once it is there."""
            image = find(f"{of} .spoken img.seen")
            wait.until(lambda _: image.get_property("naturalWidth") > 0)
            return image.get_attribute("src")

        def click(button: Any) -> None:
            """Click on an element, or on the one that a selector finds."""
            button = find(button) if isinstance(button, str) else button
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
            button.click()

        def after(button: Any) -> str:
            """The picture that a click brings in place of the one that is shown."""
            before = source()
            click(button)
            wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#result .spoken img.seen")
                       and driver.find_element(By.CSS_SELECTOR, "#result img.seen").get_attribute("src")
                       != before)
            return source()

        box = find("#audio_prompt textarea, #audio_prompt input")
        assert "A picture that speaks" in find("#result").text
        wait.until(lambda _: find("#voice input").get_property("value").startswith("slt"))
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys("blue ocean dream")
        click("#make")
        first = source()
        assert [word.text for word in driver.find_elements(By.CSS_SELECTOR, ".word .asked")
                if word.text] == ["blue", "ocean", "dream"]
        head = "return Number(getComputedStyle(document.querySelector('.spoken')).getPropertyValue('--at'))"
        assert driver.execute_script(head) == 0
        click(".spoken .play")
        wait.until(lambda _: 0 < driver.execute_script(head) < 1)
        button = find(".spoken .play")
        assert button.get_attribute("aria-label") == "Pause"
        assert contrast(button.value_of_css_property("background-color"),
                        find(".spoken .stay").value_of_css_property("fill")) > 7
        click(".spoken .play")
        driver.execute_script("const sound = document.querySelector('.spoken audio');"
                              "sound.currentTime = sound.duration / 2")
        wait.until(lambda _: abs(driver.execute_script(head) - 0.5) < 0.02)
        line, figure = find(".spoken .head").rect, find(".spoken figure").rect
        assert abs(line["x"] + line["width"] / 2 - figure["x"] - figure["width"] / 2) < 0.02 * figure["width"]
        click(".spoken .as-sound")
        assert find(".spoken .colours").is_displayed() and not find(".spoken .seen").is_displayed()

        assert after("#again button, button#again") != first
        find("#photograph input[type=file]").send_keys(str(files["sea.png"]))
        wait.until(lambda _: find("#photograph img").get_property("naturalWidth") == 300)
        assert after("#make") and not driver.find_elements(By.CSS_SELECTOR, "#result img[alt*=owl]")
        assert find("#result img.seen").get_property("naturalWidth") == 384
        thumbnails = wait.until(lambda _: driver.find_elements(By.CSS_SELECTOR, "#history button img"))
        assert len(thumbnails) == 3
        assert after(thumbnails[-1]) == first
        driver.save_screenshot(str(tmp_path / "made.png"))

        box.send_keys(Keys.CONTROL, "a")
        box.send_keys("one two three four five")
        box.send_keys(Keys.ENTER)
        assert "What it says: expected at most 4 words" in find(".refused").text

        next(each for each in driver.find_elements(By.CSS_SELECTOR, "button[role=tab]")
             if each.text == "Read aloud").click()
        find("#picture input[type=file]").send_keys(str(files["sea.png"]))
        assert "/made/" in source("#heard")

        loaded = driver.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert loaded and all(name.startswith((served, "data:", "blob:")) for name in loaded)
        severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []
