"""What an experiment may say of an endpoint."""

from __future__ import annotations

from typing import Any

import pytest

from fdd_ray.engines.base import EngineSettings, check_model
from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.settings import parse_settings, to_plain

URL = "https://api.example.com/v1"


@pytest.mark.parametrize("endpoint", [URL, URL + "/", "http://127.0.0.1:8000/v1", "http://[::1]:8000", "https://h"])
def test_sound_endpoints(endpoint: str) -> None:
    settings = EngineSettings(model="any name: really", endpoint=endpoint)
    assert settings.cpus == 0.1 and EngineSettings(model="x").cpus == 1.0
    check_model(settings)  # it is no folder, and need not be


@pytest.mark.parametrize(
    "endpoint", ["", "api.example.com/v1", "ftp://h/v1", "https://", "http://h:99999/v1", "http://h o/v1"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint is not a URL"):
        EngineSettings(model="x", endpoint=endpoint)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("https://user:hunter22@h/v1", "carries a password"),
        ("https://h/v1?key=hunter22", "carries a password"),
        ("https://h/v1#hunter22", "carries a password"),
        ("https://h/v1/chat/completions", "base URL"),
    ],
)
def test_secrets_and_paths_in_an_endpoint_are_refused_and_not_repeated(endpoint: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        EngineSettings(model="x", endpoint=endpoint)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    ["sk-proj-abcdef123456", "gsk_abcdefABCDEF12345", "AKIAIOSFODNN7EXAMPLE", "hf_abcdef", "A KEY", "", "0123456789"],
)
def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated(value: str) -> None:
    text = f"model: m\nendpoint: {URL}\napi_key_env: '{value}'\n"
    with pytest.raises(ExperimentError, match="name of an environment variable") as caught:
        parse_settings(EngineSettings, text)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "KEY", "A_VERY_LONG_NAME_OF_A_VARIABLE_2", None])
def test_names_of_variables(name: str | None) -> None:
    assert EngineSettings(model="x", endpoint=URL, api_key_env=name).api_key_env == name


@pytest.mark.parametrize(
    "own",
    [
        {"tensor_parallel": 2},
        {"gpus_per_replica": 1},
        {"engine_args": {"quantization": "fp8"}},
        {"kv_cache_mib": 10},
        {"max_model_len": 10},
        {"dtype": "float32"},
        {"trust_remote_code": True},
        {"revision": "main"},
        {"engine": "simulated"},
    ],
)
def test_what_only_an_engine_of_our_own_can_follow_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(own))}: an endpoint decides"):
        EngineSettings(model="x", endpoint=URL, **own)


@pytest.mark.parametrize("only", [{"requests_per_minute": 5.0}, {"tokens_per_minute": 5.0}, {"answers_as": "y"}])
def test_what_only_an_endpoint_can_follow_is_refused(only: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of use with an endpoint only"):
        EngineSettings(model="x", **only)


def test_the_teacher_may_be_behind_an_endpoint_and_the_student_may_not() -> None:
    endpoint = [f"teacher.endpoint={URL}", "teacher.model=big-model", "teacher.kv_cache_mib=null"]
    experiment = load_experiment(TINY_EXPERIMENT, endpoint)
    assert experiment.teacher is not None and experiment.teacher.endpoint == URL
    with pytest.raises(ExperimentError, match=r"student\.endpoint: the student's weights change"):
        load_experiment(TINY_EXPERIMENT, [f"student.endpoint={URL}", "student.kv_cache_mib=null"])


def test_costs_are_by_the_million() -> None:
    settings = EngineSettings(model="x", endpoint=URL, prompt_price=0.5, completion_price=2.0)
    assert settings.cost(3_000_000, 500_000) == pytest.approx(2.5)
    assert EngineSettings(model="x").cost(10**9, 10**9) == 0.0


def test_settings_that_are_written_down_hold_the_name_of_the_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-99887766")
    settings = EngineSettings(model="x", endpoint=URL)
    assert "sk-canary" not in repr(settings) + str(to_plain(settings))
    assert to_plain(settings)["api_key_env"] == "OPENAI_API_KEY"
