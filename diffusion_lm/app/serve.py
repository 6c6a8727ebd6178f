"""`diffusion-lm demo`: what may be reached of the page's server, and how it starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from diffusion_lm.common import Settings, UserError, number

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

READ = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/gradio_api/startup-events",
        "/gradio_api/queue/data", "/gradio_api/app_id")  # fmt: skip
READ_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
WRITE = ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel", "/gradio_api/reset")
"""All that the page itself asks its server for; uploads, files, proxies and named endpoints are none of it."""
MOST_BYTES = 64 * 1024
"""Of a request: what the page can ask for at most has a tenth of it."""
SESSIONS = 64
"""Visitors of whom Gradio remembers how their page stands; what it forgets of others, their browsers still have."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'none'"
)
"""Whatever stands on the page, a browser asks no other server for anything. (Gradio runs scripts of the page by eval.)"""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True)
class DemoConfig(Settings):
    """Where the page is served, and to how many."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = number(7860, least=1, most=65535)
    """Port to listen on."""
    waiting: int = number(24, least=1, most=1000)
    """Requests that may wait for their turn, one being written at a time; who comes then is told to try again."""
    seconds: float = number(60.0, least=1, most=3600)
    """Most seconds that the sentences of a request may take."""


class Door:
    """Lets through what the page asks for, of bounded size, and nothing else."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with 404 or 413 if it is none of the page's."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path, method, size = scope["path"], scope["method"], 0
        reads = method in ("GET", "HEAD") and (path in READ or path.startswith(READ_BELOW))
        if not reads and not (method == "POST" and path in WRITE):
            await _refuse(send, 404, "There is nothing here.")
            return

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            # The server then sees a visitor who hangs up, and answers nothing.
            return message if size <= MOST_BYTES else {"type": "http.disconnect"}

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > MOST_BYTES:
            await _refuse(send, 413, f"A request has at most {MOST_BYTES} bytes.")
            return
        await self.app(scope, bounded, guarded)


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def serve(config: DemoConfig) -> Any:
    """Start the page in the background and return it; `block_thread` of it waits until it is stopped.

    Raises:
        UserError: Gradio is not installed, or the address cannot be listened on.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError('The page needs Gradio: pip install "diffusion-lm[app]", or make app in a checkout.') from None
    _check_free(config.host, config.port)
    from starlette.middleware import Middleware

    from diffusion_lm.annotate.parser import parser
    from diffusion_lm.app import offers, page

    parser().parse([["Ready", "."]])  # loads what takes seconds, so that the first visitor does not wait for it
    blocks = page.build(offers.offers(), config.seconds, config.waiting)
    blocks.launch(
        server_name=config.host,
        server_port=config.port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        allowed_paths=[],
        blocked_paths=["/"],
        max_file_size=0,
        state_session_capacity=SESSIONS,
        app_kwargs={"docs_url": None, "redoc_url": None, "middleware": [Middleware(Door)]},
        theme=page.THEME,
        css_paths=page.HERE / "style.css",
    )
    return blocks


def _check_free(host: str, port: int) -> None:
    """See that the port can be listened on, before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(address)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on ({error.strerror}); give another --port or --host."
        ) from None
