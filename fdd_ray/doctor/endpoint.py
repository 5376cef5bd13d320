"""Whether the endpoint of a teacher answers, and whether the key is set where it is asked from.

    look_at_endpoint("teacher", settings)

It is asked for a few tokens, as a run does before anything else. The key stays in the environment: of it is only
told whether it is set.
"""

from __future__ import annotations

import dataclasses
import os
import urllib.request
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from fdd_ray.doctor import host
from fdd_ray.doctor.findings import Finding, note, of_error, ok, problem
from fdd_ray.engines.base import EngineSettings
from fdd_ray.errors import EngineError, FddError

DEADLINE_S: Final = 60.0


def look_at_endpoint(
    role: str, settings: EngineSettings, *, on_cluster: bool = False, deadline_s: float = DEADLINE_S
) -> Iterator[Finding]:
    """Findings about an endpoint.

    Args:
        role: Whose it is.
        settings: Its settings; ``endpoint`` is given.
        on_cluster: Whether its engines run on nodes of a cluster, which may have a key where this process has none.
        deadline_s: Seconds that it may take to answer.
    """
    assert settings.endpoint is not None
    url = urlsplit(settings.endpoint)
    name, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    proxies = urllib.request.getproxies()
    if not proxies.get(url.scheme) and (why := host.listens(name, port)):
        yield problem(
            f"{role}: nothing answers at {name}:{port} ({why})",
            f"see that the server is up, {role}.endpoint, and this machine's way out (firewall, DNS, proxy)",
            EngineError,
        )
        return
    key = settings.api_key_env
    if key is not None and not os.environ.get(key, "").strip():
        found = f"{role}: {name}:{port} can be reached, but {key} is not set here, so it was not asked for tokens"
        todo = f"export {key} where Ray's nodes start (or {role}.api_key_env: null for an endpoint that wants none)"
        yield note(found, todo) if on_cluster else problem(found, todo, EngineError)
        return
    from fdd_ray.engines.openai import check_endpoint

    try:
        notes = check_endpoint(dataclasses.replace(settings, request_tries=1), deadline_s)
    except FddError as error:
        yield of_error(error, f"{role}: ")
        return
    yield ok(f"{role}: {settings.endpoint} answers for {settings.model}{f', with the key in {key}' if key else ''}")
    for text in notes:
        yield note(f"{role}: {text}", "nothing to do; it costs what it says")
