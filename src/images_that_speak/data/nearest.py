"""Whether the painter knows what a prompt asks for, and the nearest thing that it does know.

It has learnt the sentences of `captions`, about the things of `emoji`. At anything else it draws a blob, to
which a CLIP as small as ours gives high scores. So a prompt outside them is met by a sentence within: by the
thing that it names ("a castle at sunset": "a castle"), else by one near in meaning, looked up word by word
in `words/nearest_drawing.csv` (made from sentence and word vectors by benchmarks/nearest_drawing.py), else by
one near in spelling. Imports no torch.
"""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ..errors import UserError
from ..files import read_text
from ..resources import ROOT
from .captions import GROUNDS, NUMBERS, TEMPLATES, phrase
from .counts import asked_for, beyond, spelled
from .emoji import Concept, concepts

TABLE = ROOT / "words" / "nearest_drawing.csv"
COMMAND = "python -m images_that_speak.drawings"
ALIKE = 0.75  # share of letters in order from which a word is taken for a misspelt name
MEANT = 0.5  # nearness from which a word is taken to stand for a drawing, where another word follows
# What parts the thing that is shown from what is said of it.
AROUND = ("in on at with without under over near by beside behind before above below inside from "
          "against among and or while during through across into of for that which who is are wearing "
          "holding eating sitting standing looking flying running sleeping playing walking made").split()
KINDS = ("painting|drawing|picture|photo|photograph|image|lithograph|silhouette|sketch|illustration|"
         "portrait|print|engraving|etching|cartoon|icon|logo|render|watercolor|watercolour|close-up|"
         "closeup|shot|emoji")
PREFIX = re.compile(rf"^(?:an? |the |some )?(?:[\w-]+ ){{0,3}}?(?:{KINDS})s? of ")
SMALL = frozenset("a an the of and or to is are some my your his her their our its this that very".split())


@dataclass(frozen=True)
class Drawn:
    """What is drawn where `asked` was asked for.

    caption: a sentence that the painter knows. how: "same" where it says the same, "named" where the thing is
    named but more is said, "meaning" or "spelling" by which it was the nearest. others: the next nearest.
    """

    asked: str
    caption: str
    how: str
    others: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the painter was asked for nothing but what it knows."""
        return self.how == "same"

    def told(self) -> str:
        """What to say before it is drawn, on one line."""
        things, drawing = f"{len(concepts())} things", f"drawing {self.caption!r} (nearest"
        if self.how == "named":
            return f"{self.asked!r} says more than the painter knows ({things}, plainly named); {drawing})"
        by = " in spelling" if self.how == "spelling" else ""
        return f"{self.asked!r} is not among the {things} that the painter knows; {drawing}{by})"

    def refused(self) -> str:
        """What to say where only what is known is to be drawn, on one line."""
        near = ", ".join(map(repr, (self.caption, *self.others)))
        return (f"image_prompt={self.asked!r}: not among the {len(concepts())} things that the painter knows "
                f"(strict=true). Nearest: {near}. {COMMAND} lists them all.")


@cache
def canonical(prompt: str) -> str | None:
    """The sentence that the painter has learnt and that says what `prompt` says, or None.

    Capitals, a full stop, figures for numbers and a missing article make no difference.
    """
    if beyond(prompt) is not None:
        return None
    text = plain(prompt)
    for said in dict.fromkeys((text, spelled(text))):
        for ground, template, inner in _templates(said):
            found = _phrase(inner)
            if found is not None and (ground == "black" or found[0].outline):
                return template.format(phrase(*found))
    return None


@cache
def nearest_drawing(prompt: str) -> Drawn:
    """What is drawn for `prompt`. Raises UserError where nothing is near it, not even in spelling."""
    same = canonical(prompt)
    if same is not None:
        return Drawn(prompt, same, "same")
    ground, template, inner = next(_templates(spelled(plain(prompt))), ("black", "{}", ""))
    inner = PREFIX.sub("", inner)
    number = asked_for(prompt) or 1
    parts = re.split(rf"[,;:.()!?]|\b(?:{'|'.join(AROUND)})\b", inner)
    segments = [part.split() for part in parts if part.split()]
    for find, how in ((_named, "named"), (_meant, "meaning"), (_spelt, "spelling")):
        found = find(segments)
        if found is not None:
            thing, many, others = found
            count = "many" if many else "one"
            if number > 1:
                count = NUMBERS[min(number, len(NUMBERS) - 1)]
            keeps = ground == "black" or thing.outline
            return Drawn(prompt, (template if keeps else "{}").format(phrase(thing, count)), how, others)
    raise UserError(f"image_prompt={prompt!r}: nothing that the painter knows is near it, in meaning or in "
                    f"spelling. {COMMAND} lists what it knows.")


def drawing_sentences() -> list[str]:
    """The sentences by which things are named that are seen: one and several, on black and as silhouettes."""
    return [template.format(phrase(thing, count)) for thing in concepts()
            for template in ("{}", *(("a silhouette of {}",) if thing.outline else ()))
            for count in ("one", "many")]


def plain(prompt: str) -> str:
    """Lower case, single spaces, no accents and no full stop: as the sentences are written."""
    text = unicodedata.normalize("NFKD", prompt).lower()
    text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    text = re.sub(r"\s*,\s*", ", ", re.sub(r"[\s_]+", " ", text)).strip(" .,!?;:'\"“”")
    return re.sub(r"\b1 (?=[a-z])", "one ", text)


def _templates(text: str) -> Iterator[tuple[str, str, str]]:
    """(ground, template, what stands in it) of every sentence that `text` may be; the bare one last."""
    patterns = [(ground, template) for ground in GROUNDS for template in TEMPLATES[ground]]
    for ground, template in sorted(patterns, key=lambda pattern: -len(pattern[1])):
        pattern = re.escape(template).replace(r"\{\}", "(.+)").replace("grayscale", "gr[ae]yscale")
        match = re.fullmatch(pattern, text)
        if match:
            yield ground, template, match[1]


@cache
def _names() -> dict[str, tuple[Concept, bool]]:
    """{name: its thing, and whether it is a plural}; of "bunches of grapes" also "grapes"."""
    found: dict[str, tuple[Concept, bool]] = {}
    for thing in concepts():
        found[thing.plural] = thing, True
        found[thing.name] = thing, False
    for thing in concepts():
        if " of " in thing.name:
            found.setdefault(thing.name.split(" of ")[1], (thing, False))
    return found


def _phrase(text: str) -> tuple[Concept, str] | None:
    """The thing and the count of a noun phrase that the painter knows: "2 owls" → owl, "two"."""
    match = re.fullmatch(rf"(?:(an?|the|single|some|{'|'.join(NUMBERS[1:])}) )?(.+)", text)
    if match is None or match[2] not in _names():
        return None
    thing, many = _names()[match[2]]
    both = thing.name == thing.plural
    article = match[1] or ""
    if article in NUMBERS[2:]:
        return (thing, article) if many or both else None
    if article == "some":
        return (thing, "many") if many or both else None
    if many and not both:
        return (thing, "many") if article in ("", "the") else None
    return thing, "many" if both and not article else "one"


Found = tuple[Concept, bool, tuple[str, ...]]  # a thing, whether several are meant, the next nearest


def _named(segments: list[list[str]]) -> Found | None:
    """The thing that the first words name that name one; the last of them, "cat" of "house cat"."""
    for words in segments:
        for end in range(len(words), 0, -1):
            for start in range(max(0, end - 4), end):
                known = _names().get(" ".join(words[start:end]))
                if known is not None:
                    return known[0], known[1], ()
    whole = _names().get(" ".join(word for words in segments for word in words))
    return None if whole is None else (*whole, ())


@cache
def _table() -> dict[str, tuple[float, tuple[str, ...]]]:
    """{word: how near the nearest drawing is, and the names of the nearest ones}."""
    rows = csv.reader(read_text(TABLE).splitlines()[1:])
    return {word: (float(nearness), tuple(names)) for word, nearness, *names in rows}


def _look_up(word: str) -> tuple[bool, float, tuple[str, ...]] | None:
    """Whether a word is a plural, how near the nearest drawings are, and their names."""
    stems = [stem for stem in (re.sub("ies$", "y", word), re.sub("es$", "", word), re.sub("s$", "", word))
             if stem != word and stem in _table()]
    for known in (word, *stems):
        if known in _table():
            return (bool(stems), *_table()[known])
    return None


def _meant(segments: list[list[str]]) -> Found | None:
    """The thing nearest in meaning to one of the words, the last of them favoured.

    Of parts of the prompt the first with a near word counts.
    """
    best: tuple[float, bool, tuple[str, ...]] | None = None
    for words in segments:
        for at, word in enumerate(words):
            found = _look_up(word) if word not in SMALL and word not in NUMBERS else None
            if found is None and at == len(words) - 1 and _misspelt(word):
                return None
            if found is not None:
                many, nearness, names = found
                weight = nearness + 0.1 * (at == len(words) - 1)
                if best is None or weight > best[0]:
                    best = weight, many, names
        if best is not None and best[0] >= MEANT:
            break
    if best is None:
        return None
    _, many, names = best
    by_name = {thing.name: thing for thing in concepts()}
    return by_name[names[0]], many, tuple(by_name[name].singular for name in names[1:])


def _misspelt(word: str) -> list[str]:
    """The names that a word nearly spells."""
    return difflib.get_close_matches(word, _names(), n=3, cutoff=ALIKE)


def _spelt(segments: list[list[str]]) -> Found | None:
    """The thing whose name is nearest in spelling to any of the words, or to a word that stands for one."""
    words = [word for part in segments for word in part if word not in SMALL] or [
        word for part in segments for word in part]
    for word in reversed(words):
        if close := _misspelt(word):
            things = list(dict.fromkeys(_names()[name][0] for name in close))
            return things[0], _names()[close[0]][1], tuple(thing.singular for thing in things[1:])
        if close := difflib.get_close_matches(word, _table(), n=1, cutoff=0.85):
            return _meant([[close[0]]])
    for word in sorted(words, key=len, reverse=True):
        if close := difflib.get_close_matches(word, _names(), n=3, cutoff=0.2):
            things = list(dict.fromkeys(_names()[name][0] for name in close))
            return things[0], False, tuple(thing.singular for thing in things[1:])
    return None
