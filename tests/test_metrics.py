"""Prometheus metrics of a run: what a node's agent exports is what the run's status says."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.metrics import METRICS, RunMetrics, _of_ray, of_run
from fdd_ray.store.manifest import Counts, Manifest
from tests.engines.clusters import Node, cluster, in_own_process

DASHBOARD = Path(__file__).parents[1] / "cluster" / "grafana" / "fdd_ray.json"
_LINE = re.compile(r"(?P<name>[a-z_]+)\{(?P<labels>.*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_EXPORTED = {metric.exported: metric for metric in METRICS.values()}
_OUTCOMES = ("kept", "rejected", "failed")
_LABELS = {"stage", "round", "role", "kind", "outcome", "benchmark"}
Samples = dict[str, dict[tuple[str, ...], float]]


def _samples(text: str, run: str) -> Samples:
    """By name: the values of our metrics by the labels that `METRICS` gives them, summed over drivers."""
    found: Samples = defaultdict(lambda: defaultdict(float))
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        metric = _EXPORTED.get(match["name"]) if match else None
        if match is None or metric is None:
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get("run") == run:
            found[metric.name][tuple(labels[label] for label in metric.labels[1:])] += float(match["value"])
    return found


def _scrape(run: str) -> Samples:
    """What Prometheus would be told by this machine's node."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=30) as reply:
        return _samples(reply.read().decode(), run)


def _wait_for(run: str, told: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = _scrape(run)
        if told(found):
            return found
        time.sleep(1)
    raise AssertionError(f"not exported in 90 s; there are {found}")


@pytest.mark.cluster
@pytest.mark.slow
@in_own_process
def test_what_is_exported_is_what_the_status_says() -> None:
    import tempfile

    from fdd_ray.launch import TINY_EXPERIMENT, run_experiment
    from fdd_ray.report.status import read_status

    with tempfile.TemporaryDirectory() as folder, cluster(Node(cpus=3)):
        settings = [
            f"storage={folder}", "name=shown", "rounds=0", "pool.size=40", "teach.min_kept=1",
            "benchmarks={test: {format: tiny, split: test, size: 8, seed: 2}}", "finetune.epochs=1",
            "teacher.prompt_price=2", "teacher.completion_price=10", "prices.cpu_hour=3.6",
        ]  # fmt: skip
        for role in ("teacher", "student"):
            settings += [f"{role}.engine=simulated", f"{role}.kv_cache_mib=null", f"{role}.start_deadline_s=120"]
            settings += [f"{role}.engine_args={{seconds: 0.02}}"]
        directory = run_experiment(TINY_EXPERIMENT, settings)
        shown = _wait_for("shown", lambda found: ("0", "test") in found["fdd_accuracy"] and _no_engine(found))
        status = read_status(directory)

        stages = [(entry, entry["stage"], _place(entry)) for entry in status["stages"]]
        assert {stage for _, stage, _ in stages} == {"problems", "rationales", "finetune", "score"}
        for entry, stage, place in stages:
            counts = entry["counts"]
            role = next(iter(entry["tokens"]), "nobody")
            rows = {outcome: shown["fdd_stage_rows"][stage, place, role, outcome] for outcome in _OUTCOMES}
            assert rows == {
                "kept": counts["kept"], "rejected": sum(counts["rejected"].values()), "failed": counts["failed"],
            }  # fmt: skip
            assert shown["fdd_stage_kept_share"][stage, place] == pytest.approx(counts["kept"] / counts["rows"])
            assert shown["fdd_stage_seconds"][stage, place, role] == entry["seconds"]
            for kind, tokens in entry["tokens"].get(role, {}).items():
                assert shown["fdd_stage_tokens"][stage, place, role, kind] == tokens > 0
        worked = {(stage, place): entry["counts"]["rows"] for entry, stage, place in stages if entry["tokens"]}
        assert shown["fdd_rows"] == worked and len(worked) == 3
        for role, model in (("teacher", "tiny://teacher"), ("student", "tiny://student")):
            for kind, tokens in status["spent"]["tokens"][model].items():
                assert shown["fdd_tokens"][role, kind] == tokens
        teacher = status["spent"]["tokens"]["tiny://teacher"]
        money = (2 * teacher["prompt"] + 10 * teacher["completion"]) / 1e6
        assert shown["fdd_token_money"] == {("teacher",): pytest.approx(money)}
        assert sum(shown["fdd_stage_money"].values()) == pytest.approx(status["spent"]["money"])
        assert status["spent"]["money"] > money
        for place, entry in (("base", status["base"]), ("0", status["rounds"][0])):
            for name, key in (("fdd_accuracy", "value"), ("fdd_accuracy_low", "low"), ("fdd_accuracy_high", "high")):
                assert shown[name][place, "test"] == pytest.approx(entry["accuracy"]["test"][key])
        assert ("base", "pool") not in shown["fdd_accuracy"]
        assert shown["fdd_steps"]["finetune", "0"] > 0 and shown["fdd_loss"]["0",] > 0

        # A driver that finds everything done tells the same of the stages, and counts no row twice.
        again = run_experiment(TINY_EXPERIMENT, settings)
        assert again == directory and _scrape("shown")["fdd_rows"] == worked


def _no_engine(found: Samples) -> bool:
    """Whether the run gave all engines back, which it does last."""
    return found["fdd_engines_placed"] == {("teacher",): 0, ("student",): 0}


def _place(entry: dict[str, Any]) -> str:
    return "base" if entry["round"] is None else str(entry["round"])


def _manifest(stage: str, round: int | None, summary: dict[str, Any], **more: Any) -> Manifest:
    return Manifest(stage, round, "", "", {}, Counts(10, 6, {"wrong": 3}, 1), (), {}, summary, 1.5, **more)


class _Recorded:
    """Stands for Ray's metrics: what each was told last, or in all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = ""
        self.values: dict[tuple[Any, ...], float] = {}
        monkeypatch.setattr("fdd_ray.metrics._session", lambda: self.session)
        monkeypatch.setattr("fdd_ray.metrics._up", lambda: bool(self.session))
        monkeypatch.setattr("fdd_ray.metrics._of_ray", lambda session, name: _Sink(self, session, name))


class _Sink:
    def __init__(self, told: _Recorded, session: str, name: str) -> None:
        self._told, self._key = told, (session, name)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == METRICS[self._key[1]].labels
        self._told.values[(*self._key, *tags.values())] = value

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "Ray refuses anything else"
        key = (*self._key, *tags.values())
        self.set(self._told.values.get(key, 0) + value, tags)


def test_gauges_wait_for_ray_and_are_told_again_to_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _Recorded(monkeypatch)
    metrics = RunMetrics("x")
    metrics.finished(_manifest("split", 2, {"easy": 4, "hard": 2}))
    metrics.spent("teacher", 5, 0, 0.0)
    assert told.values == {}
    for session in ("one", "two"):
        told.session = session
        metrics.spent("teacher", 5, 0, 0.0)
        assert told.values[session, "fdd_easy_share", "x", "2"] == pytest.approx(4 / 6)
        assert told.values[session, "fdd_stage_rows", "x", "split", "2", "nobody", "rejected"] == 3
        assert told.values[session, "fdd_tokens", "x", "teacher", "prompt"] == 5
        assert (session, "fdd_tokens", "x", "teacher", "completion") not in told.values


def test_rows_count_for_the_stage_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _Recorded(monkeypatch)
    told.session = "one"
    metrics = RunMetrics("x")
    metrics.progressed("rows", 3)
    with metrics.stage("score", None):
        metrics.progressed("rows", 4)
        metrics.progressed("rows", 5)
    with metrics.stage("finetune", 1):
        metrics.progressed("steps", 6)
    metrics.progressed("rows", 7)
    assert told.values == {("one", "fdd_rows", "x", "score", "base"): 9, ("one", "fdd_steps", "x", "finetune", "1"): 6}


def test_no_reason_of_a_rejection_and_no_text_becomes_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _Recorded(monkeypatch)
    told.session = "one"
    hostile = "SECRET said the model"
    summary = {"failures": {hostile: 3}, "kept": {hostile: 1}, "duplicates": [hostile]}
    manifest = _manifest("curate", 1, summary)
    RunMetrics("x").finished(Manifest(**{**vars(manifest), "counts": Counts(10, 6, {hostile: 3}, 1)}))
    assert told.values and hostile not in str(told.values)


@in_own_process
def test_without_ray_nothing_happens() -> None:
    _of_ray.cache_clear()
    metrics = of_run("nothing here")
    metrics.finished(_manifest("score", 1, {"accuracy": {}}))
    metrics.spent("teacher", 1, 1, 1.0)
    assert _of_ray.cache_info().currsize == 0
    assert of_run("nothing here") is metrics


def test_names_are_what_prometheus_makes_of_them() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"fdd_[a-z_]+", metric.name) and not metric.name.endswith("_total")
        assert metric.labels[0] == "run" and set(metric.labels[1:]) <= _LABELS


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def _queries() -> list[tuple[str, dict[str, Any]]]:
    """Every query of the dashboard with the panel or variable that it belongs to."""
    board = _dashboard()
    found = [(target["expr"], panel) for panel in board["panels"] for target in panel.get("targets", [])]
    found += [(v["query"]["query"], v) for v in board["templating"]["list"] if v["type"] == "query"]
    assert len(found) > 10
    return found


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    asked = set()
    for expression, panel in _queries():
        names = re.findall(r"\bray_\w+", expression)
        assert names and set(names) <= set(_EXPORTED), f"{panel.get('title')}: {expression}"
        asked |= set(names)
        labels = {label for name in names for label in _EXPORTED[name].labels}
        used = {label for text in re.findall(r"\bby \(([^)]*)\)", expression) for label in text.split(", ")}
        used |= set(re.findall(r'(\w+)(?:=|=~|!=|!~)"', expression))
        used |= {label for target in panel.get("targets", []) if target["expr"] == expression
                 for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}  # fmt: skip
        used |= set(re.findall(r"label_values\(\w+, (\w+)\)", expression))
        assert used <= labels, f"{panel.get('title')}: {used - labels} in {expression}"
    assert asked == set(_EXPORTED), "each metric has its place"


def test_counters_are_asked_for_by_what_is_right_for_counters() -> None:
    for expression, _ in _queries():
        for name in re.findall(r"\bray_fdd_\w+", expression):
            counter = _EXPORTED[name].kind == "counter"
            assert counter == ("rate(" in expression or name == "ray_fdd_token_money_total"), expression


def test_the_dashboard_can_be_provisioned() -> None:
    board = _dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and board["uid"] and board["title"] and board["schemaVersion"]
    assert "id" not in board, "Grafana gives it one, and refuses a foreign one"
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["title"] and panel["description"] and panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    for name in re.findall(r"\$\{?(\w+)", DASHBOARD.read_text(encoding="utf-8")):
        assert name in variables or name in ("__rate_interval", "__range"), name
