"""What the page shows of a picture that speaks: HTML, with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from ..audio.picture import colour_map
from ..audio.wave import wave_bytes
from ..drawings import by_group
from ..reports.alignment import align
from .speaker import Spoken

KINDS = {"=": "right", "s": "substituted", "d": "deleted", "i": "inserted"}
SAID = {"s": "{heard} for {asked}", "d": "{asked} not heard", "i": "{heard} heard besides"}

FILES = Path(__file__).parent / "static"
STYLE = (FILES / "style.css").read_text(encoding="utf-8")
SCRIPT = "<script>" + (FILES / "player.js").read_text(encoding="utf-8") + "</script>"
ICONS = ('<svg viewBox="0 0 24 24" aria-hidden="true"><path class="go" d="M8 5.5v13l10.5-6.5z"/>'
         '<path class="stay" d="M7 5.5h3.6v13H7zm6.4 0H17v13h-3.6z"/></svg>')
WAITING = '<div class="waiting">A picture that speaks will be here.</div>'


def shown(spoken: Spoken) -> str:
    """The picture with its play-head, its sound, what was heard, and scores. Prompts are escaped."""
    picture = _png(Image.fromarray(spoken.picture))
    sound = _data("audio/wav", wave_bytes(spoken.wave, "speech.wav"))
    figures = [(name, value) for name, value in (
        ("WER", None if spoken.wer is None else f"{spoken.wer:.0%}"),
        ("CLIP", None if spoken.clip is None else f"{spoken.clip:.1f}")) if value is not None]
    scores = "".join(f"<div><span>{name}</span> <b>{value}</b></div>" for name, value in figures)
    settings = " · ".join(f"{name.rpartition('.')[2].replace('_', ' ')} {_plain(value)}"
                          for name, value in spoken.settings.items() if value is not None)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in spoken.notes)
    return (
        f'<div class="spoken">{notes}<figure><img class="seen" src="{picture}" width="1024" height="256" '
        f'alt="Picture for “{escape(spoken.image_prompt)}”"><img class="colours" '
        f'src="{_png(colour_map(spoken.picture))}" alt="The same as a spectrogram" width="1024" height="256">'
        '<i class="head"></i><input class="seek" type="range" min="0" max="1" step="0.005" value="0" '
        'aria-label="Place in the sound; space plays"></figure>'
        f'<audio preload="auto" src="{sound}"></audio>'
        f'<div class="below"><button class="play" type="button" aria-label="Play">{ICONS}</button>'
        f'{_words(spoken)}<div class="scores">{scores}</div></div>'
        '<div class="small"><label><input type="checkbox" class="as-sound">as a spectrogram</label>'
        f'<a download="image.png" href="{picture}">picture</a>'
        f'<a download="speech.wav" href="{sound}">sound</a>'
        f'<span>{spoken.seconds:.1f} s</span><span>{escape(settings)}</span></div></div>')


def known() -> str:
    """The things that the painter knows, by kind, and the sentences about them."""
    things = "".join(f"<p><b>{escape(group)}</b> {escape(', '.join(names))}</p>"
                     for group, names in by_group().items())
    return (f'<div class="known">{things}<p>* also as “a silhouette of …”. One or up to five: “an owl”, '
            "“owls”, “three owls on black”, “a drawing of two owls, grayscale”. Anything else is met by the "
            "nearest of these.</p></div>")


def refused(lines: Sequence[str]) -> str:
    """What stands in the way of a request, a line each."""
    told = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="refused" role="alert">{told}</div>'


def _words(spoken: Spoken) -> str:
    """What was asked for over what was heard, word by word; and as a sentence for who listens."""
    if spoken.heard is None:
        return f'<div class="words">{escape(spoken.audio_prompt)}</div>'
    words = align(spoken.audio_prompt, spoken.heard, spoken.normaliser)
    wrong = [SAID[kind].format(asked=asked, heard=heard) for kind, asked, heard in words if kind != "="]
    sentence = (f"Asked: {spoken.audio_prompt}. Heard: {spoken.heard or 'nothing'}. "
                + (f"Wrong: {'; '.join(wrong)}." if wrong else "Every word right."))
    pairs = "".join(
        f'<span class="word {KINDS[kind]}"><span class="asked">{escape(asked) or "&nbsp;"}</span>'
        f'<span class="heard">{"–" if kind == "d" else escape(heard)}</span></span>'
        for kind, asked, heard in words)
    return f'<p class="unseen">{escape(sentence)}</p><div class="words" aria-hidden="true">{pairs}</div>'


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _png(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, format="PNG")
    return _data("image/png", file.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
