"""Comparisons: arms over seeds share what they have in common, and the table says what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.cli import main
from fdd_ray.comparison import policy_arms, run_comparison, with_overrides
from fdd_ray.errors import ExperimentError, StoreError
from fdd_ray.launch import TINY_EXPERIMENT
from fdd_ray.report.comparison import (
    ArmRun,
    Comparison,
    comparison_table,
    read_comparison,
    summarise,
    write_plot,
)
from fdd_ray.report.status import read_status
from fdd_ray.store.ledger import read_ledger

SMALL = [
    "rounds=1", "pool.size=60", "feedback.new_problems=30", "feedback.ask_share=2.5", "teacher.replicas=1",
    "benchmarks.in_distribution.size=40", "benchmarks.out_of_distribution.size=20", "finetune.epochs=2",
]  # fmt: skip


def _run(arm: str, seed: int, last: float, *, first: float = 20.0, examples: int = 90) -> ArmRun:
    return ArmRun(arm, seed, {"bench": (5.0, first, last)}, examples, 3000, 0.5)


def test_differences_are_taken_seed_by_seed() -> None:
    # Seeds differ a lot, the arms by two points on each: the interval of the difference is narrow.
    runs = [_run("fdd", seed, 40.0 + 10 * seed) for seed in range(3)]
    runs += [_run("random", seed, 38.0 + 10 * seed) for seed in range(3)]
    fdd, other = summarise(Comparison("x", ("fdd", "random"), tuple(runs), ()))
    assert fdd.difference is None and other.difference is not None
    assert other.difference.mean == pytest.approx(-2)
    assert other.difference.low == pytest.approx(-2) == other.difference.high
    assert fdd.last.low is not None and fdd.last.low < 30
    assert fdd.gain.mean == pytest.approx(30)
    # 3 x 3000 tokens for 3 x 30 points, 3 x 0.5 hours for the same.
    assert fdd.tokens_per_point == pytest.approx(100)
    assert fdd.hours_per_point == pytest.approx(1.5 / 90)


def test_the_table_says_what_must_be_known() -> None:
    runs = (_run("fdd", 0, 40.0), _run("random", 0, 15.0, examples=88))
    text = comparison_table(Comparison("x", ("fdd", "random"), runs, ("random-seed1",)))
    assert "none gained" in text and "-25.0" in text
    assert "NOT OF EQUAL SIZE: the distillation sets have 88 to 90 rows." in text
    assert "not finished: random-seed1" in text
    equal = comparison_table(Comparison("x", ("fdd",), runs[:1], ()), markdown=True)
    assert "NOT OF EQUAL" not in equal and equal.startswith("| benchmark |")


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    runs = tuple(_run(arm, seed, 40.0 + seed) for arm in ("fdd", "random") for seed in range(2))
    written = write_plot(Comparison(str(tmp_path), ("fdd", "random"), runs, ()))
    assert [Path(path).suffix for path in written] == [".png", ".svg"]
    assert Path(written[0]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "fdd"], "two arms or more"),
        (["--policies", "fdd", "best"], "no such policy"),
        (["--policies", "fdd", "--arm", "long"], "give a name, then settings"),
        (["--policies", "fdd", "--arm", "a/b", "finetune.epochs=9"], "cannot be called 'a/b'"),
        (["--policies", "fdd", "--arm", "long", "finetune.epoch=9"], "finetune.epochs"),
        (["--seeds", "1", "1"], "each once"),
    ],
)
def test_what_is_wrong_is_said_before_any_run(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(TINY_EXPERIMENT), "--set", f"storage={tmp_path}", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_comparison_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no comparison"):
        read_comparison(str(tmp_path))


@pytest.fixture(scope="module")
def compared(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A finished comparison of three policies with one seed, and its overrides."""
    overrides = [*SMALL, f"storage={tmp_path_factory.mktemp('compared')}"]
    arms = policy_arms(["fdd", "random", "more_rationales"])
    return run_comparison(TINY_EXPERIMENT, arms, [0], overrides), overrides


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_arms_are_of_equal_size_and_share_the_initialisation(
    compared: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, overrides = compared
    found = read_comparison(folder)
    assert not found.missing and [run.arm for run in found.runs] == ["fdd", "random", "more_rationales"]
    assert len({run.examples for run in found.runs}) == 1
    firsts = {run.accuracy["in_distribution"][:2] for run in found.runs}
    assert len(firsts) == 1
    for arm in ("random", "more_rationales"):
        ledger = read_ledger(f"{folder}/{arm}-seed0")
        copied = [event for event in ledger if "forked_from" in json.dumps(event) or "copied" in json.dumps(event)]
        assert len(copied) >= 5, "problems, base score, rationales, fine-tuning and score of round 0"
        # A copied stage was paid for in the first arm's run; this one paid for its round alone.
        paid = read_status(f"{folder}/{arm}-seed0")["spent"]["seconds"]["stage"]
        assert paid < sum(stage["seconds"] for stage in read_status(f"{folder}/{arm}-seed0")["stages"])
    assert main(["compare", folder, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["table"]) == 6
    # Other settings under the name of an arm that was run are refused.
    with pytest.raises(ExperimentError, match="with other settings"):
        run_comparison(
            TINY_EXPERIMENT, [*policy_arms(["fdd"]), with_overrides(["random", "finetune.epochs=3"])], [0], overrides
        )


@pytest.mark.cluster
@pytest.mark.slow
def test_policies_do_what_they_say(compared: tuple[str, list[str]]) -> None:
    folder, _ = compared

    def summary(arm: str, stage: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(Path(folder, f"{arm}-seed0/round-01/{stage}/manifest.json").read_text())
        return dict(manifest["summary"])

    assert set(summary("more_rationales", "split")["asked"]) == {"seed"}
    assert summary("more_rationales", "finetune")["origins"]["seed"] > 60
    assert set(summary("random", "split")["parents"]) == {"any, complex", "any, similar"}
    assert summary("fdd", "curate")["kept"]["complex"] + summary("fdd", "curate")["kept"]["similar"] == 30
