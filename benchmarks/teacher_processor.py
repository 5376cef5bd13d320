"""One side of `teacher_stage`: the same rows through the vLLM processor of `ray.data.llm`.

It is run in two forms. With its own stages, as its documentation shows it: a chat template, tokenizer, engine and
detokenizer stage, each with actors of its own. And lean, the fastest form that was found: chats become tokens in the
function before the engine, and vLLM's own text is taken, so that the engine's are the only actors.

The processor gives back one completion of a request (the first, whatever ``n`` says), so a row is repeated for each
sample, with the seed that vLLM would give that sample. The functions of the stages that check and select what the
teacher wrote are the same as fdd_ray's, so that both sides have the same rows in the end.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.teacher_ratios import RATIONALES, Pass, digest
from benchmarks.teacher_sides import environment_of
from benchmarks.teacher_work import (
    make_requests,
    one_of,
    plain_arguments,
    prompts_of,
    question_sampling,
    rationale_sampling,
    solution_sampling,
    teacher_of,
    vllm_sampling,
)
from fdd_ray.curation.questions import check_question, check_variation
from fdd_ray.experiment import Experiment
from fdd_ray.prompts import prepare_tokenizer, read_new_problem, render_prompt
from fdd_ray.reasoning import RIGHT
from fdd_ray.reasoning.programs import ProgramLimits, ProgramRunner
from fdd_ray.reasoning.rationales import check_rationale
from fdd_ray.records import Problem
from fdd_ray.store import files

STAGES, LEAN = "ray.data.llm", "ray.data.llm, lean"
_BATCH_ROWS = 64
_FEWEST_BATCHES = 8  # at once, in an engine; the processor's own default
# So that all of its actors and tasks find room beside the engine also where there are two CPUs.
_SMALL = {"num_cpus": 0.1}


def whole(experiment: Experiment, side: str, part: str, pool: Sequence[Problem], turn: int) -> Pass:
    """A whole stage, from nothing to its rows on disk. Ray must be initialised.

    Args:
        experiment: The settings.
        side: Which form of the processor.
        part: Which stage.
        pool: The problems that it is about.
        turn: The turn.
    """
    import ray

    output = files.join(experiment.directory, f"{part}-rows")
    # Where the clock of the tasks that take its replies is another node's, the start is known as well as clocks agree.
    begun, began_at = time.monotonic(), time.time()
    if part == RATIONALES:
        rows = [
            {"id": row.id, "question": row.question, "gold": row.answer, "sample": sample}
            for row in pool
            for sample in range(experiment.teach.samples)
        ]
        asked = _solve(experiment, side, RATIONALES, _dataset(rows))
    else:
        rows = [{"id": row.id, "origin": row.origin, "parent": row.parent_question} for row in make_requests(pool)]
        written = _write(experiment, side, _dataset(rows)).materialize()
        accepted = written.flat_map(functools.partial(_repeat, experiment), **_SMALL)
        asked = _solve(experiment, side, part, accepted)
    asked.write_parquet(output, ray_remote_args=_SMALL)
    seconds = time.monotonic() - begun

    solved = ray.data.read_parquet(output, ray_remote_args=_SMALL).to_pandas()
    answers = {f"{row.id}/{row.sample}": digest(row.text) for row in solved.itertuples()}
    prompt_tokens = int(solved[solved["sample"] == 0]["prompt_tokens"].sum())
    completion_tokens, first = int(solved["completion_tokens"].sum()), float(solved["at"].min())
    if part == RATIONALES:
        kept = int((solved["verdict"] == RIGHT).groupby(solved["id"]).any().sum())
    else:
        new = written.to_pandas()
        answers |= {row.id: digest(row.question) for row in new.itertuples() if not row.reason}
        prompt_tokens += int(new["prompt_tokens"].sum())
        completion_tokens += int(new["completion_tokens"].sum())
        first, kept = float(new["at"].min()), int((new["reason"] == "").sum())
    return Pass(
        side,
        turn,
        seconds,
        len(pool),
        prompt_tokens,
        completion_tokens,
        kept=kept,
        start_s=first - began_at,
        answers=answers,
    )


def _dataset(rows: Sequence[dict[str, Any]]) -> Any:
    import ray

    return ray.data.from_items(list(rows), override_num_blocks=math.ceil(len(rows) / _BATCH_ROWS))


def _write(experiment: Experiment, side: str, dataset: Any) -> Any:
    """The first pass: new problems, each with the reason why it is not to be solved, if there is one."""
    return _through(
        experiment, side, dataset, functools.partial(_ask_question, experiment), functools.partial(_read, experiment)
    )


def _solve(experiment: Experiment, side: str, part: str, dataset: Any) -> Any:
    """Solutions, each with its verdict: the only pass of one stage, and the second of the other."""
    return _through(
        experiment,
        side,
        dataset,
        functools.partial(_ask_solution, experiment, part),
        functools.partial(_check, experiment, part),
    )


def _through(experiment: Experiment, side: str, dataset: Any, before: Any, after: Any) -> Any:
    """``dataset`` through a processor of its own, with the same engines as fdd_ray's."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    settings = teacher_of(experiment)
    replicas = settings.replicas[1]
    arguments = plain_arguments(settings)
    model = arguments.pop("model")
    own_stage = {"enabled": side == STAGES, "concurrency": replicas, **_SMALL}
    gpus = {"GPU": 1} if settings.gpus_per_replica else {}
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=arguments,
        concurrency=(replicas, replicas),
        batch_size=_BATCH_ROWS,
        max_concurrent_batches=max(_FEWEST_BATCHES, math.ceil(2 * settings.max_num_seqs / _BATCH_ROWS)),
        runtime_env={"env_vars": environment_of(settings)},
        # Without a word on GPUs it asks for one, and waits for ever where there is none.
        placement_group_config={"bundle_per_worker": {"CPU": settings.cpus / settings.model_parallel, **gpus}},
        chat_template_stage=own_stage,
        tokenize_stage=own_stage,
        detokenize_stage=own_stage,
        log_engine_metrics=False,
    )
    rendered = functools.partial(_rendered, model, before) if side == LEAN else before
    few = {**_SMALL, "concurrency": replicas}
    processor = build_processor(
        config, preprocess=rendered, postprocess=after, preprocess_map_kwargs=few, postprocess_map_kwargs=few
    )
    return processor(dataset)


def _rendered(model: str, before: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What ``before`` makes of a row, with the chat as tokens."""
    asked = before(row)
    return {**asked, "tokenized_prompt": render_prompt(_tokenizer(model), asked.pop("messages"))}


@functools.lru_cache(maxsize=1)
def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return prepare_tokenizer(AutoTokenizer.from_pretrained(model))


@functools.lru_cache(maxsize=1)
def _runner(limits: ProgramLimits) -> ProgramRunner:
    return ProgramRunner(limits)


def _ask_question(experiment: Experiment, row: dict[str, Any]) -> dict[str, Any]:
    sampling = vllm_sampling(teacher_of(experiment), question_sampling(experiment, row["id"]))
    messages = prompts_of(experiment.prompts).vary(row["origin"], row["parent"])
    return {**row, "messages": messages, "sampling_params": sampling}


def _read(experiment: Experiment, row: dict[str, Any]) -> dict[str, Any]:
    """The new problem in a reply, and why it is not worth solving: what `fdd_ray.stages.synthesise` does."""
    settings, text = experiment.synthesise, row["generated_text"]
    question = read_new_problem(text)
    reason: str | None
    if row["num_generated_tokens"] >= settings.max_problem_tokens:
        reason = "problem_truncated"
    elif question is None:
        reason = "no_problem"
    else:
        reason = check_question(question, settings.questions)
        reason = reason or check_variation(question, row["parent"], row["origin"], settings.questions)
    return {"id": row["id"], "question": question or "", "reason": reason or "", **_account(row)}


def _repeat(experiment: Experiment, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An accepted problem as many times as it is to be solved."""
    if not row["reason"]:
        for sample in range(experiment.synthesise.solutions):
            yield {"id": row["id"], "question": row["question"], "gold": "", "sample": sample}


def _ask_solution(experiment: Experiment, part: str, row: dict[str, Any]) -> dict[str, Any]:
    draw = rationale_sampling if part == RATIONALES else solution_sampling
    sampling = one_of(vllm_sampling(teacher_of(experiment), draw(experiment, row["id"])), int(row["sample"]))
    messages = prompts_of(experiment.prompts).solve(experiment.kind, row["question"])
    return {**row, "messages": messages, "sampling_params": sampling}


def _check(experiment: Experiment, part: str, row: dict[str, Any]) -> dict[str, Any]:
    """A solution with its verdict: what `fdd_ray.checking` does."""
    longest = experiment.teach.max_tokens if part == RATIONALES else experiment.synthesise.max_solution_tokens
    text, answer, verdict, rationale = row["generated_text"], None, "truncated", ""
    if row["num_generated_tokens"] < longest:
        checked = check_rationale(
            experiment.kind,
            text,
            row["gold"] or None,
            _runner(experiment.check.programs),
            experiment.check.tolerance,
        )
        answer, verdict, rationale = checked.answer, checked.verdict, checked.rationale
    found = {"text": text, "answer": answer or "", "verdict": verdict, "rationale": rationale}
    return {"id": row["id"], "sample": int(row["sample"]), **found, **_account(row)}


def _account(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt_tokens": int(row["num_input_tokens"]),
        "completion_tokens": int(row["num_generated_tokens"]),
        "at": time.time(),
    }
