"""What an experiment may say of a model that is served behind an OpenAI-compatible endpoint.

    teacher:
      model: big-model-2
      endpoint: https://api.example.com/v1
      api_key_env: EXAMPLE_API_KEY
      requests_per_minute: 500
      prompt_price: 0.5

The engine itself is `fdd_ray.engines.openai`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from fdd_ray.engines.base import EngineSettings

# What only an engine of our own can follow; an endpoint decides these for itself.
_OWN_ENGINE = (
    "engine",
    "revision",
    "trust_remote_code",
    "gpus_per_replica",
    "tensor_parallel",
    "pipeline_parallel",
    "across_nodes",
    "quantization",
    "adapter",
    "threads",
    "dtype",
    "max_model_len",
    "kv_cache_mib",
    "gpu_memory_share",
    "enforce_eager",
    "in_process",
    "engine_args",
)
_ENDPOINT_ONLY = ("requests_per_minute", "tokens_per_minute", "answers_as")


def check_endpoint_settings(settings: EngineSettings) -> None:
    """See that what is said of an endpoint, or of having none, fits together.

    Raises:
        ValueError: With what does not. The endpoint and the key's name are not repeated in it: a URL can
            carry a password, and what should be a name can be a key.
    """
    changed = {f.name for f in dataclasses.fields(settings) if _default(f) != getattr(settings, f.name)}
    if settings.endpoint is None:
        useless = [name for name in _ENDPOINT_ONLY if name in changed]
        if useless:
            raise ValueError(f"{', '.join(useless)}: of use with an endpoint only; name it in endpoint")
        return
    useless = [name for name in _OWN_ENGINE if name in changed]
    if useless:
        raise ValueError(
            f"{', '.join(useless)}: an endpoint decides this for itself; leave it out, or leave out endpoint"
        )
    _check_url(settings.endpoint)
    name = settings.api_key_env
    if name is not None and (not re.fullmatch(r"[A-Z][A-Z0-9_]*", name) or (len(name) >= 20 and "_" not in name)):
        raise ValueError(
            "api_key_env is the name of an environment variable, in capitals, such as OPENAI_API_KEY, and what is"
            " given is none; if it is the key itself, take it out of the experiment and have it replaced"
        )


def _check_url(endpoint: str) -> None:
    try:
        url = urlsplit(endpoint)
        whole = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        whole = False
    if not whole or re.search(r"\s", endpoint):
        raise ValueError("endpoint is not a URL; give one such as https://api.example.com/v1")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise ValueError(
            "endpoint carries a password, a ? or a #; give the plain base URL, and the key through api_key_env"
        )
    if url.path.rstrip("/").endswith("/completions"):
        raise ValueError("endpoint is the base URL; leave out /chat/completions")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
