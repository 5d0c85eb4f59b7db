"""What can be drawn: concepts of an emoji font, as gray drawings with their outlines.

Noto Color Emoji holds bitmaps of one size (109 px). A drawing is the glyph's luminance (Rec. 601), stretched
concept by concept so that dark emoji (a bat, a camera) are seen on black as well as light ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import UserError

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE = 109

# One concept a line: emoji, name, plural, and "s" where the bare outline still tells what it is.
_TABLE = {
    "animal": """
        🐒 monkey | monkeys | s
        🐕 dog | dogs | s
        🦊 fox | foxes |
        🐈 cat | cats | s
        🦁 lion | lions |
        🐅 tiger | tigers | s
        🐎 horse | horses | s
        🦄 unicorn | unicorns |
        🦓 zebra | zebras | s
        🦌 deer | deer | s
        🐄 cow | cows | s
        🐖 pig | pigs | s
        🐏 sheep | sheep | s
        🐪 camel | camels | s
        🦒 giraffe | giraffes | s
        🐘 elephant | elephants | s
        🦏 rhinoceros | rhinoceroses | s
        🐇 rabbit | rabbits | s
        🦔 hedgehog | hedgehogs | s
        🦇 bat | bats | s
        🐼 panda | pandas |
        🐨 koala | koalas |
        🐓 rooster | roosters | s
        🐧 penguin | penguins | s
        🦆 duck | ducks | s
        🦢 swan | swans | s
        🦉 owl | owls |
        🦩 flamingo | flamingos | s
        🦚 peacock | peacocks | s
        🦜 parrot | parrots | s
        🐸 frog | frogs |
        🐊 crocodile | crocodiles | s
        🐢 turtle | turtles | s
        🐍 snake | snakes | s
        🐉 dragon | dragons | s
        🦕 dinosaur | dinosaurs | s
        🐳 whale | whales | s
        🐬 dolphin | dolphins | s
        🐟 fish | fish | s
        🦈 shark | sharks | s
        🐙 octopus | octopuses | s
        🦀 crab | crabs | s
        🐌 snail | snails | s
        🦋 butterfly | butterflies | s
        🐝 bee | bees |
        🕷 spider | spiders | s
        🦂 scorpion | scorpions | s
    """,
    "plant": """
        🌹 rose | roses | s
        🌻 sunflower | sunflowers | s
        🌲 pine tree | pine trees | s
        🌴 palm tree | palm trees | s
        🌵 cactus | cacti | s
        🍁 maple leaf | maple leaves | s
        🍄 mushroom | mushrooms | s
    """,
    "food": """
        🍇 bunch of grapes | bunches of grapes | s
        🍉 watermelon | watermelons |
        🍌 banana | bananas | s
        🍍 pineapple | pineapples | s
        🍎 apple | apples | s
        🍓 strawberry | strawberries |
        🥕 carrot | carrots | s
        🥐 croissant | croissants |
        🥨 pretzel | pretzels | s
        🍔 hamburger | hamburgers |
        🍟 box of fries | boxes of fries |
        🍕 pizza | pizzas |
        🌭 hot dog | hot dogs |
        🍦 ice cream | ice creams | s
        🍩 doughnut | doughnuts |
        🎂 birthday cake | birthday cakes |
        🍷 glass of wine | glasses of wine | s
        🍺 mug of beer | mugs of beer | s
    """,
    "vehicle": """
        🚂 locomotive | locomotives | s
        🚗 car | cars | s
        🚚 truck | trucks | s
        🚜 tractor | tractors | s
        🚲 bicycle | bicycles | s
        ⛵ sailboat | sailboats | s
        🚢 ship | ships | s
        ✈ airplane | airplanes | s
        🚁 helicopter | helicopters | s
        🚀 rocket | rockets | s
        🛸 flying saucer | flying saucers | s
    """,
    "weather": """
        ☁ cloud | clouds | s
        ⚡ lightning bolt | lightning bolts | s
        ❄ snowflake | snowflakes | s
        ⛄ snowman | snowmen | s
        🌞 sun | suns |
        🌙 moon | moons | s
        ⭐ star | stars | s
        ☂ umbrella | umbrellas | s
        🔥 flame | flames | s
    """,
    "building": """
        🏰 castle | castles | s
        🏠 house | houses | s
        ⛪ church | churches | s
        🗼 tower | towers | s
        ⛺ tent | tents | s
        🎡 ferris wheel | ferris wheels | s
        ⛲ fountain | fountains | s
        🕌 mosque | mosques | s
        🌋 volcano | volcanoes | s
        🏛 temple | temples | s
    """,
    "object": """
        🎻 violin | violins | s
        🎸 guitar | guitars | s
        🎺 trumpet | trumpets | s
        🥁 drum | drums |
        ⚽ soccer ball | soccer balls |
        ⚓ anchor | anchors | s
        🔑 key | keys | s
        🔨 hammer | hammers | s
        ✂ pair of scissors | pairs of scissors | s
        💡 light bulb | light bulbs | s
        🕯 candle | candles | s
        📷 camera | cameras |
        ⏰ alarm clock | alarm clocks |
        📖 book | books | s
        👑 crown | crowns | s
        🎩 top hat | top hats | s
        💀 skull | skulls | s
        🤖 robot | robots |
        👻 ghost | ghosts | s
        🎃 pumpkin | pumpkins |
        ❤ heart | hearts | s
        🎁 gift | gifts |
        🧸 teddy bear | teddy bears | s
        🎈 balloon | balloons | s
        ⌛ hourglass | hourglasses | s
        🔔 bell | bells | s
    """,
}


@dataclass(frozen=True)
class Concept:
    """One thing that the font draws; `outline` says that its silhouette can be told from the others."""

    name: str
    plural: str
    char: str
    group: str
    outline: bool

    @property
    def singular(self) -> str:
        """The name with its article ("an owl")."""
        vowel = self.name[0] in "aeiou" and not self.name.startswith(("unicorn", "one"))
        return f"{'an' if vowel else 'a'} {self.name}"


@lru_cache(maxsize=1)
def concepts() -> tuple[Concept, ...]:
    """All concepts, in the fixed order that their indices mean."""
    found = []
    for group, lines in _TABLE.items():
        for line in lines.strip().splitlines():
            head, plural, outline = (part.strip() for part in line.split("|"))
            char, name = head.split(maxsplit=1)
            found.append(Concept(name, plural, char, group, outline == "s"))
    return tuple(found)


@dataclass(frozen=True)
class Drawing:
    """A glyph cut to its bounding box (H, W): `gray` with its brightest part 1, `alpha`, both in [0, 1].

    chroma: (2, H, W), the font's (R − Y)/Y and (B − Y)/Y.
    """

    gray: np.ndarray
    alpha: np.ndarray
    chroma: np.ndarray


def _stretch(gray: np.ndarray, alpha: np.ndarray, floor: float = 0.3, gain: float = 2.5) -> np.ndarray:
    """Stretch the gray inside the outline to [`floor`, 1]; a nearly flat drawing by at most `gain`.

    The floor keeps dark parts visible on black, the bounded gain keeps a flat drawing (a heart) flat.
    """
    inside = gray[alpha > 0.5]
    low, high = np.percentile(inside, [2, 98])
    scale = min((1 - floor) / max(high - low, 1e-3), gain)
    return np.clip(1 - (high - gray) * scale, floor, 1.0).astype(np.float32)


@lru_cache(maxsize=512)
def drawing(char: str, font: str = FONT) -> Drawing:
    """Draw `char` with the emoji `font` (cached). Raises UserError where the font or the glyph is missing."""
    from PIL import Image, ImageDraw, ImageFont

    if not Path(font).exists():
        raise UserError(f"{font}: no such font (expected Noto Color Emoji; `make setup` installs it)")
    face = ImageFont.truetype(font, FONT_SIZE)
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), char, font=face, embedded_color=True)
    pixels = np.asarray(canvas, np.float32) / 255
    alpha = pixels[..., 3]
    rows, columns = np.flatnonzero(alpha.max(1) > 0.1), np.flatnonzero(alpha.max(0) > 0.1)
    if len(rows) < 8 or len(columns) < 8:
        raise UserError(f"{font}: does not draw {char!r} (expected a colour emoji font)")
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    gray = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    # Where it is nearly black, what colour it is says nothing.
    chroma = (pixels[..., (0, 2)] - gray[..., None]) / np.maximum(gray, 0.15)[..., None]
    return Drawing(_stretch(gray[box], alpha[box]), alpha[box].copy(), chroma[box].transpose(2, 0, 1).copy())
