"""Endpoints that answer, and those that do not; the key is never shown."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from fdd_ray.doctor.endpoint import look_at_endpoint
from fdd_ray.doctor.findings import Finding
from fdd_ray.engines.base import EngineSettings
from tests.engines.endpoint import MODEL, Said, ScriptedEndpoint, completion, refusal

KEY = "sk-very-secret-7731"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCTOR_TEST_KEY", KEY)


def look(url: str, *, on_cluster: bool = False, deadline_s: float = 30.0, **settings: Any) -> Finding:
    given = EngineSettings(**{"model": MODEL, "endpoint": url, "api_key_env": "DOCTOR_TEST_KEY", **settings})
    (finding,) = look_at_endpoint("teacher", given, on_cluster=on_cluster, deadline_s=deadline_s)
    assert KEY not in finding.found + finding.next
    return finding


def test_one_that_answers() -> None:
    with ScriptedEndpoint(lambda asked, number: completion("ready")) as endpoint:
        finding = look(endpoint.url)
        assert finding.level == "ok" and "with the key in DOCTOR_TEST_KEY" in finding.found
        assert endpoint.chats[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    finding = look(f"http://127.0.0.1:{port}/v1")
    assert (finding.level, finding.exit_code) == (
        "problem",
        5,
    ) and f"127.0.0.1:{port} (Connection refused)" in finding.found


def test_a_name_that_nobody_has() -> None:
    finding = look("http://no-such-host.invalid/v1")
    assert finding.level == "problem" and "no-such-host.invalid:80" in finding.found


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCTOR_TEST_KEY")
    with ScriptedEndpoint(lambda asked, number: completion("ready")) as endpoint:
        finding = look(endpoint.url)
        assert (finding.level, finding.exit_code) == ("problem", 5)
        assert "DOCTOR_TEST_KEY is not set here" in finding.found and "export DOCTOR_TEST_KEY" in finding.next
        assert look(endpoint.url, on_cluster=True).level == "note"  # it may be set on the nodes alone
        assert endpoint.asked == []
        assert look(endpoint.url, api_key_env=None).level == "ok"


def test_a_key_that_is_refused_is_not_repeated() -> None:
    said = Said.of(refusal(f"Incorrect API key provided: {KEY}", type="invalid_request_error"), 401)
    with ScriptedEndpoint(lambda asked, number: said) as endpoint:
        finding = look(endpoint.url)
    assert (finding.level, finding.exit_code) == ("problem", 5) and "[key]" in finding.found


def test_a_model_that_it_does_not_serve() -> None:
    said = Said.of(refusal("The model `big` does not exist"), 404)
    with ScriptedEndpoint(lambda asked, number: said) as endpoint:
        finding = look(endpoint.url, model="big")
    assert finding.level == "problem" and f"It serves: {MODEL}" in f"{finding.found} {finding.next}"


def test_one_that_turns_away_for_ever_has_a_deadline() -> None:
    with ScriptedEndpoint(lambda asked, number: Said.of(refusal("busy"), 429)) as endpoint:
        began = time.monotonic()
        finding = look(endpoint.url, deadline_s=1.5)
    assert time.monotonic() - began < 15
    assert (finding.level, finding.exit_code) == ("problem", 5) and "within 1.5 s" in finding.found


def test_one_that_accepts_and_says_nothing_has_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        began = time.monotonic()
        finding = look(f"http://127.0.0.1:{server.getsockname()[1]}/v1", deadline_s=1.0)
        assert time.monotonic() - began < 15
    assert (finding.level, finding.exit_code) == ("problem", 5)


def test_behind_a_proxy_no_connection_of_our_own_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdd_ray.doctor.host.listens", lambda *args: "must not be asked")
    with ScriptedEndpoint(lambda asked, number: completion("ready")) as endpoint:
        assert "must not be asked" in look(endpoint.url).found
        monkeypatch.setattr("urllib.request.getproxies", lambda: {"http": "http://proxy.invalid:3128"})
        assert look(endpoint.url).level == "ok"
