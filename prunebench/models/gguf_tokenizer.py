"""The tokenizer that a GGUF file holds, as one that stock classes load.

A byte-level BPE is there as its vocabulary and merges; how text is cut before is only named. Each
name that is known here has the pre-tokenizer of the model's own publication, which llama.cpp's
src/llama-vocab.cpp repeats as regular expressions. Any other name is refused: a wrong cut gives
other ids for some texts, and nobody notices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid, Unsupported
from prunebench.models.gguf_file import AGAIN, GgufFile
from prunebench.untyped import Foreign, Json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL, USER_DEFINED = 3, 4
"""Values of `tokenizer.ggml.token_type` that are found in text before it is cut."""
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""transformers' name of a special token -> its name in `tokenizer.ggml.<name>_token_id`."""
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The cut of Llama 3 and of Qwen 2, which differ in how many digits go together."""


def check_tokenizer(file: GgufFile) -> None:
    """Raise Unsupported, by name, unless the file's tokenizer can be rebuilt exactly.

    Raises Invalid where its tokens, their types and the special ids do not go together.
    """
    kind = file.need("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise Unsupported(
            f"{file.path}: tokenizer model {kind} cannot be rebuilt; known: gpt2 (byte-level BPE)"
        )
    pre = file.keys.get("tokenizer.ggml.pre")
    if pre not in PRE_TOKENIZERS:
        raise Unsupported(
            f"{file.path}: pre-tokenizer {pre or 'without a name'} is unknown; known: "
            f"{', '.join(sorted(PRE_TOKENIZERS))}"
        )
    _special(file, _tokens(file))


def save_tokenizer(file: GgufFile, out: Path) -> None:
    """Write the tokenizer of a file that was checked into folder `out`.

    Raises Invalid where the merges do not fit the vocabulary.
    """
    from transformers import PreTrainedTokenizerFast

    tokens = _tokens(file)
    settings: Json = {f"{role}_token": text for role, text in _special(file, tokens).items()}
    adds = {f"add_{role}_token": _adds(file, role) for role in ("bos", "eos")}
    if template := file.keys.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_build(file, tokens),
        model_max_length=file.keys.get(f"{file.architecture}.context_length"),
        clean_up_tokenization_spaces=False,
        **settings,
        **adds,
    )
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"  # transformers leaves out what its own file says already
    stated = {**json.loads(path.read_text(encoding="utf-8")), **adds}
    path.write_text(json.dumps(stated, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tokens(file: GgufFile) -> list[str]:
    tokens: list[str] = file.need("tokenizer.ggml.tokens", list)
    if len(set(tokens)) != len(tokens):
        raise Invalid(f"{file.path}: a token stands twice in its vocabulary; {AGAIN}")
    if len(types := file.need("tokenizer.ggml.token_type", list)) != len(tokens):
        raise Invalid(f"{file.path}: {len(tokens)} tokens with {len(types)} types; {AGAIN}")
    rows = file.keys.get(f"{file.architecture}.vocab_size", len(tokens))
    if len(tokens) > rows:
        raise Invalid(f"{file.path}: {len(tokens)} tokens for {rows} rows of weights; {AGAIN}")
    return tokens


def _special(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    """Role -> token, for the special tokens that the file names."""
    found = {}
    for role, name in ROLES.items():
        key = f"tokenizer.ggml.{name}_token_id"
        number = file.keys.get(key)
        if number is None:
            continue
        if not 0 <= number < len(tokens):
            raise Invalid(f"{file.path}: {key}: {number} is outside its {len(tokens)} tokens")
        found[role] = tokens[number]
    return found


def _adds(file: GgufFile, role: str) -> bool:
    """Whether a text gets this token; where the file is silent, llama.cpp does it for Llama 3."""
    silent = role == "bos" and file.keys["tokenizer.ggml.pre"] == "llama-bpe"
    return bool(file.keys.get(f"tokenizer.ggml.add_{role}_token", silent))


def _build(file: GgufFile, tokens: list[str]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    merges = [tuple(merge.split(" ")) for merge in file.need("tokenizer.ggml.merges", list)]
    pre = file.keys["tokenizer.ggml.pre"]
    try:
        # Llama 3 takes a word that is in the vocabulary as it is, whatever the merges say.
        bpe = models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=pre == "llama-bpe",
        )
    except Exception as error:  # its errors are plain Exceptions
        text = " ".join(str(error).split())
        raise Invalid(
            f"{file.path}: its merges do not fit its vocabulary ({text}); {AGAIN}"
        ) from None
    built = Tokenizer(bpe)
    PRE_TOKENIZERS[pre](built)
    built.decoder = decoders.ByteLevel()
    for number, kind in enumerate(file.need("tokenizer.ggml.token_type", list)):
        if kind in (CONTROL, USER_DEFINED):
            special = kind == CONTROL
            token = AddedToken(tokens[number], normalized=False, special=special)
            (built.add_special_tokens if special else built.add_tokens)([token])
    return built


def _gpt2(built: Foreign) -> None:
    from tokenizers import pre_tokenizers

    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)


def _smollm(built: Foreign) -> None:
    from tokenizers import pre_tokenizers

    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _llama3(built: Foreign) -> None:
    _cut_by(built, WORDS % r"\p{N}{1,3}")


def _qwen2(built: Foreign) -> None:
    from tokenizers import normalizers

    built.normalizer = normalizers.NFC()  # of the published tokenizer; llama.cpp has none
    _cut_by(built, WORDS % r"\p{N}")


def _cut_by(built: Foreign, expression: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


PRE_TOKENIZERS: Mapping[str, Callable[[Foreign], None]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
    "qwen2": _qwen2,
}
"""Name in `tokenizer.ggml.pre` -> what sets the normaliser and the pre-tokenizer."""
