"""Conversion: a Baichuan-7B folder becomes a stock one that computes exactly the same."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from conftest import make_tiny
from safetensors.torch import load_file, save_file

from prunebench.cli import main
from prunebench.errors import Invalid, Unsupported
from prunebench.models import checks, folders
from prunebench.models.convert import convert, refusal
from prunebench.models.stock_tokenizer import PROBES, save_stock_tokenizer
from prunebench.pruning.surgery import logits

TOKENS = torch.randint(258, (2, 15), generator=torch.Generator().manual_seed(2))
BAICHUAN_7B = {
    "architectures": ["BaiChuanForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_baichuan.BaiChuanConfig",
        "AutoModelForCausalLM": "modeling_baichuan.BaiChuanForCausalLM",
    },
    "model_type": "baichuan",
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
CONFIG_13B = {k: v for k, v in BAICHUAN_7B.items() if k != "max_position_embeddings"}
CONFIG_13B |= {"num_attention_heads": 40, "hidden_size": 5120, "model_max_length": 4096}
CONFIG_13B |= {"architectures": ["BaichuanForCausalLM"]}


@pytest.fixture
def source(tmp_path, tokenizer):
    """A tiny LLaMA and a Baichuan-7B folder of two shards that holds the same weights."""
    model = make_tiny(num_key_value_heads=4)
    tensors = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for i in range(3):
        attention = f"model.layers.{i}.self_attn"
        parts = [tensors.pop(f"{attention}.{part}_proj.weight") for part in "qkv"]
        tensors[f"{attention}.W_pack.weight"] = torch.cat(parts)
        tensors[f"{attention}.rotary_emb.inv_freq"] = torch.ones(4)
    folder = tmp_path / "baichuan"
    folder.mkdir()
    tokenizer.save_pretrained(folder)
    places = {
        name: f"model-{1 + (i > 9):05d}-of-00002.safetensors" for i, name in enumerate(tensors)
    }
    for shard in set(places.values()):
        save_file({n: t for n, t in tensors.items() if places[n] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text(json.dumps(BAICHUAN_7B))
    ran = tmp_path / "ran"
    (folder / "modeling_baichuan.py").write_text(f"open({str(ran)!r}, 'w')\n")
    return model, folder


def change_config(folder, **changes):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))


def test_a_converted_checkpoint_computes_the_same_to_the_bit(source, tmp_path):
    model, folder = source
    written = convert(folder, tmp_path / "stock")
    again, tokenizer = folders.load(tmp_path / "stock")
    assert (logits(model, TOKENS) - logits(again, TOKENS)).abs().max() == 0.0
    assert type(again).__name__ == "LlamaForCausalLM" and again.config.model_type == "llama"
    assert written.shards == 2 and written.tokenizer == "tokenizer.json"
    assert written.parameters == sum(p.numel() for p in model.parameters())
    assert tokenizer.decode(tokenizer("two words").input_ids[1:]) == "two words"


def test_q_k_and_v_are_what_baichuan_unpacks(source, tmp_path):
    """Baichuan views the output of W_pack as [..., 3, hidden]."""
    _, folder = source
    convert(folder, tmp_path / "stock")
    old = {n: t for f in checks.weight_files(folder) for n, t in load_file(f).items()}
    new = {n: t for f in checks.weight_files(tmp_path / "stock") for n, t in load_file(f).items()}
    x = torch.randn(5, 32)
    packed = (x @ old["model.layers.1.self_attn.W_pack.weight"].T).unflatten(-1, (3, 32))
    for i, part in enumerate("qkv"):
        got = x @ new[f"model.layers.1.self_attn.{part}_proj.weight"].T
        assert torch.allclose(got, packed[:, i], atol=1e-6)


def test_remote_code_is_not_run_and_not_taken_along(source, tmp_path):
    _, folder = source
    convert(folder, tmp_path / "stock")
    assert not (tmp_path / "ran").exists()
    assert {p.suffix for p in (tmp_path / "stock").iterdir()} == {".json", ".safetensors"}
    assert "auto_map" not in (tmp_path / "stock" / "config.json").read_text()


def test_without_conversion_the_folder_is_refused_and_its_code_not_run(source, tmp_path):
    _, folder = source
    with pytest.raises(Invalid, match="trust_remote_code: true .*prunebench convert"):
        folders.load(folder)
    assert not (tmp_path / "ran").exists()


def test_bits_of_half_precision_stay(source, tmp_path):
    _, folder = source
    for path in checks.weight_files(folder):
        save_file({n: t.bfloat16() for n, t in load_file(path).items()}, path)
    convert(folder, tmp_path / "stock")
    tensors = [t for f in checks.weight_files(tmp_path / "stock") for t in load_file(f).values()]
    assert {t.dtype for t in tensors} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CONFIG_13B, "Baichuan-13B has ALiBi"),
        ({**BAICHUAN_7B, "vocab_size": 125696}, "NormHead"),
        ({**BAICHUAN_7B, "z_loss_weight": 0}, "NormHead"),
        ({**BAICHUAN_7B, "architectures": ["BaichuanForCausalLM"]}, "expected architectures"),
        ({"model_type": "chatglm", "position_encoding_2d": True}, "reads its prompt in both"),
        ({"model_type": "chatglm", "multi_query_attention": True}, "zai-org/glm-4-9b-hf"),
        ({"model_type": "llama"}, "no conversion is needed"),
        ({"model_type": "internlm2"}, "'internlm2' cannot be converted; known: baichuan"),
        ({}, "None cannot be converted"),
    ],
)
def test_what_has_no_stock_equivalent_is_refused_with_the_reason(tmp_path, config, reason):
    assert refusal(BAICHUAN_7B) is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unsupported, match=reason):
        convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 4}, r"model.layers.3.input_layernorm.weight: expected \(32,\), got"),
        ({"num_hidden_layers": 2}, "model.layers.2.input_layernorm.weight: expected none"),
        ({"intermediate_size": 40}, r"mlp.down_proj.weight: expected \(32, 40\), got \(32, 48\)"),
        ({"hidden_size": 64}, r"lm_head.weight: expected \(258, 64\), got \(258, 32\)"),
        ({"num_attention_heads": 5}, "config.json: "),
    ],
)
def test_a_config_that_disagrees_with_the_weights_is_refused(source, tmp_path, changes, message):
    _, folder = source
    change_config(folder, **changes)
    with pytest.raises(Invalid, match=message) as caught:
        convert(folder, tmp_path / "stock")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "stock").exists()


def test_incomplete_folders_are_refused_in_one_line(source, tmp_path):
    _, folder = source
    out = tmp_path / "stock"
    shard = folder / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(Invalid, match="00002.safetensors: not a whole safetensors file"):
        convert(folder, out)
    shard.unlink()
    with pytest.raises(Invalid, match="missing shard model-00002-of-00002.safetensors"):
        convert(folder, out)
    shard.write_bytes(content)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Invalid, match="expected tokenizer.json or tokenizer.model"):
        convert(folder, out)
    for path in checks.weight_files(folder):
        path.rename(path.with_suffix(".bin"))
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(Invalid, match="only pickled weights; docs/paper-reproduction.md says how"):
        convert(folder, out)
    (folder / "config.json").write_text("{")
    with pytest.raises(Invalid, match="config.json: not valid JSON"):
        convert(folder, out)
    assert [p.name for p in tmp_path.iterdir()] == ["baichuan"]


def test_nothing_is_written_over(source, tmp_path):
    _, folder = source
    with pytest.raises(Invalid, match="exists already"):
        convert(folder, folder)


def test_the_command_says_what_it_wrote(source, tmp_path, capsys):
    _, folder = source
    assert main(["convert", str(folder), str(tmp_path / "stock")]) == 0
    assert "2 shards, 42,848 parameters" in capsys.readouterr().out
    assert main(["convert", "nobody/model", str(tmp_path / "other")]) == 1
    assert "download a hub model first" in capsys.readouterr().err


def test_a_sentencepiece_tokenizer_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as if it were not installed
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(Invalid, match="pip install sentencepiece protobuf"):
        save_stock_tokenizer(tmp_path, tmp_path)


@pytest.fixture(params=[True, False], ids=["prefix", "no prefix"])
def spoken(request, tmp_path):
    """A sentencepiece model, and a folder that holds it as Baichuan's folders do."""
    pytest.importorskip("google.protobuf")
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("\n".join(PROBES * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=request.param,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    settings = {
        "tokenizer_class": "BaiChuanTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaiChuanTokenizer", None]},
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": False,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    model = str(tmp_path / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(model_file=model), tmp_path


def test_a_sentencepiece_tokenizer_becomes_a_stock_one(spoken, tmp_path):
    from transformers import AutoTokenizer

    original, folder = spoken
    out = tmp_path / "out"
    out.mkdir()
    assert save_stock_tokenizer(folder, out) == "tokenizer.model"
    assert sorted(p.name for p in out.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    stock = AutoTokenizer.from_pretrained(out)
    for text in (*PROBES, "an unseen text, \u00e9 \u2603"):
        assert stock(text).input_ids == original.encode(text)
    assert (stock.bos_token, stock.eos_token) == ("<s>", "</s>")


def test_a_stock_tokenizer_with_other_ids_is_refused(spoken, tmp_path, monkeypatch):
    from prunebench.models import stock_tokenizer

    build = stock_tokenizer._build
    wrong = lambda *args, prefix: build(*args, prefix=not prefix)  # noqa: E731
    monkeypatch.setattr(stock_tokenizer, "_build", wrong)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Unsupported, match="makes other ids of 'The quick brown"):
        save_stock_tokenizer(spoken[1], out)
