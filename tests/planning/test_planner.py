"""Plans against what a run really took, what the run's own stages change, and what costs are made of."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from fdd_ray.errors import ProblemsError, StoreError
from fdd_ray.experiment import Experiment, load_experiment
from fdd_ray.launch import TINY_EXPERIMENT, run_experiment
from fdd_ray.planning import Options, Plan, Range, make_plan
from fdd_ray.store.manifest import find_stages
from fdd_ray.store.spent import spent

from .recorded import STAGES, lay_out, rounds_after, tokens, trained

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def tiny(tmp_path: Path) -> Experiment:
    return load_experiment(TINY_EXPERIMENT, [f"storage={tmp_path}"])


def within(estimate: Range, actual: float, factor: float) -> bool:
    """Whether the likely value is within a factor of the actual one, which lies inside the range."""
    return actual / factor <= estimate.likely <= actual * factor and estimate.low <= actual <= estimate.high


def test_before_anything_tokens_are_within_a_factor_of_three(tiny: Experiment) -> None:
    left = make_plan(tiny).remaining
    assert within(left.teacher_tokens, tokens(STAGES, "teacher"), 3)
    assert within(left.student_tokens, tokens(STAGES, "student"), 3)
    assert within(left.trained, trained(STAGES), 3)


def test_after_round_0_the_rest_is_within_a_factor_of_one_and_a_half(tiny: Experiment) -> None:
    rest = rounds_after(0)
    lay_out(tiny, [stage for stage in STAGES if stage not in rest])
    left = make_plan(tiny).remaining
    assert within(left.teacher_tokens, tokens(rest, "teacher"), 1.5)
    assert within(left.student_tokens, tokens(rest, "student"), 1.5)
    assert within(left.trained, trained(rest), 1.5)
    assert within(left.seconds, sum(stage["seconds"] for stage in rest), 2)


def test_each_round_makes_the_rest_better_known(tiny: Experiment) -> None:
    spans = []
    for last in (-1, 0, 1):
        rest = rounds_after(last) if last >= 0 else STAGES
        experiment = dataclasses.replace(tiny, name=f"after{last}")
        lay_out(experiment, [stage for stage in STAGES if stage not in rest])
        found = make_plan(experiment).stages[-1].student.completion
        spans.append(found.high / found.low)
    assert spans[0] > spans[1] >= spans[2]


def test_a_finished_run_has_nothing_left_and_costs_what_it_did(tiny: Experiment) -> None:
    lay_out(tiny, STAGES)
    plan = make_plan(tiny)
    assert [stage.state for stage in plan.stages] == ["done"] * 20
    assert plan.remaining.seconds == Range(0, 0, 0)
    assert sum(stage.teacher_tokens.likely for stage in plan.stages) == tokens(STAGES, "teacher")
    assert plan.spent == spent(tiny.directory)


def test_the_order_is_that_of_the_loop(tiny: Experiment) -> None:
    recorded = [(stage["stage"], stage["round"]) for stage in STAGES]
    assert [(stage.stage, stage.round) for stage in make_plan(tiny).stages] == recorded


def test_rows_that_are_written_are_not_paid_for_again(tiny: Experiment) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory = lay_out(tiny, [stage for stage in STAGES if stage["round"] in (None, 0)])
    whole = next(stage for stage in make_plan(tiny).stages if stage.stage == "synthesise")
    folder = directory / "round-01" / "synthesise"
    folder.mkdir(parents=True)
    (folder / "started.json").write_text(json.dumps({"depends_on": {}, "begun": 99.0}))
    columns = {"prompt_tokens": [1] * 243, "completion_tokens": [1] * 243}
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    rest = next(stage for stage in make_plan(tiny).stages if stage.stage == "synthesise")
    assert (rest.state, rest.rows_written, rest.rows.likely) == ("unfinished", 243, 405)
    assert rest.teacher.completion.likely == pytest.approx(whole.teacher.completion.likely * 0.4)


def test_majority_and_samples_are_counted(tiny: Experiment) -> None:
    def completions(*overrides: str) -> tuple[float, float]:
        plan = make_plan(load_experiment(TINY_EXPERIMENT, [f"storage={tiny.storage}", *overrides]))
        return plan.remaining.teacher_completion.likely, sum(s.student.completion.likely for s in plan.stages)

    teacher, student = completions()
    more = completions("teach.samples=4", "teach.temperature=0.7")[0]
    assert more == pytest.approx(teacher + 3 * make_plan(tiny).stages[2].teacher.completion.likely)
    assert completions("score.majority=8")[1] > 4 * student
    assert completions("synthesise.second_solutions=3")[0] > 1.5 * teacher


def test_more_rationales_neither_write_problems_nor_make_the_pool_larger(tiny: Experiment) -> None:
    feedback = dataclasses.replace(tiny.feedback, policy="more_rationales")
    plan = make_plan(dataclasses.replace(tiny, feedback=feedback))
    fdd = make_plan(tiny)
    assert plan.stages[-1].rows.likely == plan.stages[4].rows.likely < fdd.stages[-1].rows.likely
    assert plan.remaining.teacher_prompt.likely < fdd.remaining.teacher_prompt.likely


def test_two_kinds_of_rationales_cost_both(tiny: Experiment) -> None:
    storage, second = f"storage={tiny.storage}", "synthesise.second_solutions=3"
    one = make_plan(load_experiment(TINY_EXPERIMENT, [storage, second]))
    both = make_plan(load_experiment(TINY_EXPERIMENT, [storage, second, "mix.both_kinds=true"]))
    assert both.stages[2].teacher.completion.likely > 1.8 * one.stages[2].teacher.completion.likely
    assert both.remaining.trained.likely > 1.5 * one.remaining.trained.likely


def test_the_students_own_rationales_are_trained_on_from_round_1_on(tiny: Experiment) -> None:
    storage = f"storage={tiny.storage}"
    plain = make_plan(load_experiment(TINY_EXPERIMENT, [storage]))
    own = make_plan(load_experiment(TINY_EXPERIMENT, [storage, "mix.own_rationales=2", "mix.own_share=0.5"]))
    first, later = ([stage for stage in plan.stages if stage.stage == "finetune"] for plan in (plain, own))
    assert later[0].rows == first[0].rows
    assert later[3].rows.high == pytest.approx(2 * first[3].rows.high) and later[3].rows.low == first[3].rows.low


def test_no_teacher_costs_nothing(tiny: Experiment) -> None:
    plan = make_plan(dataclasses.replace(tiny, teacher=None, rationales="from_dataset", kind="chain", rounds=0))
    assert plan.remaining.teacher_tokens == Range(0, 0, 0)
    assert len(plan.stages) == 5 and plan.remaining.trained.likely > 0


# -- time and money ---------------------------------------------------------------------------------


def gsm8k(tmp_path: Path, *overrides: str, options: Options | None = None, job: str = "qwen2.5_0.5b") -> Plan:
    experiment = load_experiment(JOBS / f"gsm8k_{job}.yaml", [f"storage={tmp_path}", *overrides])
    return make_plan(experiment, options)


def test_given_speeds_give_the_time(tmp_path: Path) -> None:
    options = Options(teacher_tokens_per_second=1000, training_tokens_per_second=20000)
    plan = gsm8k(tmp_path, "teacher.replicas=5", "finetune.workers=2", options=options)
    rationales, finetune = plan.stages[2], plan.stages[3]
    assert rationales.seconds.likely == pytest.approx(rationales.teacher.completion.likely / 5000, rel=0.5, abs=100)
    assert finetune.seconds.likely == pytest.approx(finetune.trained.likely / 40000 + 90)


def test_given_speeds_win_over_those_of_the_run(tiny: Experiment) -> None:
    lay_out(tiny, [stage for stage in STAGES if stage["round"] in (None, 0)])
    slow = make_plan(tiny, Options(teacher_tokens_per_second=1)).stages[6]
    assert slow.stage == "synthesise"
    assert slow.seconds.likely > slow.teacher.completion.likely / 2 > 10 * make_plan(tiny).stages[6].seconds.likely


def test_faster_devices_and_smaller_models_take_less(tmp_path: Path) -> None:
    hours = [
        gsm8k(tmp_path, options=Options(device=name)).remaining.gpu_seconds.likely for name in ("l4", "a100", "h100")
    ]
    assert hours[0] > hours[1] > hours[2]
    assert gsm8k(tmp_path, job="llama3.2_1b_72b").remaining.gpu_seconds.likely > 2 * hours[1]


def test_money_is_tokens_and_reserved_machines(tmp_path: Path) -> None:
    tokens_only = gsm8k(
        tmp_path, "teacher.prompt_price=2", "teacher.completion_price=10", job="qwen2.5_0.5b_api"
    ).remaining
    expected = tokens_only.teacher_prompt * 2e-6 + tokens_only.teacher_completion * 1e-5
    assert tokens_only.money.likely == pytest.approx(expected.likely)
    assert tokens_only.money.high == pytest.approx(expected.high)
    machines = gsm8k(tmp_path, "prices.gpu_hour=3").remaining
    assert machines.money.likely == pytest.approx(3 * machines.gpu_seconds.likely / 3600)


def test_an_api_teacher_takes_no_gpu_and_waits_for_its_rate(tmp_path: Path) -> None:
    fast = gsm8k(tmp_path, job="qwen2.5_0.5b_api").stages[2]
    slow = gsm8k(tmp_path, "teacher.requests_per_minute=60", job="qwen2.5_0.5b_api").stages[2]
    assert fast.gpu_seconds.low == 0
    assert slow.seconds.low >= 7473 * 60 / 60 > fast.seconds.high
    by_tokens = gsm8k(tmp_path, "teacher.tokens_per_minute=60000", job="qwen2.5_0.5b_api").stages[2]
    assert by_tokens.seconds.likely == pytest.approx(by_tokens.teacher_tokens.likely / 1000)


def test_a_seed_pool_on_disk_is_counted_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    rows = [
        {"question": f"Ann has {n} apples and buys {n + 1} more. How many?", "answer": str(2 * n + 1)}
        for n in range(77)
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"question": "?"}]))
    pool = f"pool=[{{format: jsonl, path: {path}}}]"
    assert gsm8k(tmp_path, pool).stages[2].rows == Range(77, 77, 77)
    with pytest.raises(ProblemsError, match="pool: there is no file"):
        gsm8k(tmp_path, "pool=[{format: jsonl, path: /none/pool.jsonl}]")
    given = gsm8k(tmp_path, "pool=[{format: jsonl, path: /none/pool.jsonl}]", options=Options(sizes={"pool": 5}))
    assert given.stages[2].rows.likely == 5


def test_large_files_are_counted_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    line = json.dumps({"question": "Ann has %09d apples and buys 1 more. How many has she now?", "answer": "1"}) + "\n"
    with path.open("w") as file:
        for n in range(300_000):
            file.write(line % n)
    began = time.monotonic()
    rows = gsm8k(tmp_path, f"pool=[{{format: jsonl, path: {path}}}]").stages[2].rows
    assert time.monotonic() - began < 8
    assert rows.low <= 300_000 <= rows.high < 400_000


def test_a_torn_manifest_is_told(tiny: Experiment) -> None:
    directory = lay_out(tiny, STAGES)
    (directory / "round-01" / "score" / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="manifest"):
        make_plan(tiny)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_a_real_run_takes_what_was_planned(ray_local: None, tmp_path: Path) -> None:
    small = ["rounds=1", "pool.size=120", "feedback.new_problems=80", "teacher.replicas=1"]
    small += ["benchmarks.in_distribution.size=60", "benchmarks.out_of_distribution.size=30"]
    experiment = load_experiment(TINY_EXPERIMENT, [*small, f"storage={tmp_path}"])
    before = make_plan(experiment).remaining
    directory = run_experiment(TINY_EXPERIMENT, [*small, f"storage={tmp_path}"])
    took = make_plan(experiment)
    assert {item.stage for item in find_stages(directory)} == {stage.stage for stage in took.stages}
    assert all(stage.state == "done" for stage in took.stages)
    spent_tokens = spent(directory).tokens
    teacher, student = (sum(spent_tokens[f"tiny://{role}"].values()) for role in ("teacher", "student"))
    assert within(before.teacher_tokens, teacher, 3) and within(before.student_tokens, student, 3)
    print(f"planned / taken: teacher {before.teacher_tokens.likely / teacher:.2f},"
          f" student {before.student_tokens.likely / student:.2f}")  # fmt: skip
