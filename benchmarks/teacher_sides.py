"""Two sides of `teacher_stage`: fdd_ray's own stages on its engines, and plain vLLM.

Both put their engines into Ray actors with the same room and the same environment, since that is how a cluster's
GPUs are reached; what they do inside is their own.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.teacher_ratios import OURS, RATIONALES, Pass, digest
from benchmarks.teacher_work import (
    make_requests,
    plain_arguments,
    prompts_of,
    rationale_sampling,
    teacher_of,
    vllm_sampling,
)
from fdd_ray.checking import Asking
from fdd_ray.engines.actor import _end_children
from fdd_ray.engines.base import Asker, EngineSettings, Reply, Sampling
from fdd_ray.engines.fleet import Fleet, _environment
from fdd_ray.experiment import Experiment
from fdd_ray.labels import this_node
from fdd_ray.progress import StageProgress
from fdd_ray.prompts import Message, prepare_tokenizer
from fdd_ray.records import Problem, Request, Taught, Variation, from_table, schema_of, to_table
from fdd_ray.stages import synthesise, teach
from fdd_ray.store import files
from fdd_ray.store.run import Manifest, Run, StageFolder, StageResult

PLAIN = "vllm.LLM.generate"
_CLOSE_S = 10.0


def environment_of(settings: EngineSettings) -> dict[str, str]:
    """The environment of every side's engines: threads, and where vLLM's engine runs."""
    return _environment(settings, bool(settings.gpus_per_replica))


class Clock:
    """An actor on the driver's node that notes when something was first said, in seconds of that node's clock."""

    def __init__(self) -> None:
        self._noted: dict[str, float] = {}

    def note(self, what: str) -> None:
        """It happens now."""
        self._noted.setdefault(what, time.monotonic())

    def take(self) -> dict[str, float]:
        """What was noted since it was last taken."""
        noted, self._noted = self._noted, {}
        return noted


@dataclasses.dataclass
class TimedAsker:
    """Passes questions on, and says when the first was asked and answered in this process."""

    asker: Asker
    clock: Any
    _said: set[str] = dataclasses.field(default_factory=set)

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat."""
        self._say("asked")
        reply = await self.asker.ask(messages, sampling)
        self._say("answered")
        return reply

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self.clock.note.remote(what)


class TimedProgress(StageProgress):
    """Knows when the last block was finished.

    Attributes:
        ended: In seconds of this process's clock.
    """

    ended = 0.0

    def advance(self, count: int, kept: int | None = None) -> None:
        """``count`` more are done, of which ``kept`` were kept."""
        super().advance(count, kept)
        self.ended = time.monotonic()


class OurSide:
    """fdd_ray's engines, and its stages that ask them. Ray must be initialised.

    Args:
        experiment: The settings.
        run: An open run directory.
    """

    name = OURS

    def __init__(self, experiment: Experiment, run: Run) -> None:
        import ray

        self._experiment = experiment
        self._run = run
        self._fleet = Fleet("teacher", teacher_of(experiment), experiment.name)
        actor: Any = ray.remote(Clock)
        self._clock = actor.options(num_cpus=0, label_selector=this_node()).remote()
        self.engines_s = 0.0

    def start(self) -> None:
        """Start the engines and wait until all of them serve."""
        begun = time.monotonic()
        self._fleet.start()
        self._fleet.wait(_say)
        self.engines_s = time.monotonic() - begun

    def stop(self) -> None:
        """Give the engines back."""
        self._fleet.release()

    def steady(self, pool: Sequence[Problem], name: str, turn: int) -> Pass:
        """Rationales for problems by engines that are up: from the first request to the last finished block."""
        begun = time.monotonic()
        manifest, progress = self._teach(pool, name)
        noted = self._noted()
        done = self._pass(RATIONALES, manifest, turn, progress.ended - noted["asked"])
        return dataclasses.replace(done, start_s=noted["asked"] - begun)

    def whole(self, part: str, pool: Sequence[Problem], turn: int) -> Pass:
        """A whole stage, from nothing to its manifest on disk."""
        begun = time.monotonic()
        self.start()
        manifest, _ = self._teach(pool, part) if part == RATIONALES else self._synthesise(pool, part)
        ended = time.monotonic()
        done = self._pass(part, manifest, turn, ended - begun)
        return dataclasses.replace(done, start_s=self._noted()["answered"] - begun)

    def _teach(self, pool: Sequence[Problem], name: str) -> tuple[Manifest, TimedProgress]:
        def work(folder: StageFolder, path: str, progress: TimedProgress) -> StageResult:
            return teach.teach(
                folder,
                [path],
                asking=self._asking(),
                settings=self._experiment.teach,
                flow=self._experiment.flow,
                progress=progress,
            )

        return self._once(name, pool, Problem, work)

    def _synthesise(self, pool: Sequence[Problem], name: str) -> tuple[Manifest, TimedProgress]:
        def work(folder: StageFolder, path: str, progress: TimedProgress) -> StageResult:
            return synthesise.synthesise(
                folder,
                path,
                asking=self._asking(),
                settings=self._experiment.synthesise,
                flow=self._experiment.flow,
                progress=progress,
                benchmarks={},
                contamination=self._experiment.decontaminate,
            )

        return self._once(name, make_requests(pool), Request, work)

    def _once(
        self,
        name: str,
        rows: Sequence[Any],
        row_type: type,
        work: Callable[[StageFolder, str, TimedProgress], StageResult],
    ) -> tuple[Manifest, TimedProgress]:
        path = files.join(self._run.directory, f"{name}.parquet")
        files.write_table(path, to_table(rows, row_type))
        progress = TimedProgress(name)
        manifest = self._run.once(name, 0, {}, lambda folder: work(folder, path, progress))
        return manifest, progress

    def _asking(self) -> Asking:
        asker = TimedAsker(self._fleet.client(), self._clock)
        experiment = self._experiment
        return Asking(asker, prompts_of(experiment.prompts), experiment.check, experiment.kind, experiment.seed)

    def _noted(self) -> dict[str, float]:
        import ray

        noted: dict[str, float] = ray.get(self._clock.take.remote())
        return noted

    def _pass(self, part: str, manifest: Manifest, turn: int, seconds: float) -> Pass:
        tokens, counts = manifest.tokens["teacher"], manifest.counts
        answers = _taught(manifest) if part == RATIONALES else _written(manifest)
        return Pass(
            self.name,
            turn,
            seconds,
            counts.rows,
            tokens["prompt"],
            tokens["completion"],
            kept=counts.kept,
            engines_s=self.engines_s,
            answers=answers,
        )


def _taught(manifest: Manifest) -> dict[str, str]:
    rows = from_table(files.read_tables(manifest.outputs, schema_of(Taught)), Taught)
    return {f"{row.id}/{n}": digest(done.text) for row in rows for n, done in enumerate(row.completions)}


def _written(manifest: Manifest) -> dict[str, str]:
    rows: list[Variation] = from_table(files.read_tables(manifest.outputs, schema_of(Variation)), Variation)
    solutions = {f"{row.id}/{n}": digest(done.text) for row in rows for n, done in enumerate(row.solutions)}
    return solutions | {row.id: digest(row.question) for row in rows if row.outcome == "kept"}


class PlainEngine:
    """An actor with a `vllm.LLM`, as a script would use it.

    Args:
        settings: The teacher's.
    """

    def __init__(self, settings: EngineSettings) -> None:
        from vllm import LLM

        self._llm = LLM(**plain_arguments(settings))
        self._tokenizer = prepare_tokenizer(self._llm.get_tokenizer())

    def ready(self) -> None:
        """Returns once the engine is loaded."""

    def close(self) -> None:
        """End the engine's own processes, which would outlive the actor and keep its GPUs."""
        _end_children()

    def generate(
        self, chats: Sequence[Sequence[Message]], samplings: Sequence[dict[str, Any]]
    ) -> tuple[float, list[tuple[int, list[tuple[str, int]]]]]:
        """Seconds that ``generate`` took, and for each chat its prompt's tokens and each completion with its tokens."""
        from vllm import SamplingParams

        # In plain vLLM the prompts are texts, so what turns chats into them is not timed.
        texts = [
            self._tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
            for chat in chats
        ]
        parameters = [SamplingParams(**sampling) for sampling in samplings]
        begun = time.perf_counter()
        outputs = self._llm.generate(
            texts, parameters, use_tqdm=False, tokenization_kwargs={"add_special_tokens": False}
        )
        seconds = time.perf_counter() - begun
        return seconds, [
            (len(output.prompt_token_ids), [(item.text, len(item.token_ids)) for item in output.outputs])
            for output in outputs
        ]


class PlainSide:
    """As many plain engines, each with its share of the prompts in one call of ``generate``.

    Args:
        experiment: The settings.
    """

    name = PLAIN

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._settings = teacher_of(experiment)
        self._actors: list[Any] = []
        self.engines_s = 0.0

    def start(self) -> None:
        """Start the engines and wait until all of them are loaded."""
        import ray

        begun = time.monotonic()
        actor: Any = ray.remote(PlainEngine).options(
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus_per_replica or 0,
            runtime_env={"env_vars": environment_of(self._settings)},
        )
        self._actors = [actor.remote(self._settings) for _ in range(self._settings.replicas[1])]
        ray.get([engine.ready.remote() for engine in self._actors], timeout=self._settings.start_deadline_s)
        self.engines_s = time.monotonic() - begun

    def stop(self) -> None:
        """End the engines."""
        import ray

        closing = [engine.close.remote() for engine in self._actors]
        ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for engine in self._actors:
            ray.kill(engine)
        self._actors = []

    def steady(self, pool: Sequence[Problem], name: str, turn: int) -> Pass:
        """Rationales for problems; the seconds are those of the engine that took longest, inside ``generate``."""
        import ray

        prompts, kind = prompts_of(self._experiment.prompts), self._experiment.kind
        shares = [pool[n :: len(self._actors)] for n in range(len(self._actors))]
        asked = [
            engine.generate.remote(
                [prompts.solve(kind, row.question) for row in share],
                [vllm_sampling(self._settings, rationale_sampling(self._experiment, row.id)) for row in share],
            )
            for engine, share in zip(self._actors, shares, strict=True)
        ]
        found = ray.get(asked)
        replies = [
            (row.id, *reply)
            for share, (_, replies) in zip(shares, found, strict=True)
            for row, reply in zip(share, replies, strict=True)
        ]
        return Pass(
            self.name,
            turn,
            max(seconds for seconds, _ in found),
            len(pool),
            sum(prompt_tokens for _, prompt_tokens, _ in replies),
            sum(tokens for _, _, samples in replies for _, tokens in samples),
            engines_s=self.engines_s,
            answers={f"{id}/{n}": digest(s[0]) for id, _, samples in replies for n, s in enumerate(samples)},
        )


def steady_passes(experiment: Experiment, run: Run, pool: Sequence[Problem], turns: int) -> list[Pass]:
    """Both sides on warm engines, in turns; each turn has problems of its own, so that no prompt is cached.

    Where the cluster has room for only one side's engines at a time, each side starts and warms them for each turn.

    Args:
        experiment: The settings.
        run: An open run directory.
        pool: Problems of all turns; the first part of them is for warming up.
        turns: How many turns.
    """
    sides: list[OurSide | PlainSide] = [OurSide(experiment, run), PlainSide(experiment)]
    share = len(pool) // (turns + 1)
    parts = [pool[n * share : (n + 1) * share] for n in range(turns + 1)]
    together = _has_room(experiment, len(sides))
    if together:
        for side in sides:
            side.start()
            side.steady(parts[0], "warm-up", 0)
    passes = []
    for turn in range(1, turns + 1):
        for side in sides if turn % 2 else reversed(sides):
            if not together:
                side.start()
                side.steady(parts[0], f"warm-up-{turn}", 0)
            passes.append(side.steady(parts[turn], f"turn-{turn}", turn))
            _say(f"turn {turn}: {side.name}: {passes[-1].tokens_per_s:.1f} tokens/s")
            if not together:
                side.stop()
    for side in sides:
        side.stop()
    return passes


def _has_room(experiment: Experiment, sides: int) -> bool:
    """Whether the nodes that are up have room for the engines of all sides, and for the map actors."""
    import ray

    settings, free = teacher_of(experiment), ray.available_resources()
    engines = sides * settings.replicas[1]
    cpus = engines * settings.cpus + experiment.flow.map_actors[1] * experiment.flow.cpus_per_map_actor
    return cpus <= free.get("CPU", 0.0) and engines * (settings.gpus_per_replica or 0) <= free.get("GPU", 0.0)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
