"""A toy world for the tests of tuning: facts to learn, a tokenizer, and a pruned tiny Llama."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prunebench.recovery import RecoverySettings, prompt

COLOURS = ["red", "green", "blue", "white", "black", "yellow"]
THINGS = ["stone", "river", "bird", "house", "coat", "flag", "leaf", "cup", "ship", "door"]


def examples(count: int = 64) -> list[dict[str, str]]:
    """Records whose answer follows from the question; every third one has an input."""
    records = []
    for number in range(count):
        thing = THINGS[number % len(THINGS)]
        answer = f"The {thing} is {COLOURS[number % len(COLOURS)]}."
        given = f"Page {number}" if number % 3 == 0 else ""
        records.append(
            {"instruction": f"Colour of {thing} {number}?", "input": given, "output": answer}
        )
    return records


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 512 entries trained on the toy texts; puts <s> first, like LLaMA."""
    texts = [prompt(record) + record["output"] for record in examples()]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


def pruned_llama(seed: int = 0) -> LlamaForCausalLM:
    """Tiny Llama with GQA (4 heads, 2 KV heads); its second layer has 1 KV group and 20 neurons."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config)
    layer = model.model.layers[1]
    for name, rows in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8)):
        _keep(layer.self_attn, name, rows=rows)
    _keep(layer.self_attn, "o_proj", columns=16)
    for name in ("gate_proj", "up_proj"):
        _keep(layer.mlp, name, rows=20)
    _keep(layer.mlp, "down_proj", columns=20)
    return model.eval()


def settings(**keys: object) -> RecoverySettings:
    """Settings that learn the toy facts within seconds."""
    small = {
        "tokens": 4000,
        "batch": 8,
        "micro_batch": 4,
        "length": 96,
        "learning_rate": 5e-3,
        "log_every": 1,
        "checkpoint_every": None,
    }
    return RecoverySettings.from_config({**small, **keys})


def _keep(
    module: torch.nn.Module, name: str, *, rows: int | None = None, columns: int | None = None
) -> None:
    weight = getattr(module, name).weight.data[:rows, :columns].clone()
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(weight)
    setattr(module, name, linear)
