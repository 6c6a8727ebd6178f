"""How the page starts, and what its door lets through."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from diffusion_lm.app.serve import MOST_BYTES, DemoConfig, Door, serve
from diffusion_lm.common import UserError


def test_without_gradio_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r'pip install "diffusion-lm\[app\]", or make app'):
        serve(DemoConfig())


def test_an_address_that_cannot_be_had_is_named() -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be listened on \(Address already in use\)"):
            serve(DemoConfig(port=port))


def answer(method: str, path: str, *parts: bytes, **headers: str) -> tuple[int, int]:
    """The status that a request gets through the door, and how many bytes of it come through."""
    got, sent = [], []
    queue = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            got.append(message["body"])
            if not queue:
                break
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Any:
        return queue.pop(0) if queue else {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(Door(inside)(scope, receive, send))
    return sent[0]["status"], sum(map(len, got))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/assets/index.js", 200),
        ("POST", "/gradio_api/queue/join", 200),
        ("POST", "/", 404),
        ("PUT", "/gradio_api/queue/join", 404),
        ("GET", "/gradio_api/file=x", 404),
        ("POST", "/gradio_api/upload", 404),
        ("GET", "/gradio_api/proxy=x", 404),
    ],
)
def test_the_door_lets_through_what_the_page_asks_for(method: str, path: str, status: int) -> None:
    assert answer(method, path)[0] == status


def test_the_door_stops_what_is_too_long_whether_it_says_so_or_not() -> None:
    long = b"a" * (MOST_BYTES // 2)
    assert answer("POST", "/gradio_api/queue/join", long, content_length=str(MOST_BYTES + 1)) == (413, 0)
    assert answer("POST", "/gradio_api/queue/join", content_length="many")[0] == 413
    assert answer("POST", "/gradio_api/queue/join", long, long, long)[1] == 2 * len(long)
