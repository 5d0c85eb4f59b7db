"""The page that plays any picture, in a real browser from a file, against the Python decoder."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from browser import colour_scheme, contrast, needs_browser, open_browser
from PIL import Image, ImageFilter, ImageOps
from PIL.PngImagePlugin import PngInfo
from test_griffin_lim import voice

from images_that_speak.audio.griffin_lim import GriffinLim
from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture, picture_to_logmel
from images_that_speak.audio.picture import read_picture
from images_that_speak.reports.commands import main
from images_that_speak.resources import ROOT
from images_that_speak.speaking.modulation import Modulation

PAGE = ROOT / "docs/play.html"


# --- what it should be

def message_of(path: Path) -> np.ndarray:
    """(256, columns) in [0, 1]: what a picture says, as Python reads it; it refuses what is tiny or moves."""
    return message_apart(path) if path.name in ("small.png", "animated.gif") else read_picture(path)


def averaged(values: np.ndarray, count: int) -> np.ndarray:
    """(N, …) → (count, …): means over areas of equal height, with what they hold of a cell that they cut."""
    total = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(0, dtype=np.float64)])
    edges = np.arange(count + 1) * len(values) / count
    below = np.minimum(np.floor(edges).astype(int), len(values) - 1)
    part = (edges - below).reshape(-1, *[1] * (values.ndim - 1))
    upto = total[below] + part * values[below]
    return np.diff(upto, axis=0) * count / len(values)


def message_apart(path: Path) -> np.ndarray:
    """(256, columns) float64 in [0, 1]: what a picture says, told anew from its definition."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright.convert("RGBA"))
        gray = np.asarray(upright.convert("RGB").convert("L"), np.float64) / 255
    columns = max(1, round(gray.shape[1] * MEL.n_mels / gray.shape[0]))
    return averaged(averaged(gray, MEL.n_mels).T, columns).T


def apart(a: torch.Tensor, b: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute nats between two log-mels, where the picture is not silent."""
    heard = truth > MEL.log_floor + 0.5
    return (a - b).abs()[heard].mean().item()


def speech(times: int = 1) -> np.ndarray:
    """(256, columns) uint8 that speaks."""
    picture = logmel_to_picture(LogMel()(voice().tile(1, times)))[0].numpy()
    return np.round(255 * picture).astype(np.uint8)


def photograph(width: int, height: int) -> Image.Image:
    """Smooth shades and fine noise in colour."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    shade = np.stack([np.sin(x + k) * np.cos(y - k) for k in range(3)], -1)
    noise = np.random.default_rng(0).normal(0, 12, shade.shape)
    return Image.fromarray(np.clip(110 + 60 * shade + noise, 0, 255).astype(np.uint8))


# --- driving the page

@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(driver: Any) -> Iterator[Any]:
    """The shipped page, opened anew; afterwards it must have asked for nothing and complained of nothing."""
    driver.get(PAGE.as_uri())
    yield driver
    assert driver.get_log("browser") == []
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []


def until(driver: Any, condition: str, seconds: float = 60) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds, 0.03).until(lambda _: driver.execute_script(f"return {condition}"))


def text(driver: Any, selector: str) -> str:
    return driver.execute_script("return document.querySelector(arguments[0]).textContent", selector)


READY = "document.querySelector('#save').href"


def play(driver: Any, path: Path) -> torch.Tensor:
    """Choose a file and return its sound (1, T), from the wav that can be saved."""
    driver.find_element("id", "file").send_keys(str(path.resolve()))
    until(driver, f"!document.querySelector('#wrong').hidden || ({READY} && "
                  f"document.querySelector('#name').textContent === {path.name!r})")
    assert text(driver, "#wrong") == ""
    return saved(driver)


def saved(driver: Any) -> torch.Tensor:
    content = driver.execute_async_script("""const done = arguments[0];
        fetch(document.querySelector('#save').href).then((answer) => answer.blob()).then((blob) => {
            const reader = new FileReader();
            reader.onload = () => done(reader.result.split(',')[1]);
            reader.readAsDataURL(blob); });""")
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="float32")
    assert rate == MEL.sample_rate and wave.ndim == 1
    return torch.from_numpy(wave)[None]


def refused(driver: Any, path: Path) -> str:
    driver.find_element("id", "file").send_keys(str(path.resolve()))
    until(driver, "!document.querySelector('#wrong').hidden")
    return text(driver, "#wrong")


def gray_shown(driver: Any) -> np.ndarray:
    """(256, columns) uint8 of the canvas that shows what is played."""
    shown = driver.execute_script("return document.querySelector('.picture canvas').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as image:
        return np.asarray(image.convert("L"), np.float64)


# --- the file

def test_the_command_writes_the_page_that_is_shipped(tmp_path: Path) -> None:
    page = tmp_path / "play.html"
    assert main(["player", "--output", str(page)]) == 0
    assert page.read_bytes() == PAGE.read_bytes()
    assert len(PAGE.read_bytes()) < 60_000


def test_wrong_folders_of_examples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, folder = tmp_path / "play.html", tmp_path / "pictures"
    asked = ["player", "-o", str(page), "--pictures", str(folder)]
    assert main(asked) == 2
    assert f"{folder}: no such folder" in capsys.readouterr().err
    folder.mkdir()
    assert main(asked) == 2
    assert f"{folder}: no pictures" in capsys.readouterr().err
    (folder / "a.png").write_text("no picture")
    assert main(asked) == 2
    assert f"{folder / 'a.png'}: not a readable picture" in capsys.readouterr().err
    assert not page.exists()


# --- the sound

@needs_browser
def test_speech_is_what_our_decoder_makes_of_it(page: Any, tmp_path: Path) -> None:
    Image.fromarray(speech()).save(tmp_path / "speech.png")
    made = play(page, tmp_path / "speech.png")
    truth = picture_to_logmel(torch.from_numpy(speech()[None]).float() / 255)
    ours = GriffinLim()(truth)
    assert made.shape == ours.shape
    analysis = LogMel()
    of_page, of_ours = analysis(made), analysis(ours)
    assert apart(of_page, truth, truth) < 0.2  # both measured: 0.12 on speech of flite
    assert apart(of_page, of_ours, truth) < 0.2
    assert apart(of_page, truth, truth) < 1.25 * apart(of_ours, truth, truth)
    assert made.std().item() == pytest.approx(ours.std().item(), rel=0.02)


def cases() -> dict[str, Any]:
    clear = np.zeros((90, 130, 4), np.uint8)
    clear[..., :3] = 200
    clear[20:60, 30:100, 3] = 255
    clear[60:, :, 3] = 128
    return {
        "photograph.jpg": photograph(451, 300), "rows.png": Image.fromarray(speech()).resize((160, 512)),
        "portrait.jpg": photograph(333, 517), "half.png": photograph(103, 512), "small.png": photograph(7, 5),
        "wide.jpg": photograph(820, 400).resize((4100, 2000)), "clear.png": Image.fromarray(clear),
        "picture.webp": photograph(200, 100),
        "palette.png": photograph(150, 100).quantize(16), "black.png": Image.new("L", (90, 60)),
        "print.jpg": photograph(110, 90).convert("CMYK"),
        "deep.png": Image.fromarray(np.linspace(0, 65535, 12_000).reshape(100, 120).astype(np.uint16)),
        "animated.gif": photograph(120, 90).quantize(64), "picture.bmp": photograph(99, 77),
    }


@needs_browser
@pytest.mark.parametrize("name", list(cases()))
def test_any_picture_is_read_by_the_definition(page: Any, tmp_path: Path, name: str) -> None:
    picture, path = cases()[name], tmp_path / name
    extra: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    if path.suffix == ".gif":
        extra = {"save_all": True, "append_images": [Image.new("P", picture.size)]}
    picture.save(path, **extra)
    truth = message_of(path)
    if name != "deep.png":  # whose 16 bits Pillow clips
        np.testing.assert_allclose(truth, message_apart(path), atol=1e-4)
    made = play(page, path)
    assert made.shape == (1, truth.shape[1] * MEL.hop)
    # A jpg may be decoded to one level more or less, and of 16 bits the lower are cut; and the canvas rounds.
    exact = path.suffix != ".jpg" and name != "deep.png"
    assert np.abs(gray_shown(page) - 255 * truth).max() <= (1.01 if exact else 2.01)
    if name == "black.png":
        assert made.abs().max() == 0 and "silent" in text(page, "#facts")


@needs_browser
@pytest.mark.parametrize(("every", "change"), [
    (2, lambda image: image),
    (2, lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    (2, lambda image: image.resize((700, 597), Image.Resampling.BICUBIC)),
    (2, lambda image: image.rotate(1, Image.Resampling.BICUBIC)),
    (2, lambda image: image.crop((33, 41, image.width - 20, image.height - 5))),
    (8, lambda image: ImageOps.expand(image, (50, 70, 130, 21), "white")),
    (8, lambda image: image.resize((900, 800), Image.Resampling.BICUBIC)),
], ids=["as made", "blurred", "scaled", "turned", "cropped", "framed", "stretched"])
def test_prints_are_found_wherever_they_are(page: Any, tmp_path: Path, every: int, change: Any) -> None:
    voices = torch.from_numpy(speech()[None, :, :300]).float() / 255
    shades = torch.linspace(0.1, 0.9, voices.shape[2]).expand_as(voices).contiguous()
    style = Modulation(dots=every, brightness=0.66, shading=0.0, shadow=0.33, light=0.66)
    cells = style(shades, voices)[0].numpy()
    print_ = Image.fromarray(np.kron(np.round(255 * cells).astype(np.uint8), np.ones((4, 4), np.uint8)))
    path = tmp_path / "print.png"
    change(print_).save(path)
    truth = read_picture(path)
    made = play(page, path)
    assert made.shape == (1, truth.shape[1] * MEL.hop)
    assert np.abs(gray_shown(page) - 255 * truth).max() <= 2.01


@needs_browser
def test_turned_and_labelled_pictures(page: Any, tmp_path: Path) -> None:
    # A telephone's portrait lies on its side in the file.
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(300, 200).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    play(page, tmp_path / "turned.jpg")
    assert np.abs(gray_shown(page) - 255 * message_of(tmp_path / "turned.jpg")).max() <= 2.01
    # What the file says of its colours moves no pixel: the pixels are the message.
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    photograph(150, 100).save(tmp_path / "gamma.png", pnginfo=info)
    play(page, tmp_path / "gamma.png")
    assert np.abs(gray_shown(page) - 255 * message_of(tmp_path / "gamma.png")).max() <= 1.01


@needs_browser
def test_a_long_picture_has_no_seams(page: Any, tmp_path: Path) -> None:
    picture = speech(20)  # 16 s, made in four pieces
    Image.fromarray(picture).save(tmp_path / "long.png")
    made = play(page, tmp_path / "long.png")
    truth = picture_to_logmel(torch.from_numpy(picture[None]).float() / 255)
    found = LogMel()(made)
    assert found.shape == truth.shape
    assert apart(found, truth, truth) < 1.25 * apart(LogMel()(GriffinLim()(truth)), truth, truth)
    wrong = ((found - truth).abs() * (truth > MEL.log_floor + 0.5)).mean(1)[0]
    # Where nothing but the last sample joined two pieces, six frames were ten times as far off.
    seams = torch.stack([wrong[at:at + 48].max() for at in (352, 704, 1056)])
    assert seams.max() < 1.1 * wrong[100:300].max()


@needs_browser
def test_speed_leaves_the_pitch(page: Any, tmp_path: Path) -> None:
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(32_000) / MEL.sample_rate)[None]
    picture = np.round(255 * logmel_to_picture(LogMel()(tone))[0].numpy()).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "tone.png")
    play(page, tmp_path / "tone.png")
    for speed in (0.5, 1.5):
        page.execute_script("const s = document.querySelector('#speed'); s.value = arguments[0];"
                            "s.dispatchEvent(new Event('change'))", str(speed))
        until(page, f"!{READY}", 5)
        until(page, READY)
        made = saved(page)[0]
        assert len(made) == round(200 / speed) * MEL.hop
        middle = made[3000:15_000]
        spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle)), n=96_000).abs()
        assert spectrum.argmax().item() / 6 == pytest.approx(440, abs=2)


@needs_browser
def test_what_is_too_loud_for_a_wav_is_turned_down_not_clipped(page: Any, tmp_path: Path) -> None:
    Image.new("L", (256, 256), 255).save(tmp_path / "white.png")
    made = play(page, tmp_path / "white.png")
    assert "turned down" in text(page, "#facts")
    assert (made.abs() > 0.999).sum() <= 2 and made.abs().max() > 0.99


# --- what cannot be played

@needs_browser
@pytest.mark.parametrize(("name", "told"), [
    ("half.jpg", "the jpg ends too early"), ("half.png", "the png ends too early"),
    ("half.webp", "the webp ends too early"), ("empty.png", "the file is empty"),
    ("words.jpg", "not a picture that this browser can show"), ("damaged.png", "the png is damaged"),
    ("huge.png", "20000 × 12000 = 240 megapixels"), ("endless.png", "sound for 2560 seconds"),
])
def test_what_cannot_be_played_is_said_and_nothing_is_lost(page: Any, tmp_path: Path, name: str,
                                                           told: str) -> None:
    path, kept = tmp_path / name, tmp_path / "kept.png"
    Image.fromarray(speech()).save(kept)
    if name == "huge.png":
        Image.new("1", (20_000, 12_000), 1).save(path)
    elif name == "endless.png":
        Image.new("1", (2_560, 2_560)).resize((4_000, 4)).save(path)
    elif name == "empty.png":
        path.touch()
    elif name == "words.jpg":
        path.write_text("no picture")
    else:
        photograph(300, 200).save(path)
        content = path.read_bytes()
        path.write_bytes(content[:30] + bytes(200) + content[230:] if name == "damaged.png"
                         else content[:len(content) // 2])
    message = refused(page, path)
    assert message.startswith(f"{name}: ") and told in message
    assert play_after(page, kept).shape[1] == 80 * MEL.hop
    assert f"{name}: " in refused(page, path) and "kept.png is still here" in text(page, "#wrong")
    assert saved(page).shape[1] == 80 * MEL.hop and text(page, "#name") == "kept.png"


def play_after(driver: Any, path: Path) -> torch.Tensor:
    """As `play`, where a message stands on the page that the next picture takes away."""
    driver.find_element("id", "file").send_keys(str(path.resolve()))
    until(driver, f"document.querySelector('#wrong').hidden && {READY}")
    return saved(driver)


# --- playing

@needs_browser
def test_the_bar_is_where_the_sound_is(page: Any, tmp_path: Path) -> None:
    Image.fromarray(speech(5)).save(tmp_path / "speech.png")
    play(page, tmp_path / "speech.png")  # it begins by itself
    until(page, "document.querySelector('.play').ariaLabel === 'Pause'")
    read = """const done = arguments[0]; requestAnimationFrame(() => setTimeout(() => done([
        performance.now() / 1000, document.querySelector('.picture').style.getPropertyValue('--at') * 4])))"""
    until(page, "document.querySelector('.picture').style.getPropertyValue('--at') > 0.05")
    (before, first), _, (after, second) = (page.execute_async_script(read), until(
        page, "document.querySelector('.picture').style.getPropertyValue('--at') > 0.5"),
        page.execute_async_script(read))
    assert second - first == pytest.approx(after - before, abs=0.1)
    until(page, "document.querySelector('.play').ariaLabel === 'Play'")  # at its end it goes to the beginning
    assert text(page, "#clock") == "0.0 of 4.0 s"


@needs_browser
def test_by_keyboard_alone(page: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()

    press(Keys.TAB)
    assert page.execute_script("return document.activeElement.id") == "file"
    Image.fromarray(speech(5)).save(tmp_path / "speech.png")
    play(page, tmp_path / "speech.png")
    until(page, "document.querySelector('.play').ariaLabel === 'Pause'")
    page.execute_script("document.querySelector('.seek').focus()")
    press(Keys.SPACE)
    assert page.execute_script("return document.querySelector('.play').ariaLabel") == "Play"
    page.execute_script("const s = document.querySelector('.seek'); s.value = 0.5;"
                        "s.dispatchEvent(new Event('input'))")
    assert page.execute_script("return document.querySelector('.seek').ariaValueText") == "2.0 of 4.0 seconds"
    press(Keys.ARROW_RIGHT)
    assert page.execute_script("return Number(document.querySelector('.seek').value)") > 0.5
    press(Keys.TAB, Keys.ENTER)  # to the button beside the picture
    until(page, "document.querySelector('.play').ariaLabel === 'Pause'")
    assert page.execute_script("return document.activeElement.className") == "play playing"
    press(Keys.TAB, Keys.TAB, Keys.ENTER)
    assert page.execute_script("return document.querySelector('.picture canvas').hidden") is False


@needs_browser
def test_dropped_and_pasted(page: Any, tmp_path: Path) -> None:
    for number, kind in enumerate(("drop", "paste")):
        file = io.BytesIO()
        photograph(60 + number, 40).save(file, format="PNG")
        page.execute_script("""const [kind, content, name] = arguments, moved = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            moved.items.add(new File([bytes], name, {type: 'image/png'}));
            document.dispatchEvent(kind === 'drop' ? new DragEvent(kind, {dataTransfer: moved, bubbles: true})
              : new ClipboardEvent(kind, {clipboardData: moved, bubbles: true}));""",
                            kind, base64.b64encode(file.getvalue()).decode(), f"{kind}.png")
        until(page, f"document.querySelector('#name').textContent === '{kind}.png' && {READY}")
    page.execute_script("""const moved = new DataTransfer(); moved.setData('text/uri-list', 'https://example.org');
        document.dispatchEvent(new DragEvent('drop', {dataTransfer: moved, bubbles: true}));""")
    assert "may not use the network" in text(page, "#wrong")


@needs_browser
def test_the_network_is_closed(driver: Any) -> None:
    driver.get(PAGE.as_uri())
    answer = driver.execute_async_script(
        "fetch('http://127.0.0.1:9/').catch((error) => arguments[0](error.name))")
    assert answer == "TypeError"
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


@needs_browser
def test_examples_are_in_the_page(driver: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    photograph(120, 80).save(folder / "a_photograph.jpg")
    photograph(1500, 1024).save(folder / "large.png")
    assert main(["player", "-o", str(tmp_path / "play.html"), "--pictures", str(folder)]) == 0
    driver.get((tmp_path / "play.html").as_uri())
    names = "return [...document.querySelectorAll('#examples button')].map((button) => button.textContent)"
    assert driver.execute_script(names) == ["a photograph", "large"]
    driver.execute_script("document.querySelector('#examples button').click()")
    until(driver, READY)
    # A jpg goes in as it is: to the last level what the file says.
    assert np.abs(gray_shown(driver) - 255 * message_of(folder / "a_photograph.jpg")).max() <= 2.01
    driver.execute_script("document.querySelectorAll('#examples button')[1].click()")
    until(driver, f"document.querySelector('#name').textContent === 'large' && {READY}")
    assert "750 × 512" in text(driver, "#facts")
    assert driver.get_log("browser") == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_dark_and_on_a_telephone(page: Any, tmp_path: Path, scheme: str) -> None:
    colour_scheme(page, scheme)
    photograph(90, 160).save(tmp_path / "portrait.png")
    refused(page, PAGE)
    paper = page.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    for selector in ("h1", ".summary", "#how", "#wrong", "summary"):
        colour = page.execute_script("return getComputedStyle(document.querySelector(arguments[0])).color",
                                     selector)
        assert contrast(paper, colour) >= 4.5, selector
    play_after(page, tmp_path / "portrait.png")
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    used = ("button", "slider", "combobox", "link", "image")
    for node in nodes:
        if not node.get("ignored") and node["role"]["value"] in used:
            assert node.get("name", {}).get("value"), node["role"]
    colour_scheme(page, "light")
