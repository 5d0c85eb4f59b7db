"""What speaking pictures still say after what happens to pictures on their way.

    python benchmarks/survives.py [style=clearer_speech … as of generate.py]
    python benchmarks/survives.py --choose composition.contested=0.1 …

Twelve pictures, six photographs and six cut-outs, each with its own sentence of prompts/speaking_survive.txt,
are made, changed by each of `ALTERATIONS`, and read by Whisper base: the changed picture is played as any
picture is, and nobody tells what was done to it. The table is corpus WER with the 95 % bootstrap interval
over pictures; its last column counts at most as many errors as a sentence has words, for Whisper may repeat
itself without end. `--choose` takes six other pictures and sentences and tiny.en, which may choose a setting
and reports nothing. What was heard is kept in logs/survives.json by what is played, so a stopped
table goes on. Needs the extras `judges` and `voices`, scikit-image and the Debian package
tuxpaint-stamps-default.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from tqdm import tqdm

from images_that_speak import config
from images_that_speak.audio.picture import read_picture, write_png
from images_that_speak.config import instantiate
from images_that_speak.files import read_json, read_text, write_json
from images_that_speak.scoring.faster_whisper import FasterWhisperReader
from images_that_speak.scoring.statistics import Errors, ratio, resampling_weights, word_errors
from images_that_speak.speaking.make import Maker

ROOT = Path(__file__).resolve().parents[1]
STAMPS = Path("/usr/share/tuxpaint/stamps")
PHOTOGRAPHS = Path(skimage.data.__file__).parent
REPORTED = [*(PHOTOGRAPHS / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg",
                                              "hubble_deep_field.jpg", "motorcycle_left.png")),
            *(STAMPS / name for name in (
                "animals/birds/pelican.png", "animals/mammals/aquatic/otter.png",
                "animals/mammals/bears/european-bear.png", "animals/mammals/hedgehog.png",
                "food/fruit/Strawberry2.png", "vehicles/emergency/firetruck.png"))]
CHOOSING = [PHOTOGRAPHS / "camera.png", PHOTOGRAPHS / "coins.png",
            *(STAMPS / name for name in (
                "animals/birds/pink_flamingo.png", "animals/insects/bee.png", "vehicles/race/indycar.png",
                "vehicles/flight/balloon360.png"))]
Alteration = Callable[[np.ndarray], np.ndarray]

# --- alterations: (H, W, 3) uint8 → (H', W', 3) uint8


def by_pillow(change: Callable[[Image.Image], Image.Image]) -> Alteration:
    """An alteration from one of Pillow's pictures."""
    return lambda pixels: np.asarray(change(Image.fromarray(pixels)).convert("RGB"))


def stored(format: str, quality: int) -> Alteration:
    """Written in a lossy format and read again."""
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, format=format, quality=quality)
        return Image.open(file)
    return by_pillow(change)


def scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((max(1, width), max(1, height)), Image.Resampling.BICUBIC)


def halved(image: Image.Image) -> Image.Image:
    return scaled(image, image.width // 2, image.height // 2)


def through_width(width: int) -> Alteration:
    """Brought to a width, as messengers do, and back."""
    return by_pillow(lambda image: scaled(scaled(image, width, round(width * image.height / image.width)),
                                          image.width, image.height))


def screenshot(image: Image.Image, border: int = 7, zoom: float = 1.25) -> Image.Image:
    """On a gray page, shown at 125 %, brought back to 80 %, and the page cut off to the nearest pixel."""
    page = Image.new("RGB", (image.width + 2 * border, image.height + 2 * border), (128, 128, 128))
    page.paste(image, (border, border))
    for factor in (zoom, 1 / zoom):
        page = page.resize((round(page.width * factor), round(page.height * factor)),
                           Image.Resampling.BILINEAR)
    return page.crop((border, border, page.width - border, page.height - border))


def on_a_page(image: Image.Image, share: float = 0.6) -> Image.Image:
    """Within a white page, lines of letters above and below it, and the page at a share of its size."""
    side, lines = image.width // 8, image.height // 3
    page = Image.new("RGB", (image.width + 2 * side, image.height + 2 * lines), "white")
    page.paste(image, (side, lines))
    draw, size = ImageDraw.Draw(page), max(8, image.height // 40)
    letters = "One thing led to another, and nobody could say when it had begun. " * 9
    for top in range(size, page.height, 2 * size):
        if lines - 2 * size < top < lines + image.height:
            continue
        draw.text((side, top), letters[top % 60:], "black", ImageFont.load_default(size))
    return scaled(page, round(share * page.width), round(share * page.height))


def cropped(share: float, sides: str = "all") -> Alteration:
    """A share of the height and width cut off at each edge, or at "top" or "bottom" alone; below 0: a black
    border added."""
    def change(image: Image.Image) -> Image.Image:
        across, down = round(share * image.width), round(share * image.height)
        left, right = (across, image.width - across) if sides == "all" else (0, image.width)
        return image.crop((left, down if sides != "bottom" else 0, right,
                           image.height - (down if sides != "top" else 0)))
    return by_pillow(change)


def brightened(factor: float) -> Alteration:
    return by_pillow(lambda image: ImageEnhance.Brightness(image).enhance(factor))


def contrasted(factor: float) -> Alteration:
    return by_pillow(lambda image: ImageEnhance.Contrast(image).enhance(factor))


def gamma(exponent: float) -> Alteration:
    """Levels to the power of `exponent`, as between screens of different gamma."""
    return lambda pixels: np.round(255 * (pixels / 255) ** exponent).astype(np.uint8)


def gray(*weights: float) -> Alteration:
    """Red, green and blue weighted; 0.299, 0.587, 0.114 would change nothing that is heard."""
    return lambda pixels: np.repeat(np.round(pixels @ np.array(weights)).astype(np.uint8)[..., None], 3, -1)


def noisy(deviation: float) -> Alteration:
    """Gaussian noise in levels, of each channel, always the same."""
    def change(pixels: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).normal(0, deviation, pixels.shape)
        return np.round((pixels + noise).clip(0, 255)).astype(np.uint8)
    return change


ALTERATIONS: dict[str, Alteration] = {
    "as made": lambda pixels: pixels,
    **{f"JPEG {quality}": stored("JPEG", quality) for quality in (90, 75, 50, 30)},
    "WebP 80": stored("WEBP", 80),
    "half size": by_pillow(halved),
    "half size and back": by_pillow(lambda image: scaled(halved(image), image.width, image.height)),
    "1080 px wide and back": through_width(1080),
    "screenshot at 125 %, brought back": by_pillow(screenshot),
    "on a page of letters, at 60 %": by_pillow(on_a_page),
    "3 % cut off every edge": cropped(0.03),
    "3 % cut off the top": cropped(0.03, "top"),
    "3 % cut off the bottom": cropped(0.03, "bottom"),
    "a border of 3 %": cropped(-0.03),
    "10 % brighter": brightened(1.1),
    "10 % darker": brightened(0.9),
    "10 % more contrast": contrasted(1.1),
    "10 % less contrast": contrasted(0.9),
    "gamma 1.8 shown at 2.2": gamma(2.2 / 1.8),
    "gamma 2.2 shown at 1.8": gamma(1.8 / 2.2),
    "gray, equal weights": gray(1 / 3, 1 / 3, 1 / 3),
    "gray, Rec. 709": gray(0.2126, 0.7152, 0.0722),
    "64 colours": by_pillow(lambda image: image.quantize(64)),
    "blurred, 1 px": by_pillow(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "noise of 5 levels": noisy(5),
    "rotated by 1°": by_pillow(lambda image: image.rotate(1, Image.Resampling.BICUBIC)),
}

# --- making and reading


class Ear:
    """Plays pictures and says what is heard, from the file of what was heard before where it can."""

    def __init__(self, model: str, kept: Path):
        self.model, self.kept = model, kept
        self.known: dict[str, str] = read_json(kept) if kept.exists() else {}
        self.reader: FasterWhisperReader | None = None

    def hear(self, pixels: np.ndarray, maker: Maker) -> str:
        """What is heard in a picture (H, W, 3), through a file as everybody's."""
        with tempfile.TemporaryDirectory() as folder:
            write_png(Path(folder) / "picture.png", pixels)
            message = read_picture(Path(folder) / "picture.png")
        digest = hashlib.sha256(self.model.encode() + message.tobytes()).hexdigest()[:20]
        if digest not in self.known:
            wave = maker.vocoder.decode_message(message[None])[0].cpu().numpy()
            self.reader = self.reader or FasterWhisperReader(self.model)
            self.known[digest] = self.reader.read(wave).text
            write_json(self.kept, self.known)
        return self.known[digest]


def made(picture: Path, sentence: str, overrides: list[str]) -> tuple[np.ndarray, Maker]:
    """The speaking picture (H, W, 3) uint8 of a photograph and a sentence, and what made it."""
    cfg = config.compose("generate", [f"image={picture}", "reader=none", *overrides])
    cfg.audio_prompt = sentence
    maker = Maker.plan(cfg, instantiate(cfg.family))
    maker.prepare()
    return maker.make(maker.jobs)[0][0], maker


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of generate.py")
    parser.add_argument("--choose", action="store_true", help="other pictures, other sentences and tiny.en")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some alterations, by part of their names")
    parser.add_argument("--kept", type=Path, default=ROOT / "logs" / "survives.json")
    options = parser.parse_args()
    file = ROOT / "prompts" / ("speaking_survive_choose.txt" if options.choose else "speaking_survive.txt")
    sentences = [line for line in read_text(file).splitlines() if line and not line.startswith("#")]
    pictures = CHOOSING if options.choose else REPORTED
    chosen = {name: change for name, change in ALTERATIONS.items()
              if not options.only or any(part in name for part in options.only)}
    options.kept.parent.mkdir(parents=True, exist_ok=True)
    ear = Ear("tiny" if options.choose else "packages", options.kept)
    rows: dict[str, list[tuple[str, Errors]]] = {name: [] for name in chosen}
    with tqdm(total=len(pictures) * len(chosen), unit="picture", leave=False) as bar:
        for picture, sentence in zip(pictures, sentences, strict=True):
            pixels, maker = made(picture, sentence, options.overrides)
            for name, change in chosen.items():
                heard = ear.hear(change(pixels), maker)
                errors = word_errors(sentence, heard, FasterWhisperReader.normaliser)
                assert errors is not None
                rows[name].append((heard, errors))
                bar.update()
    weights = resampling_weights([str(picture) for picture in pictures], sentences, 10_000)
    plain = [found.rate * found.total for _, found in next(iter(rows.values()))]
    print(f"{' '.join(options.overrides) or 'defaults'}: {len(pictures)} pictures, whisper-{ear.model}")
    print("| what was done | WER | costs, points | WER ≤ 1 |\n|---|---|---|---|")
    for name, found in rows.items():
        edits, words = [e.rate * e.total for _, e in found], [e.total for _, e in found]
        cost = ratio(np.subtract(edits, plain).tolist(), words, weights)
        bounded = ratio(np.minimum(edits, words).tolist(), words, weights)
        print(f"| {name} | {ratio(edits, words, weights).percent()} | {cost.percent().replace(' %', '')} | "
              f"{100 * bounded.value:.1f} % |")
    for name, found in rows.items():
        print(f"{name}:", *(heard for heard, _ in found), sep="\n  ")


if __name__ == "__main__":
    main()
