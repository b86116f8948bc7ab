"""GGUF files: the imported folder computes what the file's model computes, or it is refused."""

from __future__ import annotations

import json
import os
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_tiny
from gguf_files import SPECIALS, PlainBPE, gguf_name, permuted, tokenizer_keys, vocabulary, write
from job_specs import attempt, pruning
from leaderboard import factory
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunebench.cli import main
from prunebench.errors import Invalid, Unsupported
from prunebench.jobs import prune
from prunebench.leaderboard.views.described import imported_from
from prunebench.leaderboard.views.sections import _lead
from prunebench.leaderboard.views.show import record_text
from prunebench.models import folders
from prunebench.models.gguf_import import import_gguf
from prunebench.pruning.surgery import logits
from prunebench.record.form import ModelFacts, Record

SIZE = 288
TOKENS = torch.randint(SIZE, (2, 15), generator=torch.Generator().manual_seed(2))
TEXTS = (
    "the 1234 inner things,  and  more\n\n\t12",
    " a space first, it's they'll",
    "naïve façade — 数学 ١٢٣ ½ とても 🙂👩‍👩‍👧",
    "<|im_start|>user\nthe<|im_end|> <tool>x",
    "",
)
VARIANTS = {
    "llama": {"rms_norm_eps": 1e-5},
    "llama-tied": {"tie_word_embeddings": True},
    "llama-wide": {"head_dim": 16, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    "qwen2": {},
    "qwen2-tied": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16},
    "phi3": {"pad_token_id": 2},
    "phi3-window": {"pad_token_id": 2, "sliding_window": 4},
}


def tiny(variant="llama", **changes):
    settings = {"vocab_size": SIZE, "bos_token_id": 1, "eos_token_id": 2, **VARIANTS[variant]}
    return make_tiny(variant.partition("-")[0], **{**settings, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny LLaMA's file; tests that damage it copy it."""
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny())


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_imported_model_computes_the_same_to_the_bit(variant, tmp_path):
    model = tiny(variant)
    done = import_gguf(write(tmp_path / "m.gguf", model), tmp_path / "out")
    again, _ = folders.load(tmp_path / "out")
    assert type(again) is type(model)
    assert (logits(model, TOKENS) - logits(again, TOKENS)).abs().max() == 0.0
    assert done.parameters == sum(p.numel() for p in model.parameters())
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    for key in ("rms_norm_eps", "max_position_embeddings", "rope_parameters", "bos_token_id"):
        assert getattr(again.config, key) == getattr(model.config, key), key


def test_stock_classes_load_the_folder(whole, tmp_path):
    import_gguf(whole, tmp_path / "out")
    stock, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, dtype="auto"
    )
    assert not any(report.values()) and stock.dtype == torch.float32
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not {"quantization_config", "_name_or_path"} & raw.keys()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_quantised_weights_are_what_the_types_had_left(kind, tmp_path):
    model = tiny(hidden_size=64, intermediate_size=96)
    path = write(tmp_path / "m.gguf", model, kind=kind)
    done = import_gguf(path, tmp_path / "out")
    assert done.note["quantisation"][kind] == 3 * 7 + 2
    check_weights(load_file(tmp_path / "out" / "model.safetensors"), path, heads=(4, 2))


def check_weights(weights, path, *, heads):
    """Every weight is the file's own, dequantised, with the rows of q and k put back."""
    from gguf import GGUFReader, dequantize

    stored = {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}
    assert {gguf_name(name) for name in weights} == set(stored)
    for name, weight in weights.items():
        if found := re.search(r"\.([qk])_proj\.", name):
            weight = permuted(weight, heads["qk".index(found[1])])
        assert torch.equal(weight, torch.tensor(stored[gguf_name(name)])), name


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_a_half_file_stays_half_where_no_value_changes(kind, tmp_path):
    half = {"F16": torch.float16, "BF16": torch.bfloat16}[kind]
    model = tiny()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(half).float()
    done = import_gguf(write(tmp_path / "m.gguf", model, kind=kind), tmp_path / "a")
    assert f"torch.{done.dtype}" == str(half)
    again, _ = folders.load(tmp_path / "a")
    assert (logits(model, TOKENS) - logits(again, TOKENS)).abs().max() == 0.0
    finer = write(tmp_path / "n.gguf", tiny(), kind=kind)  # its norms are finer than half
    assert import_gguf(finer, tmp_path / "b").dtype == "float32"


# ---------------------------------------------------------------- the tokenizer


def test_token_ids_are_those_of_a_plain_bpe(whole, tmp_path):
    import_gguf(whole, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    keys = tokenizer_keys(SIZE)
    plain = PlainBPE(*(keys[f"tokenizer.ggml.{k}"] for k in ("tokens", "merges", "token_type")))
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert ids == plain.encode(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens(list(range(3))) == SPECIALS
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert (*roles, tokenizer.pad_token_id) == (1, 2, 0, 2)
    assert tokenizer.decode([1, 5, 2], skip_special_tokens=True) == vocabulary(SIZE)[5]
    assert tokenizer.apply_chat_template([{"content": "x"}], tokenize=False) == "x"
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["add_bos_token"] is False and len(tokenizer) == SIZE


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("smollm", "a 1234's", ["a", "Ġ", "1", "2", "3", "4", "'s"]),
        ("gpt-2", "a 1234's", ["a", "Ġ1234", "'s"]),
        ("llama-bpe", "a 1234'S\n\nb", ["a", "Ġ", "123", "4", "'S", "ĊĊ", "b"]),
        ("qwen2", "a 12'S .\n b", ["a", "Ġ", "1", "2", "'S", "Ġ.Ċ", "Ġb"]),
    ],
)
def test_text_is_cut_as_the_file_names_it(pre, text, words, tmp_path):
    import_gguf(write(tmp_path / "m", tiny(), tokenizer__ggml__pre=pre), tmp_path / "out")
    backend = AutoTokenizer.from_pretrained(tmp_path / "out").backend_tokenizer
    assert [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)] == words


@pytest.mark.parametrize(
    ("keys", "front", "back"),
    [
        ({"tokenizer__ggml__add_bos_token": True}, [1], []),
        ({"tokenizer__ggml__add_eos_token": True}, [], [2]),
        ({"tokenizer__ggml__add_bos_token": None}, [], []),
        ({"tokenizer__ggml__add_bos_token": None, "tokenizer__ggml__pre": "llama-bpe"}, [1], []),
    ],
)
def test_bos_and_eos_stand_where_the_file_says(keys, front, back, tmp_path):
    import_gguf(write(tmp_path / "m.gguf", tiny(), **keys), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    inner = tokenizer("the", add_special_tokens=False).input_ids
    assert tokenizer("the").input_ids == [*front, *inner, *back]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"arch": "gptneox"}, "architecture gptneox cannot be imported exactly; known: llama"),
        ({"arch": "gemma2"}, "architecture gemma2 .*exactly: the file does not hold the scale"),
        ({"tokenizer__ggml__pre": "viking"}, "pre-tokenizer viking is unknown; known: gpt-2"),
        ({"tokenizer__ggml__pre": None}, "pre-tokenizer without a name is unknown"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer model llama cannot be rebuilt"),
        ({"arch__rope__scaling__type": "yarn"}, "llama.rope.scaling.type = yarn has no place"),
        ({"arch__expert_count": 8}, "llama.expert_count = 8 has no place"),
        ({"arch__rope__dimension_count": 4}, "llama.rope.dimension_count = 4 has no place"),
        ({"arch__attention__head_count_kv": [2, 1, 2]}, "head_count_kv: expected one int, got"),
        ({"split__count": 3}, "one of 3 parts of a model; join them"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(keys, message, tmp_path):
    path = write(tmp_path / "m.gguf", tiny(), **keys)
    refused(path, tmp_path, Unsupported, message)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"arch__block_count": 2**31}, "2147483648 blocks, with tensors for 3 of them; fetch"),
        ({"arch__feed_forward_length": 40}, r"mlp\S+ has shape \(48, 32\), its keys say \(40, 32"),
        ({"arch__attention__head_count_kv": None}, "no key llama.attention.head_count_kv"),
        (
            {"arch__attention__head_count": 0, "arch__rope__dimension_count": None},
            "its values make no llama model",
        ),
        ({"arch__attention__head_count_kv": 132}, "its tensors do not fit its keys: cannot resh"),
        ({"arch__context_length": None}, "no key llama.context_length"),
        ({"tokenizer__ggml__bos_token_id": 999}, "bos_token_id: 999 is outside its 288 tokens"),
        ({"tokenizer__ggml__merges": ["t h", "qq zz"]}, "merges do not fit its vocabulary"),
        ({"tokenizer__ggml__merges": ["t h", "the"]}, "merges do not fit its vocabulary"),
        ({"tokenizer__ggml__tokens": ["a"] * SIZE}, "a token stands twice"),
        ({"tokenizer__ggml__token_type": [1, 1]}, "288 tokens with 2 types; fetch"),
        ({"arch__vocab_size": SIZE - 1}, "288 tokens for 287 rows of weights"),
    ],
)
def test_a_file_at_odds_with_itself_is_refused(keys, message, tmp_path):
    path = write(tmp_path / "m.gguf", tiny(), **keys)
    refused(path, tmp_path, Invalid, message)


def test_tensors_without_a_place_are_refused(tmp_path):
    model = tiny("llama", attention_bias=True)
    path = write(tmp_path / "m.gguf", model)
    refused(path, tmp_path, Unsupported, r"tensor blk.0.attn_\w+.bias \(and 11 more\) has no place")
    scaled = write(tmp_path / "s.gguf", tiny(), more={"rope_freqs.weight": torch.ones(4)})
    refused(scaled, tmp_path, Unsupported, "tensor rope_freqs.weight has no place")
    fewer = write(tmp_path / "f.gguf", tiny(), arch__block_count=2)
    refused(fewer, tmp_path, Unsupported, r"tensor blk.2.\S+ \(and 8 more\) has no place")


def test_a_weight_without_a_tensor_is_named(tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    path = write(tmp_path / "m.gguf", tiny(), without=name)
    refused(path, tmp_path, Invalid, f"no tensor for {name}; fetch the file again")


def test_a_weight_that_is_not_finite_is_refused(tmp_path):
    model = tiny()
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = float("nan")
    path = write(tmp_path / "m.gguf", model)
    refused(path, tmp_path, Invalid, "model.layers.1.mlp.up_proj.weight is not finite")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.1, 0.5, 0.9, 0.99999])
def test_a_cut_file_is_refused(share, whole, tmp_path):
    content = whole.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: max(5, int(share * len(content)))])
    refused(path, tmp_path, Invalid, "cut short or damaged .*fetch the file again")


def test_other_files_and_none_are_refused(whole, tmp_path):
    refused(tmp_path / "none.gguf", tmp_path, Invalid, "no such file; give the path")
    refused(tmp_path, tmp_path, Invalid, "no such file")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04 something else")
    refused(other, tmp_path, Invalid, "not a GGUF file: expected it to begin with GGUF")
    other.write_bytes(b"")
    refused(other, tmp_path, Invalid, "not a GGUF file")
    old = bytearray(whole.read_bytes())
    old[4] = 1
    other.write_bytes(old)
    refused(other, tmp_path, Unsupported, "version 1 .*take a newer file")
    big = write(tmp_path / "big.gguf", tiny(), big=True)
    refused(big, tmp_path, Unsupported, "big-endian; only little-endian files are read")
    (tmp_path / "there").mkdir()
    with pytest.raises(Invalid, match="there: exists already; give a folder that does not"):
        import_gguf(whole, tmp_path / "there")


@pytest.mark.parametrize(
    ("number", "message"),
    [(99, "type is unknown to the package gguf"), (15, "tensors of type Q8_K .* cannot be read")],
)
def test_types_without_a_reader_are_refused(number, message, tmp_path):
    model = tiny()
    path = write(tmp_path / "m.gguf", model)
    content = bytearray(path.read_bytes())
    place = content.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    assert content[place : place + 4] == bytes(4)  # F32
    content[place - 8 : place - 6] = (256).to_bytes(2, "little")  # one block of Q8_K
    content[place] = number
    path.write_bytes(content)
    refused(path, tmp_path, Unsupported, message)


def test_without_the_package_it_says_so(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed
    refused(whole, tmp_path, Invalid, "package gguf is not installed; `pip install gguf`")


def refused(path, folder, kind, message):
    """The error is one line that names the file, and nothing is written."""
    before = sorted(folder.iterdir())
    with pytest.raises(kind, match=message) as caught:
        import_gguf(path, folder / "out")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert sorted(folder.iterdir()) == before


# ---------------------------------------------------------------- where it comes from


def test_the_command_and_the_marker_say_where_it_is_from(whole, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["import", str(whole), str(out)]) == 0
    assert "out: 41,696 parameters in float32, from tensors of F32 30" in capsys.readouterr().out
    marker = json.loads((out / "prunebench.json").read_text())
    assert (marker["format"], marker["loadable_by"]) == (1, "transformers")
    note = marker["imported_from"]
    assert note["file"] == "tiny.gguf" and len(note["sha256"]) == 64
    assert (note["architecture"], note["name"]) == ("llama", "Tiny")
    assert note["quantisation"] == {"F32": 30} and note["general"] == {"license": "apache-2.0"}
    assert main(["import", str(whole), str(out)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_every_record_of_the_model_says_so_too(whole, tmp_path):
    import_gguf(whole, tmp_path / "out")
    spec = pruning(tmp_path / "out", sparsity=0.1)
    facts = attempt(prune.prune, spec, tmp_path / "cell" / "prune.json")["model"]
    assert facts["imported"]["file"] == "tiny.gguf"
    record = Record.model_validate({**factory.record(), "model": facts})
    line = "imported from tiny.gguf (F32 30)"
    assert f"local {tmp_path / 'out'}, {line}" in record_text(record)
    assert _lead([record]).endswith(f"kind local, {line}")


def test_the_types_of_tensors_are_listed_with_plain_ones_last():
    note = {"file": "m.Q4_1.gguf", "sha256": "0" * 64, "architecture": "llama"}
    note |= {"quantisation": {"F32": 1061, "Q4_1": 210, "Q8_0": 1}}
    facts = ModelFacts.model_validate({**factory.record()["model"], "imported": note})
    assert imported_from(facts) == "imported from m.Q4_1.gguf (Q4_1 210, Q8_0 1, F32 1,061)"
    assert imported_from(ModelFacts.model_validate(factory.record()["model"])) == ""


# ---------------------------------------------------------------- a real file, where one is named


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real file of LLaMA's architecture with smollm's pre-tokenizer, and its import."""
    path = os.environ.get("PRUNEBENCH_GGUF")
    if not path:
        pytest.skip("PRUNEBENCH_GGUF names no file: SmolLM2-135M-Instruct.Q4_1.gguf is not here")
    folder = tmp_path_factory.mktemp("real") / "out"
    import_gguf(Path(path), folder)
    return Path(path), folder


@pytest.fixture(scope="module")
def texts():
    """200 texts of words, digits, spaces, other scripts, marks and emoji."""
    pieces = ["The ", "capital", " of", "France", "  ", "\n", "\n\n", "\t", " 1234567", "12", "½"]
    pieces += [" 3.14", "١٢٣", "数学", "とても", "привет", " Ελλάδα", "हिन्दी", "naïve", "e\u0301"]
    pieces += [
        "🙂",
        "👩‍👩‍👧",
        "'s",
        "'LL",
        "—",
        "...",
        "<|im_start|>",
        "x = y_1;",
        "\u00a0",
        "\u2028",
        "№7",
    ]
    draw = random.Random(3)
    return ["".join(draw.choices(pieces, k=draw.randint(1, 12))) for _ in range(200)]


def test_real_weights_are_those_of_the_file(real):
    path, folder = real
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"], config["num_key_value_heads"]
    check_weights(load_file(folder / "model.safetensors"), path, heads=heads)


def test_real_token_ids_are_those_of_a_plain_bpe(real, texts):
    from gguf import GGUFReader

    fields = GGUFReader(real[0]).fields
    parts = ("tokens", "merges", "token_type")
    plain = PlainBPE(*(fields[f"tokenizer.ggml.{part}"].contents() for part in parts))
    tokenizer = AutoTokenizer.from_pretrained(real[1])
    assert [tokenizer(text).input_ids for text in texts] == [plain.encode(text) for text in texts]


def test_real_token_ids_are_those_of_llama_cpp(real, texts):
    llama_cpp = pytest.importorskip("llama_cpp")
    original = llama_cpp.Llama(str(real[0]), vocab_only=True, verbose=False)
    tokenizer = AutoTokenizer.from_pretrained(real[1])
    for text in texts:
        expected = original.tokenize(text.encode(), add_bos=False, special=True)
        assert tokenizer(text).input_ids == expected, text


def test_the_real_model_knows_the_capital_of_france(real):
    model, tokenizer = folders.load(real[1])
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert "Paris" in tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0])
