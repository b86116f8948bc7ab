"""Model folders that must not be loaded as if nothing were wrong, and old ones that may."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny
from safetensors.torch import load_file, save_file
from torch import nn

from prunebench.errors import Invalid
from prunebench.models import checks, folders
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import count_parameters, cut, logits
from prunebench.pruning.tying import head_is_tied

TOKENS = torch.randint(258, (2, 15), generator=torch.Generator().manual_seed(2))
MIXED = {"layers.0.heads": (1,), "layers.2.neurons": tuple(range(9))}


def saved(folder: Path, tokenizer: Any, family: str = "llama", **changes: Any) -> Any:
    model = make_tiny(family, **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- tensors without a place ----------------------------------------------------------------------

LAYER = "model.layers.0"
SURPLUS = {
    f"{LAYER}.self_attn.q_proj.bias": (32,),  # as FLAP and some tuned checkpoints have
    f"{LAYER}.self_attn.o_proj.bias": (32,),
    f"{LAYER}.mlp.down_proj.bias": (32,),
    f"{LAYER}.self_attn.q_norm.weight": (8,),
    f"{LAYER}.mlp.gate_proj.weight_scale": (1,),
    f"{LAYER}.mlp.gate_proj.qweight": (4, 50),
    f"{LAYER}.self_attn.q_proj.lora_A.default.weight": (2, 32),
    "model.layers.3.mlp.up_proj.weight": (50, 32),
    "model.layers.0.self_attn.attention.bias": (32,),  # a vector is no causal mask
    "model.layers.0.self_attn.rotary_emb.inv_freq": (2, 4),
    "model.norm.bias": (32,),
    "lm_head.bias": (258,),
    "score": (3,),
}


@pytest.mark.parametrize("name", SURPLUS)
def test_a_tensor_without_a_place_is_refused_whatever_it_is_called(tmp_path, tokenizer, name):
    saved(tmp_path / "m", tokenizer)
    assert folders.load(tmp_path / "m")
    change(tmp_path / "m", lambda tensors: tensors.update({name: torch.ones(SURPLUS[name])}))
    with pytest.raises(Invalid, match=f"{name} is not in the config's model"):
        folders.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["gpt_neox.layers.0.attention.bias", "attention.bias.extra"])
def test_what_a_family_passes_over_is_looked_at_again(tmp_path, tokenizer, name):
    """GPTNeoX has transformers ignore every name with attention.bias in it."""
    saved(tmp_path / "m", tokenizer, "gpt_neox")
    change(tmp_path / "m", lambda tensors: tensors.update({name: torch.ones(32)}))
    with pytest.raises(Invalid, match=f"{name} is not in the config's model"):
        folders.load(tmp_path / "m")


def test_buffers_that_old_checkpoints_hold_do_no_harm(tmp_path, tokenizer):
    model = saved(tmp_path / "m", tokenizer, "gpt_neox")
    old = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
        "gpt_neox.embed_in.position_ids": torch.arange(64)[None],
    }
    change(tmp_path / "m", lambda tensors: tensors.update(old))
    again, _ = folders.load(tmp_path / "m")
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


def test_a_pruned_folder_is_as_strict(tmp_path, tokenizer):
    model = make_tiny("llama")
    _, uniform = cut(model, Decision(MIXED), TOKENS)
    folders.save(model, tokenizer, tmp_path / "m", uniform=uniform)
    name = f"{LAYER}.input_layernorm.bias"  # of a Linear it could be what a method added
    change(tmp_path / "m", lambda tensors: tensors.update({name: torch.ones(32)}))
    with pytest.raises(Invalid, match=f"unknown .'{name}'"):
        folders.load(tmp_path / "m")


def test_a_bias_that_was_there_when_a_pruned_folder_was_saved_is_read(tmp_path, tokenizer):
    model = make_tiny("llama")
    _, uniform = cut(model, Decision(MIXED), TOKENS)
    model.model.layers[0].mlp.down_proj.bias = nn.Parameter(torch.ones(32))
    folders.save(model, tokenizer, tmp_path / "m", uniform=uniform)
    name = f"{LAYER}.mlp.down_proj.bias"
    assert folders.describe(tmp_path / "m")["added"] == [name]
    again, _ = folders.load(tmp_path / "m")
    assert again.get_parameter(name).tolist() == [1.0] * 32
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


def test_a_shard_may_hold_no_more_than_its_index_lists(tmp_path, tokenizer):
    model = make_tiny("llama")
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path / "m")
    index = json.loads((tmp_path / "m" / checks.INDEX).read_text())
    shard = tmp_path / "m" / next(iter(index["weight_map"].values()))
    tensors = load_file(shard) | {f"{LAYER}.self_attn.q_proj.bias": torch.ones(32)}
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(Invalid, match="q_proj.bias is not in the config's model"):
        folders.load(tmp_path / "m")


def test_of_one_file_and_an_index_the_one_that_transformers_loads_is_named(tmp_path, tokenizer):
    saved(tmp_path / "m", tokenizer)
    (tmp_path / "m" / checks.INDEX).write_text('{"weight_map": {"a": "other.safetensors"}}')
    assert checks.weight_files(tmp_path / "m") == [tmp_path / "m" / "model.safetensors"]
    assert folders.load(tmp_path / "m")


# --- is the head tied? identity decides -----------------------------------------------------------


def untied_under_a_tied_flag(folder, tokenizer, family="llama"):
    """A folder whose config says tied, and whose file holds a head of other values."""
    saved(folder, tokenizer, family, tie_word_embeddings=True)
    head = torch.randn(258, 32, generator=torch.Generator().manual_seed(5)) / 6
    change(folder, lambda tensors: tensors.update({"lm_head.weight": head}))
    return head


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "gemma2", "phi3", "glm4"])
@pytest.mark.parametrize("kind", ["heads", "hidden"])
def test_a_head_of_other_values_is_kept_cut_and_saved(tmp_path, tokenizer, family, kind):
    head = untied_under_a_tied_flag(tmp_path / "m", tokenizer, family)
    model, _ = folders.load(tmp_path / "m")
    assert not head_is_tied(model) and not model.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, head)
    structures = structures_of(model)
    name = "hidden" if kind == "hidden" else "layers.0.heads"
    units = structures[name].units
    decision = Decision({name: tuple(range(units * 3 // 4 if kind == "hidden" else 1))})
    before = count_parameters(model)
    verification, uniform = cut(model, decision, TOKENS)
    assert verification.passed and count_parameters(model) < before
    folders.save(model, tokenizer, tmp_path / "pruned", uniform=uniform)
    assert not json.loads((tmp_path / "pruned/config.json").read_text())["tie_word_embeddings"]
    again, _ = folders.load(tmp_path / "pruned")
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


def test_a_flag_that_lies_about_a_model_in_memory_changes_nothing(tmp_path, tokenizer):
    for tied in (True, False):
        model = make_tiny("llama", tie_word_embeddings=tied)
        model.config.tie_word_embeddings = not tied
        assert ("lm_head.weight" in names_of_hidden(model)) is not tied
        verification, uniform = cut(model, Decision({"hidden": tuple(range(24))}), TOKENS)
        assert verification.passed and head_is_tied(model) is tied
        folders.save(model, tokenizer, tmp_path / f"{tied}", uniform=uniform)
        again, _ = folders.load(tmp_path / f"{tied}")
        assert head_is_tied(again) is tied
        assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


def names_of_hidden(model):
    return {coupling.parameter for coupling in structures_of(model)["hidden"].couplings}


def test_an_equal_head_beside_a_tied_flag_is_tied(tmp_path, tokenizer):
    model = saved(tmp_path / "m", tokenizer, tie_word_embeddings=True)
    same = model.lm_head.weight.detach().clone()
    change(tmp_path / "m", lambda tensors: tensors.update({"lm_head.weight": same}))
    again, _ = folders.load(tmp_path / "m")
    assert head_is_tied(again) and count_parameters(again) == count_parameters(model)


def test_a_head_that_an_untied_flag_asks_for_must_be_there(tmp_path, tokenizer):
    saved(tmp_path / "m", tokenizer)
    change(tmp_path / "m", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(Invalid, match="lm_head.weight is missing"):
        folders.load(tmp_path / "m")


def test_mixed_layers_and_an_untied_head_under_a_tied_flag_come_back(tmp_path, tokenizer):
    model = make_tiny("llama", tie_word_embeddings=True)
    model.lm_head.weight = nn.Parameter(torch.randn(258, 32) / 6)
    verification, uniform = cut(model, Decision(MIXED), TOKENS)
    assert verification.passed and not uniform
    folders.save(model, tokenizer, tmp_path / "m", uniform=uniform)
    again, _ = folders.load(tmp_path / "m")
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS)) and not head_is_tied(again)


# --- folders that are no plain model --------------------------------------------------------------


def test_an_adapter_beside_base_weights_is_refused(tmp_path, tokenizer):
    from peft import LoraConfig, get_peft_model

    model = saved(tmp_path / "m", tokenizer)
    other = make_tiny("llama", seed=3)
    wrapped = get_peft_model(other, LoraConfig(target_modules=["q_proj"], r=2))
    wrapped.save_pretrained(tmp_path / "m")
    with pytest.raises(Invalid, match="PEFT adapter .*not merged.*merge_and_unload") as caught:
        folders.load(tmp_path / "m")
    assert "\n" not in str(caught.value)
    (tmp_path / "m" / "adapter_config.json").unlink()
    (tmp_path / "m" / "adapter_model.safetensors").unlink()
    again, _ = folders.load(tmp_path / "m")
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


def test_quantised_weights_are_refused_by_name(tmp_path, tokenizer):
    saved(tmp_path / "m", tokenizer)
    file = tmp_path / "m" / "config.json"
    raw = json.loads(file.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    file.write_text(json.dumps(raw))
    with pytest.raises(Invalid, match=r"weights are quantised \(gptq\)"):
        folders.load(tmp_path / "m")


def without_tokenizer(folder, tokenizer):
    saved(folder, tokenizer)
    for path in folder.glob("*token*"):
        path.unlink()


def test_a_folder_without_any_tokenizer_says_what_is_missing(tmp_path, tokenizer):
    without_tokenizer(tmp_path / "m", tokenizer)
    with pytest.raises(Invalid, match="expected a tokenizer beside the weights .*found none$"):
        folders.load(tmp_path / "m")


@pytest.mark.parametrize("missing", ["sentencepiece", "google.protobuf"])
def test_a_sentencepiece_tokenizer_alone_names_the_packages(
    tmp_path, tokenizer, monkeypatch, missing
):
    without_tokenizer(tmp_path / "m", tokenizer)
    (tmp_path / "m" / "tokenizer.model").write_bytes(b"pieces")
    monkeypatch.setattr(checks, "_is_installed", lambda name: name != missing)
    with pytest.raises(Invalid, match="only tokenizer is tokenizer.model.*pip install sentencepi"):
        folders.load(tmp_path / "m")
    monkeypatch.setattr(checks, "_is_installed", lambda name: True)
    checks.check_folder(tmp_path / "m")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_that_is_not_finite_is_named_with_its_tensor(tmp_path, tokenizer, value):
    saved(tmp_path / "m", tokenizer)
    name = f"{LAYER}.mlp.up_proj.weight"
    change(tmp_path / "m", lambda tensors: tensors[name].view(-1)[:1].fill_(value))
    with pytest.raises(Invalid, match=f"the checkpoint is not finite: {name}, read as float32"):
        folders.load(tmp_path / "m")


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, tokenizer, monkeypatch):
    """A model in a hub cache on this disk: (its id, its commit, its snapshot folder)."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    saved(snapshot, tokenizer)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return "someone/tiny", commit, snapshot


def test_a_hub_model_is_a_folder_of_its_commit(hub):
    source, commit, snapshot = hub
    assert folders.folder_of(source) == snapshot and folders.folder_of(source, commit) == snapshot
    model, _ = folders.load(source)
    assert torch.equal(logits(model, TOKENS), logits(folders.load(snapshot)[0], TOKENS))


def test_what_is_wrong_with_a_hub_model_is_found_as_in_a_folder(hub):
    source, _, snapshot = hub
    change(snapshot, lambda tensors: tensors.update({f"{LAYER}.mlp.up_proj.bias": torch.ones(50)}))
    with pytest.raises(Invalid, match="up_proj.bias is not in the config's model"):
        folders.load(source)
    (snapshot / "adapter_config.json").write_text("{}")
    with pytest.raises(Invalid, match="PEFT adapter"):
        folders.load(source)
    shutil.rmtree(snapshot)
    with pytest.raises(Invalid, match="not on the hub or in its cache"):
        folders.load(source)
