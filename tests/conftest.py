"""Fixtures for all tests: tiny random models, their tokenizer, and the real data where present."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
for _variable, _folder in (("PRUNEBENCH_DATA", "data"), ("PRUNEBENCH_MODELS", "models")):
    if (REPOSITORY.parent / "shared" / _folder).is_dir():
        os.environ.setdefault(_variable, str(REPOSITORY.parent / "shared" / _folder))


def _folder_of(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} names no folder: the real files are not here")
    return Path(folder)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Digests of files are not kept in the user's cache."""
    os.environ["PRUNEBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Random numbers that a test draws without a seed do not depend on which tests ran before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real corpora and tasks."""
    return _folder_of("PRUNEBENCH_DATA")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder with small real checkpoints."""
    return _folder_of("PRUNEBENCH_MODELS")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tokenizer of bytes: 256 of them, <s> (put first) and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {t: i for i, t in enumerate(["<s>", "</s>", *sorted(_alphabet(pre_tokenizers))])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.fixture
def tiny() -> Callable[..., Any]:
    """Function that makes a tiny random model: tiny("qwen2", tie_word_embeddings=True, ...)."""
    return make_tiny


COMMON = {
    "vocab_size": 258,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
LLAMA_SHAPE = {
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
OWN_SHAPES = {
    "bloom": {},
    "falcon": {"ffn_hidden_size": 48, "max_position_embeddings": 256},
    "gpt_neox": {"intermediate_size": 48, "max_position_embeddings": 256},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2, **LLAMA_SHAPE},
    "opt": {"ffn_dim": 48, "max_position_embeddings": 256, "dropout": 0.0},
    "phi3": {"original_max_position_embeddings": 256, **LLAMA_SHAPE},
    "qwen3_moe": {
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48, **LLAMA_SHAPE,
    },
    "stablelm": {
        "intermediate_size": 48, "num_key_value_heads": 4, "max_position_embeddings": 256,
        "partial_rotary_factor": 0.5,
    },
}  # fmt: skip


def tiny_settings(family: str = "llama", **changes: Any) -> dict[str, Any]:
    """The configuration of a tiny model of a family, with some keys changed."""
    shape = OWN_SHAPES.get(family, LLAMA_SHAPE)
    return {"model_type": family, **COMMON, **shape, **changes}


def make_tiny(family: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """A random model of a family with norms and biases that are not 1 and 0."""
    from prunebench.pruning.conformance.case import tiny_model

    return tiny_model(tiny_settings(family, **changes), seed=seed)


def _alphabet(pre_tokenizers: Any) -> list[str]:
    return pre_tokenizers.ByteLevel.alphabet()
