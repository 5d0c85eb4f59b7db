"""Numbers in words, as American English says them: "one thousand forty two", "nineteen eighty four"."""

from __future__ import annotations

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen").split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = ("", " thousand", " million", " billion", " trillion")
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
            "nine": "ninth", "twelve": "twelfth"}
ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def spell_digits(digits: str) -> str:
    """Digits read one by one; whatever is no digit is left out: "555-12" → "five five five one two"."""
    return " ".join(ONES[int(digit)] for digit in digits if digit in "0123456789")


def spell_number(digits: str) -> str:
    """A run of digits in words; more than 15 of them, or a leading zero, are read one by one.

    >>> spell_number("1042")
    'one thousand forty two'
    """
    if len(digits) > 15 or (len(digits) > 1 and digits[0] == "0"):
        return spell_digits(digits)
    number, words = int(digits), []
    if number == 0:
        return ONES[0]
    for scale in range((len(digits) - 1) // 3, -1, -1):
        group = number // 1000**scale % 1000
        hundreds, rest = divmod(group, 100)
        if hundreds:
            words.append(f"{ONES[hundreds]} hundred")
        if rest >= 20:
            words.append(TENS[rest // 10])
            rest %= 10
        if rest:
            words.append(ONES[rest])
        if group:
            words[-1] += SCALES[scale]
    return " ".join(words)


def spell_ordinal(digits: str) -> str:
    """The ordinal of a run of digits: "21" → "twenty first"."""
    *head, last = spell_number(digits).split()
    last = ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return " ".join([*head, last])


def spell_decimal(text: str) -> str:
    """A number with commas between thousands and perhaps a decimal point.

    >>> spell_decimal("1,200.05")
    'one thousand two hundred point zero five'
    """
    whole, point, part = text.replace(",", "").partition(".")
    words = spell_number(whole) if whole else ""
    return f"{words} point {spell_digits(part)}".strip() if point else words


def is_year(digits: str) -> bool:
    """Whether four digits alone are read as a year's: 1100 to 1999 and 2000 to 2099."""
    return len(digits) == 4 and digits.isdigit() and 1100 <= int(digits) <= 2099


def spell_year(digits: str) -> str:
    """A year: "nineteen oh five", "two thousand five", "twenty twelve", "fifteen hundred".

    >>> spell_year("1984")
    'nineteen eighty four'
    """
    if not is_year(digits) or digits[:3] == "200":
        return spell_number(digits)
    century, rest = spell_number(digits[:2]), digits[2:]
    if rest == "00":
        return f"{century} hundred"
    return f"{century} oh {ONES[int(rest)]}" if rest[0] == "0" else f"{century} {spell_number(rest)}"


def plural(words: str) -> str:
    """The plural of number words, by the last: "twenty" → "twenties", "six" → "sixes"."""
    if words.endswith("half"):
        return f"{words[:-1]}ves"
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return f"{words}es" if words.endswith(("x", "s")) else f"{words}s"


def roman(numeral: str) -> int | None:
    """The value of a Roman numeral in its usual form, or None: "XIV" → 14, "IIX" → None."""
    values = [ROMAN[letter] for letter in numeral]
    total = sum(-value if value < after else value
                for value, after in zip(values, [*values[1:], 0], strict=True))
    return total if to_roman(total) == numeral else None


def to_roman(number: int) -> str:
    """A number from 1 to 3999 as a Roman numeral; empty for others."""
    if not 1 <= number <= 3999:
        return ""
    signs = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
             (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
    text = ""
    for value, sign in signs:
        text += sign * (number // value)
        number %= value
    return text
