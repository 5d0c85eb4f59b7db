"""Who reads pictures back: recognisers of speech, readers of pictures, and a second opinion of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from ..config import instantiate
from ..diffusion.family import find_device
from ..errors import UserError, nearest
from ..figures import SEEN
from ..kept import kept, stamp
from ..values import PICTURE_READERS
from .ctc import CTCReader
from .efficientnet import EfficientNetReader
from .heard import SpeechReader
from .items import Item
from .seen import PictureJudge, load_picture_reader
from .text import normalise

SOURCES = ("picture", "wav")
# What a name in the place of a section `reader.picture` stands for.
EYES: dict[str, Any] = dict(zip(PICTURE_READERS, (load_picture_reader, EfficientNetReader), strict=True))


@dataclass(frozen=True)
class Readers:
    """`speech` hears, `picture` sees (None: nobody looks). `source`: what is heard, "picture" or "wav".

    `second`: another judge of speech, whose WER is told beside the first one's and enters no other figure;
    `second_picture`: likewise of pictures. What both say has "second_" before its name.
    """

    speech: SpeechReader
    picture: PictureJudge | None = None
    source: str = "picture"
    second: SpeechReader | None = None
    second_picture: PictureJudge | None = None

    @property
    def eyes(self) -> list[PictureJudge]:
        """The readers of pictures."""
        return [eye for eye in (self.picture, self.second_picture) if eye is not None]

    @property
    def names(self) -> dict[str, str | None]:
        """Who judges, as results tell it."""
        judges = {"speech_reader": self.speech, "second_reader": self.second, "picture_reader": self.picture,
                  "second_picture_reader": self.second_picture}
        return {key: None if judge is None else judge.name for key, judge in judges.items()}

    def named(self, columns: Mapping[str, str]) -> dict[str, str]:
        """`columns` of a table, with the judges' names where there are two."""
        names: dict[str, str] = {}
        if self.picture and self.second_picture:
            names |= {key: heading.replace("second", self.second_picture.name)
                      for key, heading in columns.items() if key.startswith("second_")}
            names |= {key: f"{columns[key]} ({self.picture.name})" for key in (figure.key for figure in SEEN)
                      if f"second_{key}" in columns}
        if self.second is None:
            return {key: names.get(key, heading) for key, heading in columns.items()}
        first, second = self.speech.name, self.second.name
        names |= {"heard": f"heard ({first})", "second_heard": f"heard ({second})", "wer": f"WER ({first})",
                 "second_wer": f"WER ({second})", "invented": f"invented ({first})",
                 "second_invented": f"invented ({second})"}
        return {key: names.get(key, heading) for key, heading in columns.items()}


def load_readers(section: Any, device: str = "cpu", see: bool = True) -> Readers:
    """The readers of a configuration section `reader`; without a picture reader when `see` is false.

    Raises UserError when one cannot be loaded.
    """
    if OmegaConf.is_config(section):
        section = OmegaConf.to_container(section, resolve=True)
    source = section.get("source", "picture")
    if source not in SOURCES:
        raise UserError(f"reader.source={source!r}: expected one of {', '.join(SOURCES)}")

    def build(part: Mapping[str, Any] | None) -> Any:
        if part is None:
            return None
        given = {**part, "device": str(find_device(device))} if "device" in part else dict(part)
        # Among the arguments may be files: they count by their content.
        files = [stamp(value) for value in given.values() if isinstance(value, str)]
        reader = kept(("reader", repr(given), *files), lambda: instantiate(given))
        if isinstance(reader, SpeechReader):
            reader.forget()
        return reader

    second = section.get("second") or {}
    eyes = [build(picture_section(part["picture"])) for part in (section, second)
            if see and part.get("picture") is not None]
    # Two choices of a reader mostly have the same eye, and it looks once.
    eyes = list({eye.name: eye for eye in reversed(eyes)}.values())[::-1]
    return Readers(build(section["speech"]), eyes[0] if eyes else None, source, build(second.get("speech")),
                   eyes[1] if len(eyes) > 1 else None)


def picture_section(part: Mapping[str, Any] | str) -> dict[str, Any]:
    """A reader of pictures as a section; a name stands for one with the settings that it is made with."""
    if not isinstance(part, str):
        return dict(part)
    if part not in EYES:
        raise UserError(f"reader.picture={part}: expected one of {', '.join(EYES)}, null or a section."
                        f"{nearest(part, EYES)}")
    return {"_target_": f"{EYES[part].__module__}.{EYES[part].__qualname__}", "device": ""}


def says_one_word(item: Item) -> bool:
    """Whether the phrase of an item is a single word."""
    return item.audio_prompt is not None and len(normalise(item.audio_prompt).split()) == 1


def with_second_opinion(readers: Readers, items: Sequence[Item], device: str = "cpu") -> Readers:
    """`readers`, with the CTC recogniser beside a single judge where the family's own voices say one word.

    Of 25 such words it heard all, pocketsphinx 18 and Whisper base 17. Other voices it was not taught: where
    a sample's record names one, or there is no record, `readers` stay as they are.
    """
    made = [item for item in items if item.record is not None and "voice" not in item.record]
    if not any(map(says_one_word, made)) or readers.second or isinstance(readers.speech, CTCReader):
        return readers
    return replace(readers, second=CTCReader(device=str(find_device(device))))
