"""The page in Gradio: prompts, settings, a queue in which one request runs at a time, and errors as text."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

# Before gradio is imported, which asks on import whether it may count its users.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio  # noqa: E402
from omegaconf import DictConfig  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from ..errors import UserError  # noqa: E402
from .page import SCRIPT, STYLE, WAITING, known, refused, shown  # noqa: E402
from .speaker import Speaker  # noqa: E402

log = logging.getLogger(__name__)
TITLE = "Images that Speak"
# The page may load nothing from elsewhere, whatever Gradio's own files would like.
POLICY = ("default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'")


class OnlyFromHere:
    """Adds the content security policy to every answer (ASGI)."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def serve(cfg: DictConfig) -> None:
    """Load what `cfg` (configs/demo.yaml) describes and serve the page until Ctrl-C.

    Raises UserError when a part cannot be loaded or the port is taken.
    """
    page = build(Speaker(cfg))
    url = start(page, cfg)
    print(f"{TITLE}: {url}  (Ctrl-C ends it)", flush=True)
    page.block_thread()


def start(page: gradio.Blocks, cfg: DictConfig) -> str:
    """Serve `page` from a thread of its own; its address."""
    if cfg.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("host=%s: whoever can reach this machine can use the page; it has no password", cfg.host)
    try:
        _, url, _ = page.launch(
            server_name=cfg.host, server_port=cfg.port or None, share=False, inbrowser=cfg.browser,
            quiet=True, prevent_thread_lock=True, show_error=False, ssr_mode=False, footer_links=[],
            css=STYLE, head=SCRIPT,
            theme=theme(), app_kwargs={"middleware": [Middleware(OnlyFromHere)]})
    except OSError as error:
        raise UserError(f"port={cfg.port}: taken already, on {cfg.host} (port=0 takes any that is free)"
                        ) from error
    return url


def theme() -> gradio.themes.Base:
    """Gradio's own, its quiet texts and white-on-colour button dark enough to be read by everyone."""
    return gradio.themes.Default(primary_hue="teal", neutral_hue="stone").set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800")


def build(speaker: Speaker) -> gradio.Blocks:
    """The page for one loaded family."""
    cfg = speaker.cfg
    limits, voices = cfg.limits, list(speaker.layout.voices)
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.HTML(f'<div class="top"><h1>{TITLE}</h1><p>One picture: seen, it shows the first prompt; '
                    "played as a spectrogram, it speaks the second. Family "
                    f"{speaker.layout.name}.</p></div>")
        with gradio.Row(equal_height=True):
            image = gradio.Textbox(cfg.image_prompt, label="What is seen", max_length=limits.characters,
                                   elem_id="image_prompt", scale=3, min_width=240)
            audio = gradio.Textbox(cfg.audio_prompt, label="What is said", max_length=limits.characters,
                                   elem_id="audio_prompt", scale=3, min_width=240)
            button = gradio.Button("Make it", variant="primary", elem_id="make", scale=1, min_width=120)
        result = gradio.HTML(WAITING, elem_id="result")
        if speaker.layout.drawings:
            with gradio.Accordion("What can be drawn", open=False, elem_id="known"):
                gradio.HTML(known())
        with gradio.Accordion("Settings", open=False):
            guidance = cfg.guidance
            with gradio.Row():
                weight = gradio.Slider(0, 1, guidance.audio_weight, step=0.05, label="Speech weight",
                                       info="share of the speech where it acts")
                image_scale = gradio.Slider(0, 15, guidance.image_scale, step=0.5, label="Picture guidance",
                                            info="how closely the picture follows its prompt")
                audio_scale = gradio.Slider(0, 15, guidance.audio_scale, step=0.5, label="Speech guidance",
                                            info="how closely the speech follows its prompt")
            with gradio.Row():
                steps = gradio.Slider(1, limits.steps, min(cfg.steps, limits.steps), step=1,
                                      label="Denoising steps", elem_id="steps")
                seed = gradio.Number(cfg.seed, precision=0, minimum=0, maximum=2**32 - 1, label="Seed",
                                     info="the same seed makes the same picture")
                voice = gradio.Dropdown(voices, value=cfg.voice or next(iter(voices), None), label="Voice",
                                        visible=bool(voices))
        gradio.on([button.click, image.submit, audio.submit], answering(speaker),
                  [image, audio, weight, image_scale, audio_scale, steps, seed, voice], result,
                  api_name="speak", concurrency_limit=1, concurrency_id="model", trigger_mode="once")
    page.queue(max_size=limits.waiting, default_concurrency_limit=1)
    return page


def answering(speaker: Speaker) -> Callable[..., str]:
    """What a click calls: what is on the page → HTML, of the picture or of what is wrong."""

    def speak(image_prompt: str, audio_prompt: str, audio_weight: float, image_scale: float,
              audio_scale: float, steps: float, seed: float, voice: str | None,
              progress: gradio.Progress = gradio.Progress()) -> str:  # noqa: B008 - Gradio looks for it there
        changes = {"image_prompt": image_prompt, "audio_prompt": audio_prompt, "voice": voice or None,
                   "guidance.audio_weight": audio_weight, "guidance.image_scale": image_scale,
                   "guidance.audio_scale": audio_scale, "steps": steps, "seed": seed}
        try:
            return shown(speaker.speak(changes, lambda done, total: progress(
                (done, total), desc="denoising", unit="steps")))
        except UserError as error:
            return refused(str(error).splitlines())
        except Exception:  # the server goes on, and the visitor reads no trace
            log.exception("a request failed: %s", changes)
            return refused(["Something went wrong here; the terminal of the server says what."])

    return speak
