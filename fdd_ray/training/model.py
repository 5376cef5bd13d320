"""The student as a PyTorch model: loading it, its loss, and the check that packing suits it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fdd_ray.errors import FddError, TrainingError
from fdd_ray.prompts import decoder_start, prepare_tokenizer
from fdd_ray.training.packing import IGNORED, Batch, collate
from fdd_ray.training.pairs import PairBatch

if TYPE_CHECKING:
    import torch

_PROBE_TOKENS = 12


def load_student(
    path: str, *, dtype: torch.dtype, packing: bool, trust_remote_code: bool = False, revision: str | None = None
) -> tuple[Any, Any]:
    """A student and its tokenizer from a Hugging Face directory or hub id.

    Raises:
        TrainingError: If it cannot be loaded, has no end token or (an encoder-decoder model) no start token,
            or cannot mask attention as packing needs it.
    """
    from transformers import AutoConfig, AutoTokenizer

    with _explained(path):
        source: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
        config = AutoConfig.from_pretrained(path, **source)
        packing = packing and not config.is_encoder_decoder
        model = load_model(path, config, dtype=dtype, packing=packing, **source)
        if packing:
            check_packing(model, path)
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
    if tokenizer.eos_token_id is None:
        raise TrainingError(
            f"the tokenizer of {path} has no end token, so a student could not learn to stop; set eos_token in its"
            " tokenizer_config.json"
        )
    prepare_tokenizer(tokenizer, encoder_decoder=bool(config.is_encoder_decoder))
    if config.is_encoder_decoder:
        # What an engine, here or elsewhere, has to know to begin and to end as the student learnt it.
        settings = model.generation_config
        settings.decoder_start_token_id = decoder_start(model, path, TrainingError)
        settings.eos_token_id = settings.eos_token_id or tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_model(path: str, config: Any, *, dtype: Any, packing: bool = False, **source: Any) -> Any:
    """The model alone, decoder-only or encoder-decoder.

    Raises:
        TrainingError: If it cannot mask attention as packing needs it.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    loader: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        return loader.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation="sdpa" if packing else None,
            **source,
        )
    except ValueError as error:
        if not packing or ("attn_implementation" not in str(error) and "scaled_dot_product" not in str(error)):
            raise
        raise _no_packing(path, error) from error


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say that the student could not be loaded. A RuntimeError goes on: a device that failed may be tried again."""
    from safetensors import SafetensorError

    try:
        yield
    except FddError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, SafetensorError) as error:
        why = " ".join(str(error).split())[:400]
        raise TrainingError(
            f"cannot load the student {path}: {type(error).__name__}: {why}; every training worker must reach it: a"
            " hub id needs the network, or a download beforehand (hf download) and its folder as student.model"
        ) from error


def check_packing(model: Any, name: str) -> None:
    """See that an example packed behind another one gets the logits it gets alone.

    An architecture that drops the mask or the positions (a state-space model, or learned positions counted
    by the model itself) would otherwise learn from its neighbours without a word.

    Raises:
        TrainingError: If it does not.
    """
    import torch

    random = np.random.default_rng(0)
    first, second = random.integers(0, min(model.config.vocab_size, 256), (2, _PROBE_TOKENS))
    size = 2 * _PROBE_TOKENS
    alone = collate([[(second, 1)]], pad_id=0, max_length=size)
    packed = collate([[(first, 1), (second, 1)]], pad_id=0, max_length=size)
    model.eval()
    try:
        with torch.no_grad():
            expected = model(**model_inputs(alone, True), use_cache=False).logits[0, :_PROBE_TOKENS].float()
            got = model(**model_inputs(packed, True), use_cache=False).logits[0, _PROBE_TOKENS:size].float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_packing(name, error) from error
    share = 1e-3 if model.dtype == torch.float32 else 5e-2
    off, spread = float((expected - got).abs().max()), float(expected.std())
    if not off <= share * spread:
        raise _no_packing(name, f"logits move by {off:.3g} (their spread is {spread:.3g})")


def _no_packing(name: str, why: object) -> TrainingError:
    return TrainingError(
        f"{name} cannot train on packed rows: examples of one row would see each other ({why}); "
        "set finetune.packing: false"
    )


def model_inputs(batch: Batch | PairBatch, packing: bool, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """What the model's forward pass takes for a batch, as tensors."""
    import torch

    return {name: torch.from_numpy(array).to(device) for name, array in batch.inputs(packing).items()}


@dataclasses.dataclass
class CompletionLoss:
    """The summed loss of the labelled tokens of a batch, with logits for those alone.

    Logits are the largest tensor of a small student (vocabulary times positions), and most positions are
    prompt. The output layer therefore gets to see the labelled positions only, whatever the architecture
    does with its result (scaling, soft caps).

    Attributes:
        model: The plain model, before DeepSpeed wraps it.
        packing: Whether rows hold several examples.
    """

    model: Any
    packing: bool
    _keep: Any = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        head = self.model.get_output_embeddings()
        if head is not None:
            head.register_forward_pre_hook(self._select)

    def _select(self, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Called before the output layer: (rows, length, width) becomes (1, labelled positions, width)."""
        if self._keep is None or not args or args[0].shape[:2] != self._keep.shape:
            return None
        return (args[0][self._keep][None], *args[1:])

    def __call__(self, forward: Any, batch: Batch | PairBatch, device: Any = "cpu") -> torch.Tensor:
        """The loss of ``batch``, where ``forward`` is the model or the engine that wraps it."""
        import torch
        from torch.nn import functional

        targets = torch.from_numpy(batch.targets()).to(device)
        keep = targets != IGNORED
        if not bool((batch.labels != IGNORED).any()):
            keep[0, 0] = True  # an empty batch must still pass through every layer, for the others' sake
        self._keep = keep
        try:
            logits = forward(**model_inputs(batch, self.packing, device), use_cache=False).logits
        finally:
            self._keep = None
        if logits.shape[:2] == keep.shape:  # the model has no output layer that could be hooked
            logits = logits[keep]
        flat = logits.reshape(-1, logits.shape[-1]).float()
        return functional.cross_entropy(flat, targets[keep], ignore_index=IGNORED, reduction="sum")


def parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for AdamW: matrices decay, biases and norms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
