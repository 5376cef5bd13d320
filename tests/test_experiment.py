from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import Experiment, load_experiment
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.settings import parse_settings, to_plain

JOBS = sorted((Path(__file__).parents[1] / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_job_is_a_valid_experiment(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    again = parse_settings(Experiment, yaml.safe_dump(to_plain(experiment)), "resolved")
    assert again == experiment


def test_the_jobs_are_there() -> None:
    assert {"tiny", "gsm8k_smollm2_360m", "gsm8k_qwen2.5_0.5b"} <= {path.stem for path in JOBS}


def test_the_demo_is_the_tiny_job() -> None:
    assert load_experiment(TINY_EXPERIMENT) == load_experiment(next(path for path in JOBS if path.stem == "tiny"))


@pytest.mark.parametrize("path", [path for path in JOBS if "tiny" not in path.stem], ids=lambda path: path.stem)
def test_jobs_for_a_node_fit_its_eight_gpus(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.teacher is not None
    gpus = sum(e.replicas[1] * e.tensor_parallel for e in (experiment.teacher, experiment.student))
    assert gpus <= 8
    assert experiment.finetune.workers[1] <= experiment.student.replicas[1] * experiment.student.tensor_parallel


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["name=../x"], "name is '../x'"),
        (["finetune.epochz=3"], "did you mean finetune.epochs?"),
        (["teacher.model=tiny://teechr"], "tiny://teacher"),
        (["student.model=./nowhere"], "no such folder"),
        (["prompts=tinny"], "no prompt set"),
        (["teacher="], "teacher is missing"),
        (["rationales=from_dataset"], "set kind: chain"),
        (["pool=[]"], "pool is empty"),
        (["benchmarks={pool: {format: tiny, split: test}}"], "cannot be called that"),
        (["benchmarks={a/b: {format: tiny, split: test}}"], "cannot be called that"),
        (["pool.format=gsm8j"], "did you mean gsm8k?"),
        (["teach.samples=3"], "all the same"),
        (["teacher.replicas=[2, 1]"], "the smaller number comes first"),
    ],
)
def test_mistakes_are_found_before_anything_starts(overrides: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(TINY_EXPERIMENT, overrides)
    assert message in str(caught.value)


def test_no_teacher_is_needed_where_it_would_have_nothing_to_do() -> None:
    experiment = load_experiment(TINY_EXPERIMENT, ["teacher=", "rationales=from_dataset", "kind=chain", "rounds=0"])
    assert experiment.teacher is None


def test_run_directories_lie_under_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_experiment(TINY_EXPERIMENT).directory == str(tmp_path / "runs" / "tiny")
    assert load_experiment(TINY_EXPERIMENT, ["storage=s3://bucket/a/"]).directory == "s3://bucket/a/tiny"


@pytest.mark.parametrize("key", ["student.adapter=/tmp", "student.chat_template_kwargs={enable_thinking: false}"])
def test_a_student_is_asked_as_it_is_trained(key: str) -> None:
    with pytest.raises(ExperimentError, match=key.partition("=")[0].replace(".", r"\.")):
        load_experiment(TINY_EXPERIMENT, [key])
