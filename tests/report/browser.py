"""A headless Chromium for tests: opens a page and tells all that it did; driven by its own debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Seen:
    """What a page did: dialogs it opened, what it sent to the console, what it asked the network for, and answers."""

    dialogs: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


async def visit(
    path: Path,
    *questions: str,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    script: bool = True,
    screenshot: Path | None = None,
) -> Seen:
    """Open a page, wait until it is quiet, and evaluate ``questions`` (JavaScript) in it, in order."""
    import aiohttp

    browser = find_browser()
    assert browser is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--disable-background-networking"]
        process = await asyncio.create_subprocess_exec(
            browser, *options, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                    target = next(item for item in await reply.json() if item["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = _Page(socket)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await page.call(f"{domain}.enable")
                    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
                    await page.call("Emulation.setDeviceMetricsOverride", **size)
                    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                    await page.call("Emulation.setEmulatedMedia", features=[scheme])
                    if not script:
                        await page.call("Emulation.setScriptExecutionDisabled", value=True)
                    await page.call("Page.navigate", url=path.resolve().as_uri())
                    await page.until_loaded()
                    for question in questions:
                        reply = await page.call("Runtime.evaluate", expression=question, returnByValue=True)
                        assert "exceptionDetails" not in reply, reply
                        page.seen.answers.append(reply["result"].get("value"))
                    if screenshot is not None:
                        reply = await page.call("Page.captureScreenshot", captureBeyondViewport=False)
                        screenshot.write_bytes(base64.b64decode(reply["data"]))
                    return page.seen
        finally:
            process.terminate()
            await process.wait()


class _Page:
    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._loaded = False
        self.seen = Seen()

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), 60)).data)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            await self._note(message)

    async def until_loaded(self) -> None:
        """Until the page is loaded, and what it began then had half a second to show."""
        while not self._loaded:
            await self._note(json.loads((await asyncio.wait_for(self._socket.receive(), 60)).data))
        await asyncio.sleep(0.5)
        await self.call("Page.getFrameTree")

    async def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Page.javascriptDialogOpening":
            self.seen.dialogs.append(params["message"])
            number = next(self._numbers)
            close = {"id": number, "method": "Page.handleJavaScriptDialog", "params": {"accept": False}}
            await self._socket.send_str(json.dumps(close))
        elif method == "Runtime.consoleAPICalled":
            self.seen.console.append(f"{params['type']}: {params['args']}")
        elif method == "Runtime.exceptionThrown":
            self.seen.console.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.seen.console.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.seen.requests.append(params["request"]["url"])


async def _port(file: Path) -> int:
    for _ in range(300):
        if file.is_file() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the browser did not start: there is no {file}")
