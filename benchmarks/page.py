"""What 100 visitors at once do to the page: who is answered, who is told to wait, and what memory does.

    python benchmarks/page.py [--clients 100] [--rounds 3]

Starts `diffusion-lm demo` on a free port of this machine, asks it as a browser does, in rounds of so many requests at once, and
stops it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from typing import Any

import httpx
import psutil

WAIT = 300
"""Seconds until a client that hears nothing counts as a failure."""


async def main() -> None:
    """Start the page, let the clients in, and print what became of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "diffusion_lm", "demo", "--port", str(port)])
    try:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT, limits=limits) as client:
            dependency, data = await request_of(client)
            print("first request:", await ask(client, dependency, data, 1))
            print(f"memory before: {megabytes(server.pid):.0f} MB")
            for number in range(1, options.rounds + 1):
                started = time.perf_counter()
                asked = (ask(client, dependency, data, seed) for seed in range(options.clients))
                found = Counter(await asyncio.gather(*asked))
                took = time.perf_counter() - started
                memory = megabytes(server.pid)
                print(f"round {number}: {options.clients} clients, {took:.1f} s, {dict(found)}, memory {memory:.0f} MB")
    finally:
        server.terminate()
        server.wait()


async def request_of(client: httpx.AsyncClient) -> tuple[dict[str, Any], list[Any]]:
    """What the button of the page calls, and its inputs as the page first has them."""
    for _ in range(120):
        try:
            config = (await client.get("/config")).json()
            break
        except httpx.TransportError:
            await asyncio.sleep(1)
    else:
        raise SystemExit("The page did not start.")
    dependency = max(config["dependencies"], key=lambda each: len(each["inputs"]))
    values = {component["id"]: component["props"].get("value") for component in config["components"]}
    labels = {component["id"]: component["props"].get("label") for component in config["components"]}
    data = ["riverside" if labels[i] == "Words to say" else values[i] for i in dependency["inputs"]]
    return dependency | {"seed": [labels[i] for i in dependency["inputs"]].index("Seed")}, data


async def ask(client: httpx.AsyncClient, dependency: dict[str, Any], data: list[Any], seed: int) -> str:
    """What one visitor gets."""
    session, data = uuid.uuid4().hex, list(data)
    data[dependency["seed"]] = seed
    body = {"data": data, "fn_index": dependency["id"], "session_hash": session, "event_data": None, "trigger_id": None}
    try:
        joined = await client.post("/gradio_api/queue/join", json=body)
        if joined.status_code == 503:
            return "told to try again"
        joined.raise_for_status()
        async with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            async for line in stream.aiter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    return "answered" if message["success"] else f"failed: {message['output']}"
    except httpx.HTTPError as error:
        return f"failed: {type(error).__name__}"
    return "failed: no answer"


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    return psutil.Process(pid).memory_info().rss / 2**20


asyncio.run(main())
