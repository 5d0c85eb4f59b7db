"""The two tabs of the page, in Gradio: fields, buttons, and what they call."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError
from ..resources import ROOT, choices
from . import fields
from .outcome import Shelf, Spoken
from .shown import READING, WAITING, known, refused, shown

if TYPE_CHECKING:
    from .speaker import Speaker

log = logging.getLogger(__name__)
TITLE = "Images that Speak"
FITS = {"as it needs": "auto", "cut": "crop", "all of it": "pad", "stretched": "stretch"}
SENTENCES = ("never trust a cat with your dinner", "good morning, the coffee is ready",
             "this picture can talk to you", "the moon is bright tonight")
DRAWINGS = ("an owl", "a sunflower", "two penguins", "a rocket")
VISIT = 12  # pictures that are kept in view
PHOTOGRAPHS = ROOT / "docs" / "media"
PLAYER = ROOT / "docs" / "play.html"
FREE = ("chelsea.png", "coffee.png")  # of scikit-image: a cat and a cup, free to use
ABOUT = """<div class="about"><p>Every picture is a sound: brightness is loudness, rows are pitches, columns
go by at a hundred a second. Those made here speak. Any other hums, and the listener may make words up.</p>
<p>A screenshot will do, or a copy sent by a friend.{}</p></div>"""
ALONE = """ <a href="{}" target="_blank">This page</a> does the same in any browser without a server, and
may be sent along with a picture."""
BROKEN = "Something went wrong here; the terminal of the server says what."


def heading() -> str:
    """What the page is for."""
    return (f'<div class="top"><h1>{TITLE}</h1><p>One picture is both: seen, it is a photograph or a '
            "drawing; played as a spectrogram, row by row a pitch and column by column a moment, it speaks."
            "</p></div>")


def photograph(elem_id: str, label: str, **options: Any) -> gradio.Image:
    """A field for a picture whose file is handed on as it was given."""
    field = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label=label,
                         elem_id=elem_id, buttons=[], **options)
    # Gradio would open the file, turn it and write it anew; what it cannot open would have no clear answer.
    # A method of this one, for a subclass would have Gradio write a file beside this.
    field.preprocess = lambda payload: payload and payload.path  # type: ignore
    return field


def styles(cfg: DictConfig) -> tuple[list[tuple[str, str]], str | None]:
    """The styles as (label, name), and which of them the configuration has; None where it is another."""
    known = choices("style")
    order = sorted(known, key=lambda name: (name != "balanced", name))
    own = OmegaConf.to_container(cfg.style, resolve=True) if cfg.get("style") is not None else None
    now = next((name for name in order if OmegaConf.to_container(OmegaConf.load(known[name])) == own), None)
    return [(name.replace("_", " ").capitalize(), name) for name in order], now


def joins(cfg: DictConfig) -> bool:
    """Whether photographs and recordings can be given: the shipped composition that takes them is chosen."""
    return all(OmegaConf.select(cfg, f"{group}._target_") == OmegaConf.load(choices(group)[name])._target_
               for group, name in (("composition", "modulation"), ("method", "joint")))


class MakeTab:
    """Making a picture that speaks. With compositions of the family's own, its fields are prompts alone."""

    def __init__(self, cfg: DictConfig, coming: Future[Speaker], shelf: Shelf):
        self.cfg, self.coming, self.shelf = cfg, coming, shelf
        self.joins = joins(cfg)
        self.inputs: dict[str, Any] = {}  # {key: field}
        self._sources()
        with gradio.Row(equal_height=True, elem_classes="act"):
            if self.joins:
                named, now = styles(cfg)
                self.inputs["style"] = gradio.Radio(named, value=now, label=fields.STYLE, elem_id="style",
                                                    scale=4, min_width=240)
            self.voice = gradio.Dropdown([cfg.voice] if cfg.voice else [], value=cfg.voice,
                                         label=fields.VOICE, elem_id="voice", scale=2, min_width=160)
            self.inputs["voice"] = self.voice
            button = gradio.Button("Make it speak", variant="primary", elem_id="make", scale=1, min_width=140)
        self.result = gradio.HTML(WAITING, elem_id="result")
        with gradio.Row(elem_classes="after"):
            self.again = gradio.Button("Another seed", elem_id="again", visible=False, scale=0, min_width=140,
                                       size="sm")
        self.visit = gradio.State([])
        self.history = gradio.Gallery(label="This visit", elem_id="history", visible=False, columns=6, rows=1,
                                      height=170, allow_preview=False, object_fit="contain", buttons=[],
                                      interactive=False)
        self._examples()
        with gradio.Accordion("What can be drawn", open=False, visible=False) as self.known:
            gradio.HTML(known(), elem_id="known")
        with gradio.Accordion("Settings", open=False):
            self._settings()
        self._wire(button)

    # --- fields

    def _sources(self) -> None:
        limits = self.cfg.limits
        with gradio.Row(equal_height=True):
            if self.joins:
                self.inputs["image"] = photograph("photograph", fields.PHOTOGRAPH, value=self.cfg.image,
                                                  height=250, scale=2, min_width=240)
            with gradio.Column(scale=3, min_width=240):
                self.inputs["image_prompt"] = gradio.Textbox(
                    self.cfg.image_prompt, label=fields.DRAWN, elem_id="image_prompt",
                    info="where there is no photograph" if self.joins else None,
                    max_length=limits.characters)
                self.inputs["audio_prompt"] = gradio.Textbox(
                    self.cfg.audio_prompt, label=fields.SAID, elem_id="audio_prompt",
                    info="where there is no recording" if self.joins else None, max_length=limits.characters)
            if self.joins:
                self.inputs["speech"] = gradio.Audio(
                    self.cfg.speech, sources=["microphone", "upload"], type="filepath",
                    label=fields.RECORDING, elem_id="recording", scale=2, min_width=240, buttons=[])

    def _settings(self) -> None:
        cfg, limits, guidance = self.cfg, self.cfg.limits, self.cfg.guidance
        with gradio.Row():
            self.inputs["seed"] = gradio.Number(
                cfg.seed, precision=0, minimum=0, maximum=2**32 - 1, label=fields.SEED,
                info="the same seed makes the same picture")
            if self.joins:
                self.inputs["rate"] = gradio.Slider(0.5, 2, cfg.rate, step=0.05, label=fields.SPEED,
                                                    info="of speaking; the pitch stays")
                self.inputs["picture.fit"] = gradio.Radio(
                    list(FITS.items()), value=cfg.picture.fit, label=fields.FIT,
                    info="where the sentence is wider than the photograph")
                self.inputs["picture.colour"] = gradio.Checkbox(cfg.picture.colour, label=fields.COLOUR,
                                                                info="colours are seen and not heard")
        with gradio.Row():
            self.inputs["steps"] = gradio.Slider(1, limits.steps, min(cfg.steps, limits.steps), step=1,
                                                 label=fields.STEPS, elem_id="steps")
            self.inputs["guidance.image_scale"] = gradio.Slider(
                0, 15, guidance.image_scale, step=0.5, label=fields.IMAGE_SCALE,
                info="how closely a drawing follows what it is of")
            if not self.joins:
                self.inputs["guidance.audio_scale"] = gradio.Slider(
                    0, 15, guidance.audio_scale, step=0.5, label=fields.AUDIO_SCALE,
                    info="how closely the speech follows its prompt")
                self.inputs["guidance.audio_weight"] = gradio.Slider(
                    0, 1, guidance.audio_weight, step=0.05, label=fields.WEIGHT,
                    info="share of the speech where it acts")

    def _examples(self) -> None:
        pictures = example_photographs() if self.joins else []
        rows: list[tuple[Any, ...]]
        rows = [(str(path), self.cfg.image_prompt, said, f"{path.stem}, a photograph")
                for path, said in zip(pictures, SENTENCES, strict=False)]
        rows += [(None, drawn, said, drawn) for drawn, said in zip(DRAWINGS, SENTENCES[::-1], strict=True)]
        keys = [key for key in ("image", "image_prompt", "audio_prompt") if key in self.inputs]
        # Names in place of a table, which a phone would cut.
        gradio.Examples([list(row[3 - len(keys):3]) for row in rows], [self.inputs[key] for key in keys],
                        cache_examples=False, elem_id="examples", label="Examples",
                        example_labels=[f"{name}: “{said}”" for *_, said, name in rows])

    # --- what is called

    def _wire(self, button: gradio.Button) -> None:
        given = list(self.inputs.values())
        shown_in = [self.result, self.visit, self.history, self.again]
        options: dict[str, Any] = dict(concurrency_limit=1, concurrency_id="model", trigger_mode="once",
                                       show_progress_on=self.result)
        texts = [self.inputs["image_prompt"].submit, self.inputs["audio_prompt"].submit]
        gradio.on([button.click, *texts], self.make, [self.visit, *given], shown_in, api_name="speak",
                  **options)
        seed = self.inputs["seed"]
        counted = self.again.click(lambda seed: int(seed or 0) + 1, seed, seed, api_visibility="private",
                                   queue=False)
        counted.then(self.make, [self.visit, *given], shown_in, api_visibility="private", **options)
        self.history.select(self.look_back, self.visit, self.result, api_visibility="private", queue=False,
                            show_progress="hidden")

    def greet(self) -> tuple[Any, Any]:
        """What is known once the family is there: its voices, and what it draws."""
        speaker = self.coming.result()
        voices = speaker.voices
        return (gradio.Dropdown([(voice_label(name, speaker), name) for name in voices], value=speaker.voice,
                                visible=bool(voices)), gradio.Accordion(visible=speaker.layout.drawings))

    def make(self, visit: list[dict[str, Any]], *values: Any,
             progress: gradio.Progress = gradio.Progress()) -> tuple[Any, ...]:  # noqa: B008 - Gradio's way
        """What is on the page → the picture, or what is wrong; and the pictures of this visit."""
        changes = {key: value for key, value in zip(self.inputs, values, strict=True)
                   if not (key in ("style", "voice") and value is None)}
        changes = {key: value or "" if key.endswith("_prompt") else value for key, value in changes.items()}
        files = {str(changes[key]): name for key, name in (("image", fields.PHOTOGRAPH),
                                                           ("speech", fields.RECORDING)) if changes.get(key)}
        html, spoken = answer(lambda: self.coming.result().speak(
            changes, lambda done, total: progress((done, total), desc="denoising", unit="steps")),
            self.shelf, files, changes)
        if spoken is None:
            return html, visit, gradio.skip(), gradio.skip()
        said = spoken.audio_prompt or "a recording"
        title = f"{spoken.image_prompt}: {said}" if spoken.image_prompt else said
        visit = [{"html": html, "small": spoken.thumbnail(), "title": title}, *visit][:VISIT]
        small = [(entry["small"], entry["title"]) for entry in visit]
        return (html, visit, gradio.Gallery(small, visible=len(visit) > 1, selected_index=None),
                gradio.Button(visible=spoken.chance))

    def look_back(self, visit: list[dict[str, Any]], chosen: gradio.SelectData) -> Any:
        """A picture of this visit, once more."""
        return visit[chosen.index]["html"] if chosen.index < len(visit) else gradio.skip()


class ReadTab:
    """Any picture, read aloud."""

    def __init__(self, coming: Future[Speaker], shelf: Shelf):
        self.coming, self.shelf = coming, shelf
        with gradio.Row(equal_height=True):
            picture = photograph("picture", fields.PICTURE, height=260, scale=2, min_width=240)
            with gradio.Column(scale=3, min_width=240):
                gradio.HTML(ABOUT.format(ALONE.format(PLAYER.name) if PLAYER.is_file() else ""))
                button = gradio.Button("Read it aloud", variant="primary", elem_id="read", scale=0)
        result = gradio.HTML(READING, elem_id="heard")
        gradio.on([button.click, picture.upload], self.read, picture, result, api_name="read",
                  concurrency_limit=1, concurrency_id="model", trigger_mode="once", show_progress_on=result)
        examples = sorted(PHOTOGRAPHS.glob("*.png"))[:6]
        if examples:
            gradio.Examples([[str(path)] for path in examples], picture, cache_examples=False,
                            label="Examples", example_labels=[path.stem for path in examples])

    def read(self, picture: str | None) -> str:
        """The picture with its sound and its words, or what is wrong with it."""
        if not picture:
            return refused([f"{fields.PICTURE}: expected one; drop it into the field, or paste it"])
        return answer(lambda: self.coming.result().read_aloud(picture), self.shelf, {picture: fields.PICTURE},
                      {"picture": picture})[0]


def answer(ask: Any, shelf: Shelf, files: dict[str, str], given: object) -> tuple[str, Spoken | None]:
    """HTML of what `ask()` gives, or of what is wrong; and what it gave."""
    try:
        spoken: Spoken = ask()
        return shown(spoken, f"made/{shelf.put(spoken)}", fields.lines_of(spoken.notes, files)), spoken
    except UserError as error:
        return refused(fields.in_fields(str(error), files)), None
    except Exception:  # the server goes on, and the visitor reads no trace
        log.exception("a request failed: %s", given)
        return refused([BROKEN]), None


def voice_label(name: str, speaker: Speaker) -> str:
    """A voice as the page names it."""
    if name in speaker.layout.voices:
        return f"{name}, by the speech branch" if speaker.mixes else name
    return name.replace("/", ": ")


def example_photographs() -> list[Path]:
    """Photographs that lie in the documentation, else those that scikit-image brings along."""
    found = sorted(path for path in PHOTOGRAPHS.glob("*.jpg") if path.is_file())
    if found:
        return found[:4]
    from importlib.util import find_spec

    spec = find_spec("skimage")
    folders = [Path(place) / "data" for place in (spec.submodule_search_locations or ())] if spec else []
    return [folder / name for folder in folders for name in FREE if (folder / name).is_file()]
