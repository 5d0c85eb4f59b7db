"""What the page shows of a picture that speaks: HTML, which links to its files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..drawings import by_group
from ..reports.transcript import align
from .fields import FIELDS
from .outcome import FILM, PICTURE, SOUND, SPECTROGRAM, Spoken, films

KINDS = {"=": "right", "s": "substituted", "d": "deleted", "i": "inserted"}
SAID = {"s": "{heard} for {asked}", "d": "{asked} not heard", "i": "{heard} heard besides"}

FILES = Path(__file__).parent / "static"
STYLE = (FILES / "style.css").read_text(encoding="utf-8")
SCRIPT = "<script>" + (FILES / "player.js").read_text(encoding="utf-8") + "</script>"
ICONS = ('<svg viewBox="0 0 24 24" aria-hidden="true"><path class="go" d="M8 5.5v13l10.5-6.5z"/>'
         '<path class="stay" d="M7 5.5h3.6v13H7zm6.4 0H17v13h-3.6z"/></svg>')
WAITING = '<div class="waiting">A picture that speaks will be here.</div>'
READING = '<div class="waiting">What a picture sounds like will be here.</div>'


def shown(spoken: Spoken, place: str, notes: Sequence[str] = ()) -> str:
    """The picture with its play-head, its sound, what was heard, scores, and its files, which lie at `place`.

    All texts are escaped.
    """
    figures = [(name, value) for name, value in (
        ("WER", None if spoken.wer is None else f"{spoken.wer:.0%}"),
        ("CLIP", None if spoken.clip is None else f"{spoken.clip:.1f}")) if value is not None]
    scores = "".join(f"<div><span>{name}</span> <b>{value}</b></div>" for name, value in figures)
    settings = " · ".join([f"{FIELDS[name].lower()} {_plain(value)}"
                           for name, value in spoken.settings.items() if value is not None]
                          + ([f"heard by {spoken.reader}"] if spoken.reader else []))
    height, width = spoken.picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    showing = f"Picture for “{spoken.image_prompt}”" if spoken.image_prompt else "The picture that is played"
    told = "".join(f"<p>{escape(note)}</p>" for note in notes)
    links = [("picture", PICTURE), ("sound", SOUND), *([("film", FILM)] if films() else [])]
    files = "".join(f'<a download="{name}" href="{place}/{name}">{label}</a>' for label, name in links)
    return (
        f'<div class="spoken" style="--shape: {width / height:.5f}"><figure>'
        f'<img class="seen" src="{place}/{PICTURE}" {size} alt="{escape(showing)}">'
        f'<img class="colours" src="{place}/{SPECTROGRAM}" alt="The same as a spectrogram" {size}>'
        '<i class="head"></i><input class="seek" type="range" min="0" max="1" step="0.005" value="0" '
        'aria-label="Place in the sound; space plays"></figure>'
        f'<audio preload="auto" src="{place}/{SOUND}"></audio>'
        f'<div class="below"><button class="play" type="button" aria-label="Play">{ICONS}</button>'
        f'{_words(spoken)}<div class="scores">{scores}</div></div>'
        + (f'<div class="notes">{told}</div>' if told else "")
        + '<div class="small"><label><input type="checkbox" class="as-sound">as a spectrogram</label>'
        f'<span class="files">save {files}</span>'
        f'<span>{len(spoken.wave) / 16_000:.1f} s of sound, made in {spoken.seconds:.1f} s</span>'
        f'<span>{escape(settings)}</span></div></div>')


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
    if spoken.audio_prompt is None:
        heard = f"“{escape(spoken.heard)}”" if spoken.heard else "no words are heard"
        return f'<div class="words">{heard if spoken.heard is not None else ""}</div>'
    if spoken.heard is None:
        return f'<div class="words">{escape(spoken.audio_prompt)}</div>'
    words = align(spoken.audio_prompt, spoken.heard, spoken.normaliser)
    wrong = [SAID[kind].format(asked=asked, heard=heard) for kind, asked, heard in words if kind != "="]
    sentence = (f"Asked: {spoken.audio_prompt.rstrip('.')}. Heard: {spoken.heard.rstrip('.') or 'nothing'}. "
                + (f"Wrong: {'; '.join(wrong)}." if wrong else "Every word right."))
    pairs = "".join(
        f'<span class="word {KINDS[kind]}"><span class="asked">{escape(asked) or "&nbsp;"}</span>'
        f'<span class="heard">{"–" if kind == "d" else escape(heard)}</span></span>'
        for kind, asked, heard in words)
    return f'<p class="unseen">{escape(sentence)}</p><div class="words" aria-hidden="true">{pairs}</div>'


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
