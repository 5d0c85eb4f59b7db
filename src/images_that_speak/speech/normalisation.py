"""Text as people write it → the words that are said: "Dr. Smith, 3rd Ave." → "doctor smith third avenue".

Rules on text, applied in the order of `RULES`, each a pattern and what it becomes. Of the normalisers that
install light none reads more than four fifths of 73 cases tried (docs/measuring.md); here words that are
already said so stay. Imports neither torch nor numpy. What a voice is told, what a judge is
compared with and what a judge wrote all go through `normalise_text`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import tomllib

from ..errors import UserError
from .dictionary import entries
from .numbers import (
    ONES,
    TENS,
    is_year,
    plural,
    roman,
    spell_decimal,
    spell_digits,
    spell_number,
    spell_ordinal,
    spell_year,
)

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
SCALE = r"hundred|thousand|million|billion|trillion"
TLD = "com|org|net|edu|gov|int|io|ai|co|uk|us|ca|de|fr|eu|info|dev|app|me|tv|ly|be|jp|au|nl|ch"
# How English is written and said. What each table is for stands in the file.
TABLES = tomllib.loads(Path(__file__).with_name("english.toml").read_text(encoding="utf-8"))
MONTHS, SHORT_MONTHS, DAYS = TABLES["months"], TABLES["short_months"], TABLES["days"]
CURRENCY, CODES, SHORT_SCALES = TABLES["currency"], TABLES["codes"], TABLES["short_scales"]
UNITS, PER = TABLES["units"], TABLES["per"]
TITLES, ABBREVIATIONS, WITHOUT_DOT = TABLES["titles"], TABLES["abbreviations"], TABLES["without_dot"]
NUMBERED, PHRASES, COUNTED, CROWNED = (TABLES[key] for key in ("numbered", "phrases", "counted", "crowned"))
EITHER, BETWEEN, ADDRESSED = TABLES["either"], TABLES["between"], TABLES["addressed"]
LETTERS, INTERJECTIONS, FOLDED = set(TABLES["letters"]), TABLES["interjections"], TABLES["folded"]
SIGNS, EMOJI = TABLES["signs"], TABLES["emoji"]
PLAIN_TLD, IN_ADDRESS = tuple(TABLES["plain_tld"]), TABLES["in_address"]
# "may" and "mar" are words too: only with a capital, and only beside a number.
MONTH = "|".join([*(name.capitalize() for name in MONTHS),
                  *(rf"{name.capitalize()}\.?" for name in SHORT_MONTHS)])


def normalise_text(text: str, pauses: bool = False) -> str:
    """The words of an English text as they are said: lower case, one space apart, apostrophes kept inside.

    What is said so already stays as it is. With `pauses` the marks at which a voice pauses stay too, for a
    synthesiser that reads them. Raises UserError when nothing is left to say, or at a letter that English
    does not know.

    >>> normalise_text("Dr. Smith lives at 12 Oak Dr.")
    'doctor smith lives at twelve oak drive'
    >>> normalise_text("Hello, Mr. Fox!", pauses=True)
    'hello, mister fox!'
    """
    plain = _folded(_drawn(text))
    for pattern, become in RULES:
        plain = pattern.sub(become, plain)
    foreign = sorted({c for c in plain if unicodedata.category(c)[0] in "LMN" and not c.isascii()})
    if foreign:
        closest = "".join(c for c in unicodedata.normalize("NFKD", plain) if c.isascii()).lower()
        hint = f" Did you mean {' '.join(closest.split())!r}?" if re.search("[a-z]", closest) else ""
        named = ", ".join(repr(letter) for letter in foreign)
        raise UserError(f"text {text!r}: {named} (expected English words: the letters a to z, digits and "
                        f"punctuation).{hint}")
    words = _words(plain)
    if not words:
        raise UserError(f"text {text!r}: nothing to say (expected at least one English word)")
    said = " ".join(word for found in words for word in _spelled(found).split())
    said = said if said == text else _settled(said)
    if pauses:
        marked = re.sub(r"[^a-z',.;:?!]+", " ", plain.lower())
        marked = re.sub(r"\s*([,.;:?!])[\s,.;:?!']*", r"\1 ", marked).strip(" ,")
        if _words(marked) == said.split():
            return marked
    return said


def _settled(said: str) -> str:
    """`said`, until the rules leave it as it is: some words meet only once what parted them is gone."""
    for _ in range(4):
        again = said
        for pattern, become in RULES:
            again = pattern.sub(become, again)
        again = " ".join(word for found in _words(again) for word in _spelled(found).split())
        if again == said:
            break
        said = again
    return said


def spoken_otherwise(text: str) -> str | None:
    """What is said, where that is not simply what is written, case and punctuation apart; else None."""
    said = normalise_text(text)
    return None if said == " ".join(_words(re.sub("[’ʼ`´‘]", "'", text))) else said


def _words(text: str) -> list[str]:
    words = (word.strip("'") for word in re.sub("[^a-z']+", " ", text.lower()).split())
    return [word for word in words if word]


# --- signs and letters


def _drawn(text: str) -> str:
    """Emoji in words, and signs that the compatible form would lose: quotes, dashes, raised figures."""
    text = re.sub("[’ʼ`´‘′]", "'", text)
    text = re.sub("[“”″]", '"', text)
    text = re.sub("[‐‑−]", "-", text)
    text = re.sub(r"(?<=\d)\s?[–—]\s?(?=[\d$€£])", "-", text)
    text = re.sub("[™®]", "", text).replace("№", "No. ")
    text = re.sub("(?<=\\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = re.sub("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))", "", text)
    text = re.sub("(?i)(?<=\\bi) ?[❤♥]\ufe0f? ?(?=\\w)", " love ", text)
    text = re.sub("[\U0001f1e6-\U0001f1ff]{2}", " flag ", text)
    text = "".join(f" {_emoji(c)} " if _is_emoji(c) else c for c in text)
    text = re.sub(r"(?<=\d)\s?(k?c?m)([²³])", lambda m: f" {m[1]}{m[2]}", text)
    # Kept from the compatible form, which makes them 2 and 3.
    held: dict[str, str | int | None] = {"²": "\ue002", "³": "\ue003"}
    return text.translate(str.maketrans(held))


def _is_emoji(c: str) -> bool:
    return c >= "\u2600" and unicodedata.category(c) == "So" and (
        "\u2600" <= c <= "\u27bf" or c in "⭐⬛⬜" or c >= "\U0001f300") and not 0x1F3FB <= ord(c) <= 0x1F3FF


def _emoji(c: str) -> str:
    if c in EMOJI:
        return EMOJI[c]
    name = unicodedata.name(c, "").lower()
    name = re.sub(r"^(?:heavy |black |white )+|\b(?:sign|symbol|with .*)$", "", name)
    return re.sub("[^a-z]+", " ", name)


def _folded(text: str) -> str:
    """The compatible form without accents, Greek letters that stand alone by their names."""
    text = "".join(FOLDED.get(c, c) for c in unicodedata.normalize("NFKC", text))
    text = re.sub(r"(?<!\d)(?<!\d )(?<![^\W\d_])[α-ωΑ-Ω](?![^\W\d_])", lambda m: _greek(m[0]), text)
    apart = unicodedata.normalize("NFD", text)
    bare = "".join(c for i, c in enumerate(apart) if not (
        unicodedata.category(c) == "Mn" and i and apart[i - 1].isascii() or "\ufe00" <= c <= "\ufe0f"))
    bare = re.sub(r"(?<=[A-Za-z])[\u0300-\u036f]+", "", bare)
    return unicodedata.normalize("NFC", bare).replace("\ue002", "²").replace("\ue003", "³")


def _greek(letter: str) -> str:
    name = unicodedata.name(letter, "").lower().split()  # greek small letter pi
    return f" {name[3]} " if len(name) == 4 else letter


# --- what each rule becomes


def _number(text: str) -> str:
    """A number as it stands: a year, a decimal or a whole number, with its sign."""
    sign, digits = ("minus ", text[1:]) if text[0] == "-" else ("", text)
    return sign + (spell_year(digits) if is_year(digits) else spell_decimal(digits))


def _quantity(text: str) -> str:
    """A number that counts something, so no year."""
    return f"minus {spell_decimal(text[1:])}" if text[0] == "-" else spell_decimal(text)


def _one(number: str) -> bool:
    return number.lstrip("-") in ("1", "1.0", "1.00")


def _address(match: re.Match[str]) -> str:
    """A web or mail address: its words, its signs by name, the last part as people say it."""
    address = re.sub(r"^[a-z]+://", "", match[0], flags=re.IGNORECASE)
    tail = re.search(r"[.,;:!?)'\"/]+$", address)
    address = address[:tail.start()] if tail else address
    host, slash, path = address.partition("/")
    parts = re.split(r"([^A-Za-z0-9])", host.lower())
    for i in range(len(parts) - 1, 0, -2):  # co.uk: both
        if parts[i] in TLD.split("|") and parts[i] not in PLAIN_TLD:
            parts[i] = " ".join(parts[i])
        else:
            break
    words = ["w w w" if part == "www" else part for part in parts]
    words += re.split(r"([^A-Za-z0-9])", (slash + path).lower())
    said = " ".join(IN_ADDRESS.get(word, word) for word in words)
    return f" {re.sub(r'[0-9]+', lambda m: f' {spell_number(m[0])} ', said)} "


def _date(year: str, month: str, day: str) -> str | None:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    if len(year) == 2:
        year = ("20" if int(year) < 50 else "19") + year
    return f"{MONTHS[int(month) - 1]} {spell_ordinal(str(int(day)))} {spell_year(year)}"


def _slashed_date(match: re.Match[str]) -> str:
    """12/31/2021 as Americans write it, 31/12/2021 where it can be nothing else."""
    return _date(match[3], match[1], match[2]) or _date(match[3], match[2], match[1]) or match[0]


def _month(name: str) -> str:
    return SHORT_MONTHS.get(name.lower().rstrip("."), name.lower())


def _month_day(match: re.Match[str]) -> str:
    if not 1 <= int(match[2]) <= 31:
        return match[0]
    year = f" {spell_year(match[3])}" if match[3] else ""
    return f"{_month(match[1])} {spell_ordinal(str(int(match[2])))}{year}"


def _day_month(match: re.Match[str]) -> str:
    if not 1 <= int(match[1]) <= 31:
        return match[0]
    year = f" {spell_year(match[3])}" if match[3] else ""
    the = "" if re.search(r"\bthe\s+$", match.string[:match.start()], re.IGNORECASE) else "the "
    return f"{the}{spell_ordinal(str(int(match[1])))} of {_month(match[2])}{year}"


def _time(match: re.Match[str]) -> str:
    hour, minute, second, half = match[1], match[2], match[3], match[4]
    if int(hour) > 24 or int(minute) > 59:
        return match[0]
    words = spell_number(str(int(hour)))
    if int(minute):
        words += f" oh {spell_number(minute[1])}" if minute[0] == "0" else f" {spell_number(minute)}"
    elif not half and not second:
        words += " o'clock" if 1 <= int(hour) <= 12 else " hundred"
    if second:
        words += f" and {spell_number(str(int(second)))} second{'' if int(second) == 1 else 's'}"
    return f"{words} {half.lower()} m" if half else words


def _money(match: re.Match[str]) -> str:
    """$3.50, $2.5 million, -$1,200."""
    sign, currency, number, scale = match[1], CODES.get(match[2]) or match[2][-1], match[3], match[4]
    one, many, cent, cents = CURRENCY[currency]
    minus = "minus " if sign else ""
    if scale:
        return f"{minus}{_quantity(number)} {SHORT_SCALES.get(scale, scale.lower())} {many}"
    whole, _, part = number.partition(".")
    if len(part) != 2:
        return f"{minus}{_quantity(number)} {one if _one(number) else many}"
    said = [] if whole == "0" and int(part) else [f"{_quantity(whole)} {one if whole == '1' else many}"]
    if int(part):
        said.append(f"{spell_number(str(int(part)))} {cent if int(part) == 1 else cents}")
    return minus + " and ".join(said)


def _money_after(match: re.Match[str]) -> str:
    """5 €, 20 USD, 50¢."""
    if match[2] == "¢":
        return f"{_quantity(match[1])} {'cent' if _one(match[1]) else 'cents'}"
    one, many, *_ = CURRENCY[CODES.get(match[2], match[2])]
    return f"{_quantity(match[1])} {one if _one(match[1]) else many}"


def _degrees(match: re.Match[str]) -> str:
    scale = {"C": " celsius", "F": " fahrenheit"}.get((match[2] or "").upper(), "")
    return f"{_quantity(match[1])} {'degree' if _one(match[1]) else 'degrees'}{scale}"


def _unit(match: re.Match[str]) -> str:
    one, many = UNITS[match[2]]
    return f"{_quantity(match[1])} {one if _one(match[1]) else many}"


def _feet_inches(match: re.Match[str]) -> str:
    feet = f"{spell_number(match[1])} {'foot' if match[1] == '1' else 'feet'}"
    return f"{feet} {spell_decimal(match[2])} {'inch' if match[2] == '1' else 'inches'}" if match[2] else feet


def _fraction(match: re.Match[str]) -> str:
    whole, above, below = match[1], int(match[2]), int(match[3])
    if below < 2 or above >= below and not (whole or below in (2, 3, 4)) or below > 100:
        return f"{whole or ''} {spell_number(match[2])} {'out of' if above <= below else 'over'} " \
               f"{spell_number(match[3])}"
    part = {2: "half", 4: "quarter"}.get(below) or spell_ordinal(str(below))
    if whole:
        head = "a" if above == 1 else spell_number(str(above))
        return f"{_quantity(whole)} and {head} {part if above == 1 else plural(part)}"
    return f"{spell_number(str(above))} {part if above == 1 else plural(part)}"


def _decade(match: re.Match[str]) -> str:
    century, rest = match[1] or "", match[2]
    if not century:
        return plural(spell_number(rest))
    return plural(spell_year(century + rest))


def _saint_or_street(match: re.Match[str]) -> str:
    """St and Dr: a title before a name, a road after one."""
    title, road = EITHER[match[1].lower()]
    before = match.string[:match.start()].rstrip(" ")
    after = match.string[match.end():]
    last = re.search(r"[\w'-]+$", before)
    following = re.match(r" +([\w'-]+)", after)
    if last and last[0].lower() in ADDRESSED:
        return title if title == "doctor" or following and following[1][0].isupper() else road
    # 12 Oak Dr. Springfield: a number and a name make an address.
    numbers = "|".join([*ONES, *TENS, "first", "second", "third"])
    address = re.search(rf"(?:\d|th|\b(?:{numbers})) [\w'-]+$", before)
    ordinal = last and re.search(r"(?:\d(?:st|nd|rd|th)|first|second|third|th)$", last[0].lower())
    if last and (address or ordinal):
        return road
    if following and following[1].lower() not in BETWEEN and not following[1].isdigit() and (
            following[1][0].isupper() or not match[2] and following[1].islower() or not last):
        return title
    return road if last else title


def _abbreviation(match: re.Match[str]) -> str:
    return f"{ABBREVIATIONS[match[1].lower()]} "


def _roman(match: re.Match[str]) -> str:
    """Henry VIII, Chapter IV, Rocky II; a lone I, V or X only where a number is expected."""
    name, numeral, end = match[1], match[2].upper(), match[3] or ""
    value = roman(numeral)
    counted, crowned = name.lower() in COUNTED, name.lower() in CROWNED
    if match[2].islower() and not (counted or crowned):
        return match[0]
    rest = match.string[match.end():]
    alone = len(numeral) == 1 and (numeral not in "IVX" or not counted and not (
        crowned and (numeral != "I" or re.match(r"$|[.,;:!?)]| of\b| was\b| of\b", rest))))
    if value is None or alone or value > 100 or not (counted or crowned) and (
            re.search("[LCDM]", numeral) or not name[0].isupper()):
        return match[0]
    if crowned:
        return f"{name} the {spell_ordinal(str(value))}{end}"
    return f"{name} {spell_number(str(value))}{end}"


def _capitals(match: re.Match[str]) -> str:
    """NASA stays a word, FBI is spelled; a text that is all in capitals is only loud."""
    word, end = match[1], match[2] or ""
    if len(re.findall(r"[A-Z]{2,}", match.string)) > 1 and not re.search("[a-z]", match.string):
        return match[0]
    return f" {' '.join(word.lower())}{chr(39) + 's' if end else ''} " if _spells(word) else match[0]


def _spells(word: str) -> bool:
    """Whether capitals are read letter by letter: known so, unpronounceable, or so in the dictionary."""
    if word in LETTERS:
        return True
    known = entries().get(word.lower())
    if known is None:
        return not re.search("[AEIOUY]", word) and len(word) <= 6
    return _unstressed(known) == _letter_names(word.lower())


@cache
def _letter_names(word: str) -> str:
    return " ".join("EY" if letter == "a" else _unstressed(entries()[letter]) for letter in word)


def _unstressed(symbols: str) -> str:
    return re.sub("[0-9]", "", symbols).strip()


def _spelled(word: str) -> str:
    """A word without a vowel, apart: "tv" → "t v"; those that the dictionary says otherwise stay ("hmm")."""
    letters, _, rest = word.partition("'")
    if not re.fullmatch("[b-df-hj-np-tv-xz]{2,6}", letters) or rest not in ("", "s"):
        return word
    known = entries().get(letters)
    if len(set(letters)) == 1 or letters in INTERJECTIONS or (
            known and _unstressed(known) != _letter_names(letters)):
        return word
    return " ".join(letters) + ("'s" if rest else "")


def _either(words: Iterable[str]) -> str:
    """A pattern of any of `words`, the longer ones first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _apart(letters: str) -> str:
    """The letters of a word, one space apart; what is no letter is left out."""
    return " ".join(re.sub("[^A-Za-z]", "", letters).lower())


def _rule(pattern: str, become: str | Callable[[re.Match[str]], str], flags: int = 0
          ) -> tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]:
    return re.compile(pattern, flags), become


RULES = [
    # Addresses first: their dots and digits mean nothing else.
    _rule(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", _address),
    _rule(r"\b(?:https?|ftp)://\S+|\bwww\.\S+", _address, re.IGNORECASE),
    _rule(rf"(?<![\w.])[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:{TLD})\b(?!\.\w)(?:/\S*)?", _address),
    *(_rule(rf"(?<![\w/']){pattern}", f" {words} ", re.IGNORECASE) for pattern, words in PHRASES.items()),
    # A title that touches its name.
    _rule(r"\b(Dr|St|Mr|Mrs|Ms|Prof|Mt)\.(?=[A-Z])", r"\1. "),
    # Dates and times.
    _rule(rf"\b({_either(DAYS)})\.(?=,| ?(?:{MONTH})| \d)", lambda m: DAYS[m[1]]),
    _rule(r"\b(\d{4})-(\d{2})-(\d{2})\b", lambda m: _date(m[1], m[2], m[3]) or m[0]),
    _rule(r"\b(\d{4})/(\d{1,2})/(\d{1,2})\b", lambda m: _date(m[1], m[2], m[3]) or m[0]),
    _rule(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\d/])", _slashed_date),
    _rule(r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(\d{4})(?![\d.])", lambda m: _date(m[3], m[2], m[1]) or m[0]),
    _rule(rf"\b({MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?\b(?![:%.]\d|/)(?:,? (\d{{4}})\b)?", _month_day),
    _rule(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({MONTH})(?![\w])(?:,? (\d{{4}})\b)?", _day_month),
    _rule(rf"\b({MONTH}) (?=\d{{4}}\b)", lambda m: f"{_month(m[1])} "),
    # Telephones, and whatever else is digits in three groups or more.
    _rule(r"(?<![\w.,-])\+\d[\d ().-]{6,}\d", lambda m: f"plus {spell_digits(m[0])}"),
    _rule(r"(?<![\w.,-])(?:1[ -.])?\(?\d{3}\)?[ .-]?\d{3}[ .-]\d{4}(?![\w-])", lambda m: spell_digits(m[0])),
    _rule(r"(?<![\w.,-])\d{3}-\d{4}(?![\w-])", lambda m: spell_digits(m[0])),
    _rule(r"(?<![\w.,-])\d+(?:-\d+){2,}(?![\w-])", lambda m: spell_digits(m[0])),
    _rule(r"(?i)(?<=\bcall |\bdial )(911|999|112)\b", lambda m: spell_digits(m[0])),
    _rule(rf"\b({_either(NUMBERED)})\.\s?(?=\d|[IVXLC]+\b)",
          lambda m: f"{NUMBERED[m[1].lower()]} ", re.IGNORECASE),
    _rule(r"\bv(?=\d+\.\d)", "version "),
    _rule(r"\bapt(?= ?#| \d)", "apartment", re.IGNORECASE),
    # From one number to another.
    _rule(rf"([$€£])({NUMBER})-\1?(?={NUMBER})", r"\2 to \1"),
    _rule(rf"(?<![\w.,-])({NUMBER})-(?={NUMBER}(?:[^\w-]|$|[ap]m\b|{_either(UNITS)}))", r"\1 to "),
    _rule(r"(?<![\d:.])(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s?([AaPp])\.?[Mm]\b\.?)?(?![\d:])", _time),
    _rule(r"(?<![\d:.])(\d{1,2})\s?([AaPp])\.?[Mm]\b\.?",
          lambda m: f"{spell_number(str(int(m[1])))} {m[2].lower()} m"),
    _rule(r"(?<=\d):(?=\d)", " to "),
    # Money and measures, after years that would be taken for seconds.
    _rule(r"(?:'|\b(\d\d))(\d0)'?s\b", _decade),
    _rule(r"(?<![\w.])([2-9]0)'?s\b", lambda m: plural(spell_number(m[1]))),
    _rule(r"(?<!\w)'(\d\d)\b", lambda m: spell_number(m[1])),
    _rule(rf"(-?)(?<!\w)((?:US|A|C|NZ)?\$|[€£¥₹₩₿]|{_either(CODES)})\s?({NUMBER})"
          rf"(?:\s?({SCALE}|bn|mn|tn|[kKmMbBT])\b)?", _money),
    _rule(rf"(?<![\w.])(-?{NUMBER})\s?([€£¥₹¢]|\$(?!\s?\d)|USD\b|EUR\b|GBP\b|JPY\b|INR\b)", _money_after),
    _rule(rf"(?<![\w.])(-?{NUMBER})\s?(?:°|º)\s?([CF]\b)?", _degrees),
    _rule(r"(?<![\w.])(\d+)'\s?(?:(\d+(?:\.\d+)?)\s?(?:\"|''))", _feet_inches),
    _rule(r"(?<![\w.])(\d+) ?ft\.?,? (\d+(?:\.\d+)?) ?in\b\.?", _feet_inches),
    _rule(rf"(?<![\w.])({NUMBER})\s?(?:\"|in\.(?=\s*(?:$|[a-z,;)])))(?!\w)",
          lambda m: f"{_quantity(m[1])} {'inch' if _one(m[1]) else 'inches'} "),
    _rule(r"(?<![\w./])(?:(\d+)\s)?(\d+)[⁄/](\d+)(?![\w/]|\.\d)", _fraction),
    _rule(r"(?<![\w./])(\d+)(\d)⁄(\d+)", _fraction),
    _rule(rf"(?<![\w.])(-?{NUMBER})(?:\s|-)?({_either(UNITS)})(?![\w²³/]|\.\w)\.?(?!\w)", _unit),
    _rule(rf"(?<=\w)\s?/\s?({_either(PER)})(?!\w)",
          lambda m: f" per {PER[m[1]]}"),
    _rule("²", " squared "),
    _rule("³", " cubed "),
    # Words that are cut short.
    _rule(r"#\s?(?=\d)", " number "),
    _rule(r"#(?=[A-Za-z])", " hashtag "),
    _rule(r"\b(st|dr|ft)\b(?!')(?!-)(\.?)", _saint_or_street, re.IGNORECASE),
    _rule(rf"\b({_either(TITLES)})\.(?=\s+\w)", lambda m: TITLES[m[1].lower()], re.IGNORECASE),
    _rule(rf"\b({_either(ABBREVIATIONS)})\.(?!\w)", _abbreviation, re.IGNORECASE),
    _rule(rf"\b({_either(WITHOUT_DOT)})\b(?!')", _abbreviation, re.IGNORECASE),
    _rule(r"(?<=\d(?:st|nd|rd|th) )(ave|rd|pl|ct|sq)\b", _abbreviation, re.IGNORECASE),
    _rule(r"(?<=[a-z] )(Ave|Rd|Ln|Ct|Sq)\b", _abbreviation),
    _rule(r"\b(?:[A-Za-z]\.\s?){2,}(?:[A-Za-z]\b(?!')\.?)?",
          lambda m: f" {_apart(m[0])} "),
    _rule(r"\b([Pp])h\.?\s?[Dd]\b\.?", " p h d "),
    # Numerals of the Romans, and what is left of ours.
    _rule(r"\b([A-Za-z]+) ([IVXLCDM]+|[ivx]{2,})('s)?\b(?![.'-]\w)", _roman),
    _rule(r"\b([IVX]{2,})(?= (?:century|centuries|dynasty))",
          lambda m: spell_ordinal(str(roman(m[1]))) if roman(m[1]) else m[0]),
    _rule(r"\b((?:\d{1,3}(?:,\d{3})+|\d+))(?:st|nd|rd|th)\b",
          lambda m: f" {spell_ordinal(m[1].replace(',', ''))} ", re.IGNORECASE),
    _rule(r"(?<![\d.])\d+(?:\.\d+){2,}\b", lambda m: " point ".join(map(spell_number, m[0].split(".")))),
    _rule(r"(?<=\d)\s?x\s?(?=\d)", " by "),
    _rule(r"(?<=\w)\s?\^\s?(?=-?\d)", " to the power of "),
    _rule(r"(?<=\d)\s?\*\s?(?=\d)", " times "),
    _rule(r"(?<=[\d)])\s+-\s+(?=[\d(])", " minus "),
    _rule(r"(?<=[\w)])\s<\s(?=[\w(])", " is less than "),
    _rule(r"(?<=[\w)])\s>\s(?=[\w(])", " is greater than "),
    _rule(r"~\s?(?=\d)", "about "),
    _rule(r"(?<![\w)\].])-(?=\.?\d)", " minus "),
    _rule(r"\b([A-Z]{1,3})&([A-Z]{1,3})\b", lambda m: f" {_apart(m[1])} and {_apart(m[2])} "),
    _rule(r"\b[A-Z]{2,3}(?=\d)", lambda m: f" {_apart(m[0])} "),
    _rule(r"\b([A-Z]{2,6})(s|'s)?(?![a-z'])", _capitals),
    _rule(r"(?<![\w.])\.(\d+)", lambda m: f" point {spell_digits(m[1])} "),
    _rule(rf"{NUMBER}", lambda m: f" {_number(m[0])} "),
    _rule("[" + re.escape("".join(SIGNS)) + "]", lambda m: f" {SIGNS[m[0]]} "),
]
