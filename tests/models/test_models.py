"""Saving and loading: pruned models are real models, for stock classes too if uniform."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import make_tiny

from prunebench.errors import Invalid, Unsupported
from prunebench.models import folders
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import logits, slice_model

TOKENS = torch.randint(258, (2, 15), generator=torch.Generator().manual_seed(2))
UNIFORM = {f"layers.{i}.neurons": (1, 5, 7) for i in range(3)}
MIXED = {"layers.0.heads": (1,), "layers.2.neurons": tuple(range(9))}
NARROW = {"hidden": tuple(range(28))}


def saved(tmp_path, tokenizer, keep, family="llama", **changes):
    model = make_tiny(family, **changes)
    decision = Decision(keep)
    uniform = slice_model(model, decision)
    folder = tmp_path / "model"
    loader = folders.save(model, tokenizer, folder, uniform=uniform, decision=decision.to_json())
    return model, folder, loader == "transformers"


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("keep", [UNIFORM, MIXED, NARROW, {"layers": (0, 2)}, {**MIXED, **NARROW}])
def test_a_saved_model_comes_back_equal(tmp_path, tokenizer, keep, tie):
    model, folder, stock = saved(tmp_path, tokenizer, keep, tie_word_embeddings=tie)
    again, _ = folders.load(folder)
    assert torch.equal(logits(model, TOKENS), logits(again, TOKENS))
    assert stock == ("layers.0.heads" not in keep)
    assert again.config.tie_word_embeddings == tie
    options = {"attention_mask": torch.ones_like(TOKENS), "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(TOKENS, **options), again.generate(TOKENS, **options))


def test_stock_classes_load_a_uniform_model_without_this_package(tmp_path, tokenizer):
    model, folder, stock = saved(tmp_path, tokenizer, UNIFORM)
    assert stock
    expected = logits(model, TOKENS).sum().item()
    code = (
        "import sys, torch, transformers; assert 'prunebench' not in sys.modules;"
        f"m = transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r}).eval();"
        f"print(m(torch.tensor({TOKENS.tolist()})).logits.double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(expected, abs=1e-2)


def test_heads_that_do_not_divide_the_width_load_as_stock(tmp_path, tokenizer):
    """LlamaConfig refuses 3 heads at width 32; the folder says mistral, the same computation."""
    from transformers import AutoModelForCausalLM

    keep = {f"layers.{i}.heads": (0, 1, 3) for i in range(3)}
    model, folder, stock = saved(tmp_path, tokenizer, keep, num_key_value_heads=4)
    assert stock and json.loads((folder / "config.json").read_text())["model_type"] == "mistral"
    stock_model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits(model, TOKENS), logits(stock_model, TOKENS))


def test_awkward_shapes_that_no_stock_class_has_are_ours(tmp_path, tokenizer):
    """Biases and 3 heads at width 32, or mixed layers at a width that heads do not divide."""
    biased = {f"layers.{i}.heads": (0, 1, 3) for i in range(3)}
    options = {"num_key_value_heads": 4, "attention_bias": True}
    for keep, changes in ((biased, options), ({**MIXED, "hidden": tuple(range(30))}, {})):
        model, folder, stock = saved(tmp_path, tokenizer, keep, **changes)
        assert not stock
        assert torch.equal(logits(model, TOKENS), logits(folders.load(folder)[0], TOKENS))


def test_stock_classes_refuse_a_mixed_model(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    _, folder, stock = saved(tmp_path, tokenizer, MIXED)
    assert not stock
    with pytest.raises(RuntimeError):
        AutoModelForCausalLM.from_pretrained(folder)


def test_the_decision_lies_beside_the_weights(tmp_path, tokenizer):
    _, folder, _ = saved(tmp_path, tokenizer, MIXED)
    assert folders.describe(folder)["decision"]["keep"] == {k: list(v) for k, v in MIXED.items()}
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_saving_replaces_a_half_written_folder(tmp_path, tokenizer):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut off")
    model, folder, _ = saved(tmp_path, tokenizer, UNIFORM)
    assert torch.equal(logits(model, TOKENS), logits(folders.load(folder)[0], TOKENS))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_digest_follows_the_weights(tmp_path, tokenizer):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = folders.weights_digest(saved(tmp_path / "a", tokenizer, UNIFORM)[1])
    other = folders.weights_digest(saved(tmp_path / "b", tokenizer, UNIFORM, seed=1)[1])
    assert len(first) == 64 and first != other


def test_what_cannot_be_loaded_is_one_clear_line(tmp_path, tokenizer):
    _, folder, _ = saved(tmp_path, tokenizer, MIXED)
    with pytest.raises(Invalid, match="found no config.json"):
        folders.load(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Invalid, match="only pickled weights"):
        folders.load(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(Invalid, match="found no safetensors"):
        folders.load(folder)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Invalid, match="missing shard model-00001-of-00002.safetensors"):
        folders.load(folder)


@pytest.mark.parametrize(
    "source, message",
    [
        ("/nowhere/at/all", "found no such folder"),
        ("models/of/mine", "found no such folder"),
    ],
)
def test_a_source_that_is_not_there_is_one_clear_line(source, message):
    with pytest.raises(Invalid, match=message) as raised:
        folders.load(source)
    assert str(raised.value).startswith(f"model {source}: ") and "\n" not in str(raised.value)


def test_a_mixed_folder_with_a_tensor_missing_is_refused(tmp_path, tokenizer):
    from safetensors.torch import load_file, save_file

    _, folder, _ = saved(tmp_path, tokenizer, MIXED)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(Invalid, match="missing .'model.norm.weight'"):
        folders.load(folder)


def test_half_a_weight_file_is_refused(tmp_path, tokenizer):
    for keep in (UNIFORM, MIXED):
        _, folder, _ = saved(tmp_path, tokenizer, keep)
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(Invalid, match="a weight file is cut off") as caught:
            folders.load(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_hidden_layers": 4},
            r"model.layers.3.input_layernorm.weight is missing \(and 8 more",
        ),
        ({"num_hidden_layers": 2}, "model.layers.2.input_layernorm.weight is not in the config's"),
        (
            {"vocab_size": 100},
            r"lm_head.weight has shape \(258, 32\), the config says \(100, 32\) \(and 1 more",
        ),
        ({"intermediate_size": 50}, r"shape \(32, 3\), the config says \(32, 50\) \(and 8 more"),
        ({"attention_bias": True}, "layers.0.self_attn.k_proj.bias is missing"),
        ({"num_attention_heads": 3}, "config is not valid: .*not a multiple of the number of"),
    ],
)
def test_a_config_that_disagrees_with_its_weights_is_refused(tmp_path, tokenizer, changes, message):
    """transformers itself would draw missing layers at random and leave surplus ones out."""
    _, folder, _ = saved(tmp_path, tokenizer, UNIFORM)
    assert folders.load(folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))
    with pytest.raises(Invalid, match=message) as caught:
        folders.load(folder)
    assert "\n" not in str(caught.value)


def test_buffers_of_old_checkpoints_do_no_harm(tmp_path, tokenizer):
    from safetensors.torch import load_file, save_file

    model, folder, _ = saved(tmp_path, tokenizer, UNIFORM)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits(model, TOKENS), logits(folders.load(folder)[0], TOKENS))


def test_a_hub_model_without_network_is_one_line(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Invalid, match="nobody/nothing: not a local folder, and not on") as caught:
        folders.load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_remote_code_runs_only_where_it_is_asked_for(tmp_path, tokenizer, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    model, folder, _ = saved(tmp_path, tokenizer, UNIFORM)
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"open({str(ran)!r}, 'w').close()\n"
        "class C(LlamaConfig):\n    model_type = 'own'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "own", "architectures": ["M"]}
    raw["auto_map"] = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(Invalid, match="not run unless the model's entry says trust_remote_code"):
        folders.load(folder)
    assert not ran.exists()
    again, _ = folders.load(folder, trust_remote_code=True)
    assert ran.exists() and type(again).__name__ == "M"
    assert torch.equal(logits(model, TOKENS), logits(again, TOKENS))
    with pytest.raises(Unsupported, match="model type 'own' is not supported; known: bloom"):
        structures_of(again)
