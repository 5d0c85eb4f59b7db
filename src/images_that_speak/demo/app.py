"""The server: the page, its files, a queue in which one request runs at a time; and nothing from elsewhere.

The page stands before torch is imported: what answers it comes later, as a future, and requests wait for it.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

# Before gradio is imported, which asks on import whether it may count its users.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio  # noqa: E402
from omegaconf import DictConfig  # noqa: E402
from starlette.concurrency import run_in_threadpool  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import FileResponse, Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

from ..errors import UserError  # noqa: E402
from .outcome import Shelf  # noqa: E402
from .shown import SCRIPT, STYLE  # noqa: E402
from .tabs import PLAYER, TITLE, MakeTab, ReadTab, heading  # noqa: E402

if TYPE_CHECKING:
    from .speaker import Speaker

log = logging.getLogger(__name__)
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
    """Serve the page of `cfg` (configs/demo.yaml) until Ctrl-C.

    Raises UserError when the port is taken or a part cannot be loaded.
    """
    coming: Future[Speaker] = Future()
    shelf = Shelf()
    page = build(cfg, coming, shelf)
    url = start(page, cfg, shelf)
    print(f"{TITLE}: {url}  (Ctrl-C ends it)", flush=True)
    from .speaker import Speaker

    try:
        speaker = Speaker(cfg)
        coming.set_result(speaker)
        speaker.warm()
    except UserError:
        page.close(verbose=False)
        raise
    page.block_thread()


def start(page: gradio.Blocks, cfg: DictConfig, shelf: Shelf) -> str:
    """Serve `page` and the files of `shelf` from a thread of its own; its address."""
    if cfg.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("host=%s: whoever can reach this machine can use the page; it has no password", cfg.host)

    async def made(request: Request) -> Response:
        given = request.path_params
        path = await run_in_threadpool(shelf.file, given["result"], given["file"])
        return FileResponse(path) if path is not None else Response("no such file", 404)

    async def player(_: Request) -> Response:
        return FileResponse(PLAYER) if PLAYER.is_file() else Response("no such file", 404)

    try:
        _, url, _ = page.launch(
            server_name=cfg.host, server_port=cfg.port or None, share=False, inbrowser=cfg.browser,
            quiet=True, prevent_thread_lock=True, show_error=False, ssr_mode=False, footer_links=[],
            css=STYLE, head=SCRIPT, theme=theme(),
            app_kwargs={"middleware": [Middleware(OnlyFromHere)],
                        "routes": [Route("/made/{result}/{file}", made), Route(f"/{PLAYER.name}", player)]})
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


def build(cfg: DictConfig, coming: Future[Speaker], shelf: Shelf) -> gradio.Blocks:
    """The page; `coming` answers it once it is there."""
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.HTML(heading())
        with gradio.Tabs():
            with gradio.Tab("Make"):
                make = MakeTab(cfg, coming, shelf)
            with gradio.Tab("Read aloud"):
                ReadTab(coming, shelf)
        page.load(make.greet, None, [make.voice, make.known], api_visibility="private", queue=False,
                  show_progress="hidden")
    page.queue(max_size=cfg.limits.waiting, default_concurrency_limit=1)
    return page
