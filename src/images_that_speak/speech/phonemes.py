"""The closed set of phones: lower-case ARPAbet as flite prints it."""

from __future__ import annotations

PAUSE = "pau"
UNKNOWN = "<unk>"
ARPABET = (
    "aa", "ae", "ah", "ao", "aw", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih", "iy", "jh",
    "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z", "zh",
)
PHONES: tuple[str, ...] = ("<pad>", UNKNOWN, PAUSE, *ARPABET, "ax")
PHONE_IDS: dict[str, int] = {phone: i for i, phone in enumerate(PHONES)}
