"""A checkpoint's tokenizer as one that stock classes load, checked against the original."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from prunebench.errors import Invalid, Unsupported
from prunebench.untyped import Json

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
SETTINGS = (*SPECIAL, "add_bos_token", "add_eos_token", "model_max_length")
SPACE = "\u2581"
"""sentencepiece's mark of a space."""
PROBES = (
    "The quick brown fox, 12345 times; 7.5 %.",
    "two  spaces,\n\n = A Title = \n\nand a\ttab",
    " a space comes first",
    "naïve façade — 数学 とても 🙂\n",
    "def f(x):\n    return x  # ok",
    "",
)
"""Texts of which the stock tokenizer must make the same ids as the original model."""


def save_stock_tokenizer(source: Path, out: Path) -> str:
    """Write the tokenizer of folder `source` into folder `out`; returns what it was made from.

    A tokenizer.json is taken as it is. A sentencepiece tokenizer.model is turned into one, for
    which the package sentencepiece must be installed, and must give the ids that sentencepiece
    gives. Raises Invalid when there is neither, or no sentencepiece; Unsupported when the ids
    differ.
    """
    settings = _settings(source)
    if (source / "tokenizer.json").is_file():
        shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")
        _write_settings(settings, out)
        return "tokenizer.json"
    model = source / "tokenizer.model"
    if not model.is_file():
        raise Invalid(f"{source}: expected tokenizer.json or tokenizer.model, found neither")
    _from_sentencepiece(model, settings, out)
    return "tokenizer.model"


def _settings(source: Path) -> Json:
    """Special tokens and switches of the original, without its class and its code."""
    path = source / "tokenizer_config.json"
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings = {key: raw[key] for key in SETTINGS if raw.get(key) is not None}
    for key in SPECIAL:
        if isinstance(settings.get(key), dict):  # an AddedToken written out
            settings[key] = settings[key]["content"]
    return settings


def _from_sentencepiece(path: Path, settings: Json, out: Path) -> None:
    try:
        import google.protobuf  # noqa: F401 - transformers reads the file through it
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise Invalid(
            f"{path}: a sentencepiece model; `pip install sentencepiece protobuf` and try again "
            "(only this conversion needs them)"
        ) from None
    from transformers import PreTrainedTokenizerFast

    original = SentencePieceProcessor(model_file=str(path))
    _build(path, settings, out, prefix=original.encode("a", out_type=str)[0].startswith(SPACE))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    for text in PROBES:
        ids, expected = tokenizer(text, add_special_tokens=False).input_ids, original.encode(text)
        if ids != expected:
            raise Unsupported(
                f"{path}: the stock tokenizer makes other ids of {text!r} than sentencepiece does "
                f"({ids[:8]}, not {expected[:8]}); put a tokenizer.json beside it"
            )


def _build(path: Path, settings: Json, out: Path, *, prefix: bool) -> None:
    """Write tokenizer.json. transformers reads vocabulary and merges; spaces are handled here.

    Its own LlamaTokenizer prefixes no text that begins with a space; sentencepiece does.
    """
    from tokenizers import normalizers
    from transformers import LlamaTokenizer

    copy = out / path.name  # no tokenizer_config.json beside it that names a class with code
    shutil.copyfile(path, copy)
    built = LlamaTokenizer.from_pretrained(out, add_prefix_space=prefix, **settings)
    copy.unlink()
    backend = built.backend_tokenizer
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    backend.pre_tokenizer = None
    backend.save(str(out / "tokenizer.json"))
    _write_settings(settings, out)


def _write_settings(settings: Json, out: Path) -> None:
    stock = {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    text = json.dumps(stock, indent=2, sort_keys=True) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
