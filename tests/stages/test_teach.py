from __future__ import annotations

from pathlib import Path

import pytest

from fdd_ray.checking import Asking, CheckSettings
from fdd_ray.engines.base import Sample, Sampling
from fdd_ray.errors import StageError
from fdd_ray.prompts import load_prompts
from fdd_ray.records import Kind, Problem, Taught, from_table, schema_of, to_table
from fdd_ray.stages.teach import TeachRow, TeachSettings, require_enough, take_solutions
from fdd_ray.store import files
from fdd_ray.store.run import Counts, Manifest, Run
from tests.scripted import ScriptedAsker

PROBLEM = Problem.new("Ann has 3 apples and buys 4. How many?", "7")


def _row(asker: ScriptedAsker, kind: Kind = "program", **settings: object) -> TeachRow:
    asking = Asking(asker, load_prompts("tiny"), CheckSettings(), kind, seed=1)
    row = TeachRow(asking, TeachSettings(**settings))  # type: ignore[arg-type]
    row.open()
    return row


async def test_a_verified_program_is_kept() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["apples = 3\nanswer = apples + 4"])
    taught = await _row(asker)(PROBLEM)
    assert (taught.outcome, taught.reason, taught.rationales) == ("kept", "", ("apples = 3\nanswer = apples + 4",))
    assert taught.id == PROBLEM.id and taught.prompt_tokens > 0 and taught.completion_tokens > 0
    assert PROBLEM.question in asker.asked[0][0]


async def test_a_fenced_program_is_kept_without_its_fence() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["Sure:\n```python\nanswer = 3 + 4\n```\nDone."])
    assert (await _row(asker)(PROBLEM)).rationales == ("answer = 3 + 4",)


async def test_a_chain_is_checked_by_its_last_line() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["3 + 4 = 7 apples.\n#### 7"])
    taught = await _row(asker, "chain")(PROBLEM)
    assert (taught.outcome, taught.kind) == ("kept", "chain")
    assert taught.rationales == ("3 + 4 = 7 apples.\n#### 7",)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ("answer = 3 - 4", "wrong_answer"),
        ("apples = 7", "no_answer"),
        ("answer = open('/etc/passwd').read()", "refused"),
        ("while True: pass", "time_limit"),
        (Sample("answer = 3 +", "length", 90), "truncated"),
    ],
)
async def test_anything_else_is_rejected_with_its_reason(sample: str | Sample, reason: str) -> None:
    taught = await _row(ScriptedAsker(lambda prompt, sampling: [sample]))(PROBLEM)
    assert (taught.outcome, taught.rationales) == ("rejected", ())
    assert taught.reason == reason
    assert taught.completions[0].text == (sample if isinstance(sample, str) else sample.text)


async def test_of_many_samples_the_distinct_right_ones_are_kept() -> None:
    texts = ["answer = 7", "answer = 8", "answer = 7 ", "answer = 3 + 4", "answer = 4 + 3"]
    asker = ScriptedAsker(lambda prompt, sampling: texts[: sampling.n])
    taught = await _row(asker, samples=5, temperature=0.5, keep=2)(PROBLEM)
    assert taught.rationales == ("answer = 7", "answer = 3 + 4")
    assert len(taught.completions) == 5


async def test_the_seed_belongs_to_the_problem() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["answer = 7"])
    row = _row(asker)
    await row(PROBLEM)
    await row(PROBLEM)
    await row(Problem.new("Another one?", "1"))
    seeds = [sampling.seed for _, sampling in asker.asked]
    assert seeds[0] == seeds[1] != seeds[2]


def test_greedy_samples_cannot_differ() -> None:
    with pytest.raises(ValueError, match="all the same"):
        TeachSettings(samples=2)


async def test_the_data_sets_own_solutions_are_checked_too(tmp_path: Path) -> None:
    problems = [
        Problem.new("a", "7", solution="3 + 4 = 7\n#### 7"),
        Problem.new("b", "8", solution="3 + 4 = 7\n#### 7"),
        Problem.new("c", "9"),
    ]
    folder = Run(str(tmp_path)).folder(0, "rationales")
    source = folder.write("problems.parquet", to_table(problems, Problem))
    result = await take_solutions(folder, [source], checks=CheckSettings(), kind="chain")
    assert result.counts == Counts(3, 1, {"no_solution_given": 1, "wrong_answer": 1}, 0)
    rows = from_table(files.read_tables([folder.file("part-0.parquet")], schema_of(Taught)), Taught)
    assert [row.rationales for row in rows] == [("3 + 4 = 7\n#### 7",), (), ()]


def test_too_few_rationales_stop_the_run_with_the_reasons() -> None:
    manifest = Manifest(
        "rationales", 0, "/run", "f", {}, Counts(100, 3, {"wrong": 90, "no_answer": 5}, 2), (), {}, {}, 1
    )
    with pytest.raises(StageError, match=r"only 3 of 100 .* teach\.min_kept = 32 .*wrong 90, no_answer 5; failed: 2"):
        require_enough(manifest, TeachSettings())
    require_enough(manifest, TeachSettings(min_kept=3))


async def test_samplings_carry_the_settings() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["answer = 7"])
    await _row(asker, temperature=0.3, top_p=0.9, max_tokens=33)(PROBLEM)
    seed = asker.asked[0][1].seed
    assert asker.asked[0][1] == Sampling(1, 0.3, 0.9, 33, seed)


async def test_both_kinds_are_asked_for_and_kept_apart() -> None:
    asker = ScriptedAsker(lambda prompt, sampling: ["It is 3.\n#### 3" if "####" in prompt else "answer = 4"])
    asking = Asking(asker, load_prompts("default"), CheckSettings(), "program", seed=1)
    row = TeachRow(asking, TeachSettings(), both_kinds=True)
    row.open()
    taught = await row(Problem.new("Ann has 3 apples. How many?", "3"))
    # The program is wrong, the chain is right: the problem is kept for the chain.
    assert (taught.outcome, taught.reason, taught.kind) == ("kept", "", "program")
    assert (taught.rationales, taught.second) == ((), ("It is 3.\n#### 3",))
    assert [item.verdict for item in taught.completions] == ["wrong_answer"]
    assert [item.verdict for item in taught.second_completions] == ["right"]
    assert len(asker.asked) == 2
