"""The demo's tokenizer: one token per word of the training text, bytes for anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, UNK = "<s>", "</s>", "<unk>"


def make_tokenizer(texts: Iterable[str], *, max_length: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer from training text: no search, so the same text gives the same tokens.

    It is a byte-level BPE without merges: a word that the text holds is one token (with the space
    before it), any other is spelt in bytes, so decoding always gives back the text. BOS comes first
    unless `add_special_tokens=False`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words: Counter[str] = Counter()
    for text in texts:
        words.update(piece for piece, _ in split.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    common = sorted(words.keys() - set(alphabet), key=lambda word: (-words[word], word))
    vocabulary = {token: i for i, token in enumerate([BOS, EOS, UNK, *alphabet, *common])}
    raw = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token=UNK, fuse_unk=False, ignore_merges=True)
    )
    raw.pre_tokenizer = split
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=EOS,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
