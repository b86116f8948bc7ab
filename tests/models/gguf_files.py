"""GGUF files of tiny models, written with llama.cpp's names and conventions, and a plain BPE."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

CONTROL, NORMAL, USER_DEFINED, UNUSED = 3, 1, 4, 5
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "i n", "1 2", "12 3", "Ġ Ġ", "e r", "Ġ 1", "Ġ ,"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a weight."""
    stem, _, end = name.rpartition(".")
    if found := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{found[1]}.{NAMES[found[2]]}.{end}"
    return f"{NAMES[stem]}.{end}"


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k as llama.cpp wants them: the two halves of each head, interleaved."""
    halves = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(weight.shape)


def vocabulary(size: int) -> list[str]:
    """Specials, bytes, what merges make, and then tokens that nothing makes."""
    from tokenizers import pre_tokenizers

    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [merge.replace(" ", "") for merge in MERGES]
    return [*tokens, "<tool>", *(f"[unused{i}]" for i in range(size - len(tokens) - 1))]


def write(
    path: Path,
    model: Any,
    *,
    kind: str = "F32",
    arch: str = "",
    more: dict[str, torch.Tensor] | None = None,
    without: str = "",
    big: bool = False,
    **changes: Any,
) -> Path:
    """Write a model's GGUF file.

    kind     type of the matrices
    more     further tensors
    without  a weight that is left out
    big      the order of bytes is that of big-endian machines
    changes  keys, where None drops one

    Keys with `__` for a dot; those of the architecture begin with `arch__`.
    """
    from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter, quantize

    config, arch = model.config, arch or model.config.model_type
    writer = GGUFWriter(path, arch, endianess=GGUFEndian.BIG if big else GGUFEndian.LITTLE)
    keys = {**model_keys(config, arch), **tokenizer_keys(config.vocab_size)}
    for key, value in changes.items():
        keys[re.sub("^arch[.]", f"{arch}.", key.replace("__", "."))] = value
    for key, value in keys.items():
        add(writer, key, value)
    for name, tensor in model.named_parameters():
        if name == without:
            continue
        tensor = tensor.detach()
        if model.config.model_type == "llama" and re.search(r"\.[qk]_proj\.", name):
            heads = config.num_attention_heads
            heads = config.num_key_value_heads if ".k_proj." in name else heads
            tensor = permuted(tensor, heads)
        own = GGMLQuantizationType[kind if tensor.dim() > 1 else "F32"]
        raw = quantize(tensor.contiguous().numpy(), own)
        writer.add_tensor(gguf_name(name), raw, raw_dtype=own)
    for name, tensor in (more or {}).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model_keys(config: Any, arch: str) -> dict[str, Any]:
    """Keys of an architecture, as llama.cpp's converter writes them."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters["rope_theta"]
    keys = {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{arch}.rope.freq_base": float(rope),
    }
    if arch in ("llama", "phi3"):
        keys[f"{arch}.rope.dimension_count"] = width
    if arch == "qwen3" or width * config.num_attention_heads != config.hidden_size:
        keys |= {f"{arch}.attention.{side}_length": width for side in ("key", "value")}
    if arch == "phi3":
        keys[f"{arch}.attention.sliding_window"] = config.sliding_window or 0
        keys[f"{arch}.rope.scaling.original_context_length"] = config.max_position_embeddings
    return keys


def tokenizer_keys(size: int) -> dict[str, Any]:
    """A byte-level BPE of this many tokens."""
    tokens = vocabulary(size)
    kinds = {token: CONTROL for token in SPECIALS} | {"<tool>": USER_DEFINED}
    types = [kinds.get(t, UNUSED if t.startswith("[unused") else NORMAL) for t in tokens]
    return {
        "general.name": "Tiny",
        "general.license": "apache-2.0",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }


def add(writer: Any, key: str, value: Any) -> None:
    """Add a key under the type that llama.cpp gives it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


class PlainBPE:
    """Token ids of a GGUF file's byte-level BPE with the cut of smollm, in plain Python.

    It shares nothing with the package tokenizers: the cut goes letter by letter, by the classes of
    `unicodedata`, and merging is the textbook's, the first merge of the list before all others.
    """

    def __init__(self, tokens: list[str], merges: list[str], types: list[int]) -> None:
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        marked = [t for t, kind in zip(tokens, types, strict=True) if kind in (3, 4)]
        longest = sorted(marked, key=len, reverse=True)
        self.marked = re.compile("(" + "|".join(map(re.escape, longest)) + ")")
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        self.letters = {byte: chr(byte) for byte in printable}
        self.letters |= {byte: chr(256 + i) for i, byte in enumerate(others)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        found = []
        for i, piece in enumerate(self.marked.split(text)):
            if i % 2:
                found.append(self.ids[piece])
                continue
            for word in cut(piece):
                found += [self.ids[t] for t in self.merge(word) if t in self.ids]
        return found

    def merge(self, word: str) -> list[str]:
        """A word's tokens."""
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            merged, i = [], 0
            while i < len(parts):
                here = tuple(parts[i : i + 2]) == best
                merged.append("".join(parts[i : i + 2]) if here else parts[i])
                i += 2 if here else 1
            parts = merged
        return parts


def cut(text: str) -> list[str]:
    """Words of smollm's cut: every digit by itself, then GPT-2's words."""
    pieces, run = [], ""
    for letter in text:
        if kind_of(letter) == "N":
            pieces += [run, letter]
            run = ""
        else:
            run += letter
    return [word for piece in (*pieces, run) for word in gpt2_words(piece)]


def gpt2_words(text: str) -> list[str]:
    """GPT-2's cut: English endings, then runs of one class with the space before them."""
    words, i = [], 0
    while i < len(text):
        if ending := re.match("'(?:s|t|re|ve|m|ll|d)", text[i:]):
            end = i + ending.end()
        else:
            start = i + (text[i] == " " and i + 1 < len(text) and kind_of(text[i + 1]) != " ")
            end = start
            while end < len(text) and kind_of(text[end]) == kind_of(text[start]):
                end += 1
            if kind_of(text[start]) == " " and end < len(text) and end - start > 1:
                end -= 1  # the last space goes to the word that follows
        words.append(text[i:end])
        i = end
    return words


def kind_of(letter: str) -> str:
    """L for a letter, N for a number, a space for white space, else a dot."""
    import unicodedata

    if letter.isspace() and letter not in "\x1c\x1d\x1e\x1f":
        return " "
    return {"L": "L", "N": "N"}.get(unicodedata.category(letter)[0], ".")
