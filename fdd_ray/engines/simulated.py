"""An engine without a model, for harnesses that need many rows and exact repeatability, not tokens.

It stands in for vLLM where real tokens cannot be afforded: thousands of killed and resumed runs, or a
million rows on one machine. Stages, fleets, map actors and files are the real ones. It knows the tiny
world's grammar: as a teacher it writes the variations that the grammar itself would write and solves them
by their own programs; as a student it solves the share of problems that its weights' ``simulated.json``
names. What it says depends on the weights, the prompt and the seed alone, never on time or order.

    teacher: {model: "tiny://teacher", engine: simulated, engine_args: {right: 0.95, seconds: 0.02}}

``engine_args``: ``right``, the share of solutions that are right (default 0.95 for a model whose name ends
in teacher, 0.3 for any other without a ``simulated.json``); ``seconds``, the mean time of a request, and
``spread``, its relative standard deviation; ``slots``, how many requests it works on at once, as ``max_num_seqs``
is for vLLM (default: all); ``profile``, a JSON file with ``slots`` and recorded ``seconds`` of requests to draw
from, in place of these three; ``stretch``, by which times are multiplied; ``calls``, a folder in which each
process appends a line ``time key`` for every request it was asked, before it answers; ``dies_after``, requests
after which the process ends as a broken engine does; ``poison``, words at which it does so; ``reloads``, false
for an engine that refuses other weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from fdd_ray.engines.base import EngineSettings, Reply, Sample, Sampling
from fdd_ray.errors import EngineError, ExperimentError
from fdd_ray.prompts import Message, load_prompts
from fdd_ray.records import content_id, stable_seed
from fdd_ray.store.fetch import fetch_folder
from fdd_ray.tiny.grammar import Story, sample_cast
from fdd_ray.tiny.parse import parse_story
from fdd_ray.tiny.variations import complexify, similar

_ARGUMENTS: Final = {
    "right",
    "seconds",
    "spread",
    "slots",
    "profile",
    "stretch",
    "calls",
    "dies_after",
    "poison",
    "reloads",
}


class SimulatedEngine:
    """Implements `fdd_ray.engines.vllm.Engine` by rule.

    Args:
        settings: The role's settings; see the module for ``engine_args``.
        weights: Folder or name of the weights to start with.
        on_death: Told when the engine is to end.
    """

    def __init__(
        self, settings: EngineSettings, weights: str, on_death: Callable[[BaseException], None] | None = None
    ) -> None:
        unknown = sorted(set(settings.engine_args) - _ARGUMENTS)
        if unknown:
            raise ExperimentError(
                f"engine_args {', '.join(unknown)}: the simulated engine knows {', '.join(sorted(_ARGUMENTS))}"
            )
        arguments: dict[str, Any] = settings.engine_args
        self._right: float | None = arguments.get("right")
        self._seconds = float(arguments.get("seconds", 0.0))
        self._spread = float(arguments.get("spread", 0.0))
        profile = _read_profile(arguments["profile"]) if "profile" in arguments else {}
        self._recorded: list[float] = profile.get("seconds", [])
        slots = profile.get("slots", arguments.get("slots"))
        self._slots = asyncio.Semaphore(slots) if slots else contextlib.nullcontext()
        self._stretch = float(arguments.get("stretch", 1.0))
        self._dies_after: int | None = arguments.get("dies_after")
        self._poison: str | None = arguments.get("poison")
        self._reloads = bool(arguments.get("reloads", True))
        self._on_death = on_death
        self._asked = 0
        self._calls = Path(arguments["calls"]) if "calls" in arguments else None
        if self._calls is not None:
            self._calls.mkdir(parents=True, exist_ok=True)
        texts = load_prompts("tiny").texts
        self._tasks = {name: text.partition("{question}")[0] for name, text in texts.items()}
        self._use(weights)

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> Reply:
        """Completions for one chat; tokens are counted as words."""
        prompt = messages[-1]["content"]
        self._asked += 1
        if self._calls is not None:
            line = f"{time.time():.6f} {call_key(self._weights, prompt, sampling.seed)}\n"
            with (self._calls / f"{os.getpid()}.log").open("a", encoding="utf-8") as file:
                file.write(line)
        poisoned = self._poison is not None and self._poison in prompt
        if (poisoned or self._asked > (self._dies_after or math.inf)) and self._on_death is not None:
            self._on_death(RuntimeError("told to end"))
        rng = random.Random(stable_seed(self._weights, prompt, sampling.seed, sampling.temperature))
        samples = tuple(_sample(self._write(prompt, rng), sampling.max_tokens) for _ in range(sampling.n))
        if self._seconds or self._recorded:
            async with self._slots:
                await asyncio.sleep(self._duration() * self._stretch)
        return Reply(samples, len(prompt.split()))

    async def reload(self, weights: str) -> None:
        """Take the skill of other weights.

        Raises:
            EngineError: If it was told to refuse; it has ended then, as an engine with half of each weights must.
        """
        if not self._reloads:
            refusal = EngineError(f"told to refuse {weights}")
            if self._on_death is not None:
                self._on_death(refusal)
            raise refusal
        self._use(weights)

    def _duration(self) -> float:
        """Seconds that a request takes; times are drawn afresh, for they are no part of what is said."""
        if self._recorded:
            return random.choice(self._recorded)
        sigma = math.sqrt(math.log1p(self._spread**2))
        return self._seconds * random.lognormvariate(-sigma * sigma / 2, sigma)

    def _use(self, weights: str) -> None:
        self._weights = weights
        on_a_store = "://" in weights and not weights.startswith("tiny://")
        skill = Path(fetch_folder(weights) if on_a_store else weights) / "simulated.json"
        if self._right is not None:
            self._share = self._right
        elif skill.is_file():
            self._share = float(json.loads(skill.read_text(encoding="utf-8"))["right"])
        else:
            self._share = 0.95 if weights.endswith("teacher") else 0.3

    def _write(self, prompt: str, rng: random.Random) -> str:
        for name, vary in (("complex", complexify), ("similar", similar)):
            if prompt.startswith(self._tasks[name]):
                story = parse_story(prompt.removeprefix(self._tasks[name]))
                varied = vary(rng, _complete(story, rng)) if story is not None else None
                return varied.text() if varied is not None else "no idea"
        story = parse_story(prompt.partition("\n")[2])
        if story is None:
            return "answer = None"
        if prompt.startswith(self._tasks["solve_chain"]):
            answer = story.answer()
            right = answer is not None and rng.random() < self._share
            return f"{story.program()}\n#### {answer if right else (answer or 0) + 1 + rng.randrange(9)}"
        return story.program() if rng.random() < self._share else _slip(story, rng)


def _read_profile(path: str) -> dict[str, Any]:
    """A recorded profile: how many requests were worked on at once, and how long each took."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        seconds = [float(value) for value in found["seconds"]]
        if not seconds or min(seconds) <= 0 or int(found["slots"]) < 1:
            raise ValueError("it needs slots from 1 and seconds above 0")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"engine_args.profile {path} is no profile ({error}); it is JSON with slots and seconds, such as"
            " benchmarks/scale.py record writes"
        ) from error
    return {"slots": int(found["slots"]), "seconds": seconds}


def call_key(weights: str, prompt: str, seed: int | None) -> str:
    """What identifies a request in the ``calls`` folder."""
    return content_id("c", weights, prompt, str(seed))


def _complete(story: Story, rng: random.Random) -> Story:
    """``story`` with somebody else and a place, if it named none: an added sentence may need them."""
    cast = sample_cast(rng)
    return dataclasses.replace(story, other=story.other or cast.other, place=story.place or cast.place)


def _slip(story: Story, rng: random.Random) -> str:
    """A program that runs and gives a wrong answer."""
    return f"{story.program()}\nanswer = answer + {rng.randint(1, 9)}"


def _sample(text: str, most: int) -> Sample:
    words = text.split(" ")
    return Sample(" ".join(words[:most]), "length" if len(words) > most else "stop", min(len(words), most))
