"""The transformers engine on real (tiny) models of both kinds, beside what transformers itself writes."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fdd_ray.engines.base import EngineSettings, PromptTooLong, Reply, Sampling
from fdd_ray.engines.sampling import SamplingSettings
from fdd_ray.engines.transformers import TransformersEngine
from fdd_ray.errors import EngineError, ExperimentError
from fdd_ray.prompts import Message, load_prompts, prepare_tokenizer, render_prompt
from fdd_ray.tiny import make_problems, model_path
from tests.training.t5 import save_t5

PROMPTS = load_prompts("tiny")
CHATS = [PROMPTS.student("program", problem.question) for problem in make_problems("pool", 24, 1)]
DRAWN = Sampling(n=3, temperature=1.0, top_p=0.9, max_tokens=20, seed=5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import torch

    torch.set_num_threads(1)
    gpt2 = _save_gpt2(tmp_path_factory.mktemp("gpt2"))
    return {"t5": save_t5(tmp_path_factory.mktemp("t5")), "llama": str(model_path("student")), "gpt2": gpt2}


def _save_gpt2(folder: Path) -> str:
    """A decoder with learnt positions, which shows whether padding in front moves them."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=960, n_positions=128, n_embd=32, n_layer=1, n_head=2, initializer_range=0.5, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path("student")).save_pretrained(folder)
    return str(folder)


def start(folder: str, **changes: Any) -> TransformersEngine:
    def died(error: BaseException) -> None:
        raise AssertionError("the engine died") from error

    return TransformersEngine(EngineSettings(model=folder, engine="transformers", **changes), False, folder, died)


@pytest.fixture(scope="module", params=["t5", "llama", "gpt2"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(kind: str, folders: dict[str, str]) -> TransformersEngine:
    return start(folders[kind])


def ask(engine: TransformersEngine, chats: list[list[Message]], *samplings: Sampling) -> list[Reply]:
    async def all_of_them() -> list[Reply]:
        async with asyncio.timeout(120):
            pairs = zip(chats, samplings * len(chats), strict=False)
            return list(await asyncio.gather(*(engine.generate(*pair) for pair in pairs)))

    return asyncio.run(all_of_them())


def reference(folder: str, chat: list[Message], most: int) -> tuple[list[int], str, int]:
    """What transformers itself writes to one chat, alone: its tokens, as text, and the prompt's tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    pairs = AutoConfig.from_pretrained(folder).is_encoder_decoder
    model = (AutoModelForSeq2SeqLM if pairs else AutoModelForCausalLM).from_pretrained(folder)
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folder), encoder_decoder=pairs)
    prompt = render_prompt(tokenizer, chat)
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False)
    tokens = out[0, 1 if pairs else len(prompt) :].tolist()
    return tokens, tokenizer.decode(tokens, skip_special_tokens=True), len(prompt)


def test_greedy_completions_are_those_of_transformers_whatever_else_is_in_the_batch(
    kind: str, folders: dict[str, str], engine: TransformersEngine
) -> None:
    lengths = {len(str(chat)) for chat in CHATS}
    assert len(lengths) > 10, "prompts of one length need no padding"
    replies = ask(engine, CHATS, Sampling(max_tokens=24), DRAWN)
    for chat, reply in list(zip(CHATS, replies, strict=True))[:8:2]:
        tokens, text, prompt = reference(folders[kind], chat, 24)
        (sample,) = reply.samples
        assert (sample.text, sample.tokens, reply.prompt_tokens) == (text, len(tokens), prompt)
        assert sample.finish == ("length" if len(tokens) == 24 else "stop")
    finishes = {sample.finish for reply in replies[::2] for sample in reply.samples}
    assert ("stop" if kind == "llama" else "length") in finishes


def test_a_seed_repeats_a_draw_whatever_else_is_in_the_batch(engine: TransformersEngine) -> None:
    together = ask(engine, CHATS, DRAWN, Sampling(max_tokens=9), dataclasses.replace(DRAWN, temperature=0.3, n=1))
    alone = [ask(engine, [chat], DRAWN)[0] for chat in CHATS[:9:3]]
    assert together[:9:3] == alone
    other = ask(engine, CHATS[:6], dataclasses.replace(DRAWN, seed=6, temperature=2.0, top_p=1.0))
    again = ask(engine, CHATS[:6], dataclasses.replace(DRAWN, seed=7, temperature=2.0, top_p=1.0))
    assert all(a != b for a, b in zip(other, again, strict=True))
    assert all(len({sample.text for sample in reply.samples}) == 3 for reply in other)


def test_tokens_are_drawn_with_their_probabilities(folders: dict[str, str]) -> None:
    """The first token of many draws, beside the softmax that transformers computes."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    engine = start(folders["t5"], sampling=SamplingSettings(top_k=4), max_num_seqs=64)
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    tokenizer = prepare_tokenizer(AutoTokenizer.from_pretrained(folders["t5"]), encoder_decoder=True)
    ids = torch.tensor([render_prompt(tokenizer, CHATS[0])])
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[tokenizer.pad_token_id]])).logits[0, -1]
    best, tokens = (logits / 0.5).topk(4)
    shares = dict(zip(tokens.tolist(), best.softmax(-1).tolist(), strict=True))
    n = 2000
    (reply,) = ask(engine, CHATS[:1], Sampling(n=n, temperature=0.5, max_tokens=1, seed=1))
    words = {tokenizer.decode([token], skip_special_tokens=True): share for token, share in shares.items()}
    assert len(words) == 4
    found = Counter(sample.text for sample in reply.samples)
    assert found.keys() <= words.keys()
    for word, share in words.items():
        assert abs(found[word] - n * share) < 5 * (n * share * (1 - share)) ** 0.5, (word, share)
    nucleus = Sampling(n=200, temperature=0.5, top_p=0.75 * max(shares.values()), max_tokens=1, seed=1)
    (narrow,) = ask(engine, CHATS[:1], nucleus)
    assert {sample.text for sample in narrow.samples} == {max(words, key=lambda word: words[word])}


def test_a_prompt_without_room_is_refused_and_a_completion_is_cut_to_the_room(folders: dict[str, str]) -> None:
    for folder in folders.values():
        engine = start(folder, max_model_len=40)
        with pytest.raises(PromptTooLong, match="tokens; the model takes 40"):
            ask(engine, [PROMPTS.student("program", "apples " * 60)], Sampling())
        (short,) = ask(engine, [PROMPTS.student("program", "apples")], Sampling(temperature=3.0, seed=1, n=8))
        assert max(sample.tokens for sample in short.samples) == 40 - short.prompt_tokens
        longest = max(short.samples, key=lambda sample: sample.tokens)
        assert longest.finish == "length"


def test_more_completions_than_places_and_a_long_one_beside_short_ones(folders: dict[str, str]) -> None:
    engine = start(folders["t5"], max_num_seqs=4)
    ended: list[str] = []

    async def one(name: str, sampling: Sampling) -> Reply:
        reply = await engine.generate(CHATS[0], sampling)
        ended.append(name)
        return reply

    async def both() -> tuple[Reply, Reply]:
        long = asyncio.ensure_future(one("long", Sampling(max_tokens=400)))
        await asyncio.sleep(0.1)
        many = await one("many", Sampling(n=10, temperature=1.0, max_tokens=5, seed=1))
        return await long, many

    long, many = asyncio.run(both())
    assert ended == ["many", "long"]
    assert long.samples[0].tokens == 400 and len(many.samples) == 10
    assert all(sample.tokens <= 5 for sample in many.samples)


def test_the_event_loop_stays_free_and_a_cancelled_request_ends(folders: dict[str, str]) -> None:
    engine = start(folders["t5"])

    async def watch() -> float:
        running = asyncio.ensure_future(engine.generate(CHATS[0], Sampling(n=32, max_tokens=1500, temperature=1.0)))
        worst = 0.0
        for _ in range(50):
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # Before 1500 tokens could be written, the engine has nothing left to do.
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not engine._requests and not engine._batches:
                return worst
        raise AssertionError("the cancelled request goes on")

    assert asyncio.run(watch()) < 1.0


def test_other_weights_are_loaded_in_place_and_bad_ones_leave_the_old(folders: dict[str, str], tmp_path: Path) -> None:
    engine = start(folders["t5"])
    other = save_t5(tmp_path / "other", seed=3)
    torn = shutil.copytree(other, tmp_path / "torn")
    weights = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=1)
    first = ask(engine, CHATS[:3], sampling)

    async def while_it_is_asked() -> list[Reply]:
        asked = [asyncio.ensure_future(engine.generate(chat, sampling)) for chat in CHATS[:3]]
        await asyncio.sleep(0)
        await engine.reload(other)
        return list(await asyncio.gather(*asked))

    assert asyncio.run(while_it_is_asked()) == first, "requests in flight are answered by the weights they came to"
    second = ask(engine, CHATS[:3], sampling)
    assert second == ask(start(other), CHATS[:3], sampling) != first
    with pytest.raises(EngineError, match=r"cannot load .*torn"):
        asyncio.run(engine.reload(str(torn)))
    assert ask(engine, CHATS[:3], sampling) == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine_args": {"swap_space": 4}}, "engine_args swap_space: the transformers engine knows attn_impl"),
        ({"sampling": SamplingSettings(stop=("x",))}, r"sampling\.stop: .* use engine: vllm"),
        ({"tensor_parallel": 2}, "on one GPU"),
        ({"quantization": "fp8"}, "leave it out"),
    ],
)
def test_what_the_engine_does_not_know_is_refused(
    changes: dict[str, Any], message: str, folders: dict[str, str]
) -> None:
    with pytest.raises(ExperimentError, match=message):
        start(folders["t5"], **changes)


def test_a_folder_says_whether_its_engine_serves_it_and_how_large_it_is(folders: dict[str, str]) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from fdd_ray.engines.folders import check_model_folder, parameters_of

    folder = Path(folders["t5"])
    with pytest.raises(ExperimentError, match=r"encoder-decoder model.*set student\.engine: transformers"):
        check_model_folder(folder)
    check_model_folder(folder, engine="transformers")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert parameters_of(folder) == sum(parameter.numel() for parameter in model.parameters())
    sharded = folder.with_name("sharded")
    model.save_pretrained(sharded, max_shard_size="300KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    assert parameters_of(sharded) == parameters_of(folder)
    assert parameters_of(folder.parent) is None
