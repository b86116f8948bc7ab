"""A folder's tokenizer as the keys of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid, Unsupported
from prunebench.models.gguf_tokenizer import CONTROL, PRE_TOKENIZERS, ROLES, USER_DEFINED
from prunebench.untyped import Json, JsonMap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNUSED = 1, 5
FILE = "tokenizer.json"


def vocabulary_keys(folder: Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> Json:
    """Keys `tokenizer.*` for a model of so many rows of embeddings.

    Raises Invalid for a folder without a tokenizer, Unsupported for one that is no byte-level BPE
    or whose pre-tokenizer llama.cpp has no name for.
    """
    path = folder / FILE
    if not path.is_file():
        raise Invalid(f"{folder}: no {FILE}; a GGUF file holds its tokenizer")
    raw = json.loads(path.read_text(encoding="utf-8"))
    if raw["model"].get("type") != "BPE" or raw["model"].get("byte_fallback"):
        raise Unsupported(
            f"{path}: a {raw['model'].get('type')} tokenizer is not written; known: byte-level BPE"
        )
    tokens, types = _tokens(raw, rows)
    merges = [m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]]
    keys: Json = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre(path, raw),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }
    for role, name in ROLES.items():
        number = getattr(tokenizer, f"{role}_token_id")
        if number is not None:
            keys[f"tokenizer.ggml.{name}_token_id"] = number
    plain, whole = (tokenizer("a", add_special_tokens=on).input_ids for on in (False, True))
    keys["tokenizer.ggml.add_bos_token"] = whole[: -len(plain)] == [tokenizer.bos_token_id]
    keys["tokenizer.ggml.add_eos_token"] = whole[len(plain) :] == [tokenizer.eos_token_id]
    if template := tokenizer.chat_template:
        keys["tokenizer.chat_template"] = template
    return keys


def _tokens(raw: JsonMap, rows: int) -> tuple[list[str], list[int]]:
    """Texts and types by id; rows of the embedding without a token are unused ones."""
    texts = {number: text for text, number in raw["model"]["vocab"].items()}
    types = dict.fromkeys(texts, NORMAL)
    for added in raw.get("added_tokens", ()):
        texts[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(texts) >= rows:
        raise Invalid(f"its tokenizer has id {max(texts)}, the model {rows} rows of embeddings")
    ids = range(rows)
    return [texts.get(i, f"[PAD{i}]") for i in ids], [types.get(i, UNUSED) for i in ids]


def _pre(path: Path, raw: JsonMap) -> str:
    """llama.cpp's name of how text is cut before it is encoded."""
    for name in PRE_TOKENIZERS:
        if all(_shaped(name)[part] == raw.get(part) for part in ("normalizer", "pre_tokenizer")):
            return name
    raise Unsupported(
        f"{path}: llama.cpp's name of its pre-tokenizer is unknown; known: "
        f"{', '.join(sorted(PRE_TOKENIZERS))}"
    )


def _shaped(name: str) -> Json:
    from tokenizers import Tokenizer, models

    built = Tokenizer(models.BPE())
    PRE_TOKENIZERS[name](built)
    found: Json = json.loads(built.to_str())
    return found
