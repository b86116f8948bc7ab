"""Parameters and bytes: known shapes, tied weights, other families."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from prunebench.profiling import size
from prunebench.profiling.sizes import decode_weight_bytes, decoder_blocks


def test_known_figures_of_llama_7b(llama_7b):
    figures = size(llama_7b)
    assert figures["parameters"] == 6_738_415_616
    assert figures["weight_bytes"] == 13_476_831_232
    assert figures["embedding_parameters"] == 2 * 32000 * 4096
    assert figures["decoder_parameters"] == 6_738_415_616 - 2 * 32000 * 4096 - 4096
    assert figures["dtype"] == "float16"


@pytest.mark.parametrize("tied", [False, True])
def test_tied_weight_counts_once(tiny, tied):
    figures = size(tiny(tie_word_embeddings=tied))
    table = 61 * 32
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert figures["embedding_parameters"] == (1 if tied else 2) * table
    assert figures["parameters"] == figures["embedding_parameters"] + 2 * layer + 32
    assert figures["decoder_parameters"] == 2 * layer


def test_decode_reads_a_tied_table_but_not_an_untied_one(tiny):
    tied, untied = tiny(tie_word_embeddings=True), tiny(tie_word_embeddings=False)
    assert decode_weight_bytes(tied) == size(tied)["weight_bytes"]
    assert decode_weight_bytes(untied) == size(untied)["weight_bytes"] - 4 * 61 * 32
    assert decode_weight_bytes(tied) == decode_weight_bytes(untied)


def test_mixed_shapes_are_counted_as_they_are(tiny, mixed):
    removed = 2 * 16 * 32 + 2 * 8 * 32 + 3 * 28 * 32
    assert size(tiny())["decoder_parameters"] - size(mixed)["decoder_parameters"] == removed


def test_alignment_divides_every_width(tiny, mixed):
    assert size(tiny())["aligned_to"] == 16  # heads 4 x 8, KV heads 2 x 8, hidden 32, neurons 48
    assert size(mixed)["aligned_to"] == 4  # 20 neurons
    assert size(tiny(intermediate_size=47))["aligned_to"] == 1


def test_disk_bytes_are_those_of_the_folder(tiny, tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "model")
    figures = size(model, tmp_path / "model")
    files = (tmp_path / "model").iterdir()
    assert figures["disk_bytes"] == sum(len(file.read_bytes()) for file in files)
    assert figures["disk_bytes"] > figures["weight_bytes"]
    assert figures["missing"] == {}


def test_without_a_folder_disk_bytes_are_missing_with_a_reason(tiny):
    figures = size(tiny())
    assert figures["disk_mib"] is None
    assert set(figures["missing"]) == {"disk_bytes", "disk_mib"}


FAMILIES = {
    "bloom": {"n_layer": 3, "n_head": 2},
    "gpt_neox": {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48},
    "opt": {"num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 48},
    "mixtral": {
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_blocks_of_other_families(family):
    config = AutoConfig.for_model(family, vocab_size=61, hidden_size=32, **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config)
    assert len(decoder_blocks(model)) == 3
    assert size(model)["parameters"] > size(model)["decoder_parameters"] > 0
