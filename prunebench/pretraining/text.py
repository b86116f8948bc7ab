"""Text files become a tokenizer and streams of tokens, kept so that a second run need not wait."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.files import read_text
from prunebench.pretraining.recipe import Recipe
from prunebench.text.source import open_source, text_digest
from prunebench.units import MIB
from prunebench.untyped import Foreign, JsonMap, Plain
from prunebench.whole import write_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

BOS, EOS = "<s>", "</s>"
JOIN = "\n\n"  # as the perplexity protocols join rows
PIECE = 1 << 16  # characters that are tokenized together
PIECES = 256  # at a time, in parallel


@dataclass(frozen=True)
class Prepared:
    """A tokenizer and, for each text of the recipe, its tokens [length] and its digest."""

    tokenizer: PreTrainedTokenizerFast
    streams: tuple[Tensor, ...]
    sha256: tuple[str, ...]


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    """Read the texts and tokenize them, or take what an earlier run left in `folder`.

    Raises Invalid where a text is missing or too short for one window.
    """
    from safetensors.torch import load_file, save_file
    from transformers import PreTrainedTokenizerFast

    texts = [_read(entry) for entry in recipe.text]
    digests = tuple(text_digest([text]) for text in texts)
    key = json.dumps([digests, recipe.vocabulary, recipe.sample_mib])
    tokens, tokenizer_file, mark = (folder / n for n in ("tokens", "tokenizer.json", "texts.json"))
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        folder.mkdir(parents=True, exist_ok=True)
        raw = learn_tokenizer(texts, recipe)
        raw.save(str(tokenizer_file))
        save_file({str(i): _encode(raw, text) for i, text in enumerate(texts)}, tokens)
        write_text(mark, key)  # last: it says that the others are whole
    loaded = load_file(tokens)
    streams = tuple(loaded[str(i)] for i in range(len(texts)))
    for entry, stream in zip(recipe.text, streams, strict=True):
        if len(stream) <= recipe.training.length:
            need = f"{recipe.training.length + 1} tokens for one window"
            raise Invalid(f"{recipe.name}: {_name(entry)}: needs {need}, has {len(stream)}")
        logger.info("%s: %.1f M tokens", _name(entry), len(stream) / 1e6)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=recipe.training.length,
        clean_up_tokenization_spaces=False,
    )
    return Prepared(tokenizer, streams, digests)


def learn_tokenizer(texts: list[str], recipe: Recipe) -> Foreign:
    """A byte-level BPE from an even sample of each text, in proportion to the shares."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_sample(texts, recipe), trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, raw.token_to_id(BOS))]
    )
    return raw


def _sample(texts: list[str], recipe: Recipe) -> Iterator[str]:
    whole = sum(entry["share"] for entry in recipe.text)
    for entry, text in zip(recipe.text, texts, strict=True):
        wanted = int(recipe.sample_mib * MIB * entry["share"] / whole)
        step = max(1, len(text) // max(wanted, 1))  # every step-th piece
        for start in range(0, len(text), PIECE * step):
            yield text[start : start + PIECE]


def _encode(raw: Plain, text: str) -> Tensor:
    """Token ids [length]; pieces are cut at the ends of lines."""
    import torch

    parts, batch = [], []
    for piece in _pieces(text):
        batch.append(piece)
        if len(batch) == PIECES:
            parts.append(_ids(raw, batch))
            batch = []
    return torch.cat([*parts, _ids(raw, batch)])


def _ids(raw: Plain, batch: list[str]) -> Tensor:
    import torch

    encoded = raw.encode_batch_fast(batch, add_special_tokens=False)
    return torch.tensor([i for one in encoded for i in one.ids], dtype=torch.int32)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end


def _read(entry: JsonMap) -> str:
    """A text of the recipe as one string."""
    source = open_source("local", None, demo_root=Path())
    if "corpus" in entry:
        return JOIN.join(source.rows(entry["corpus"], "train"))
    assert source.root is not None
    paths = sorted(source.root.glob(entry["files"]))
    if not paths:
        raise Invalid(f"text: no files {entry['files']!r} below {source.root}")
    return JOIN.join(read_text(path) for path in paths)


def _name(entry: JsonMap) -> str:
    return str(entry.get("corpus") or entry["files"])
