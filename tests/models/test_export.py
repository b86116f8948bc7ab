"""Export: mixed layers become alike, by zero units (same function) or by a further cut (marked)."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conftest import make_tiny
from family_cases import CASES
from transformers import AutoModelForCausalLM

from prunebench.cli import main
from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.models import folders, uniform
from prunebench.pruning.architectures import FAMILIES, structures_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import count_parameters, logits, slice_model

TOKENS = torch.randint(258, (2, 15), generator=torch.Generator().manual_seed(2))
MIXED = {
    "layers.0.heads": (1,),
    "layers.1.neurons": (0, 5, 7, 40),
    "layers.2.neurons": tuple(range(9)),
}


def saved(tmp_path, tokenizer, keep=MIXED, family="llama", dtype=torch.float32, **changes):
    model = make_tiny(family, **changes).to(dtype)
    uniform = slice_model(model, Decision(keep))
    folder = tmp_path / "pruned"
    folders.save(model, tokenizer, folder, uniform=uniform, decision=Decision(keep).to_json())
    return model, folder


def widths(model):
    """Numbers of units over all layers: heads (KV groups), neurons."""
    found = structures_of(model).values()
    return tuple({s.units for s in found if s.kind == kind} for kind in ("heads", "neurons"))


def norms_over_heads(family):
    """Whether heads share a norm, which an added one would change."""
    gates = structures_of(make_tiny(family))["layers.0.heads"].gates
    return any(gate.side == "statistics" for gate in gates)


@pytest.mark.parametrize("family", [name for name in FAMILIES if not norms_over_heads(name)])
def test_a_padded_model_of_every_family_is_stock_and_computes_the_same(tmp_path, tokenizer, family):
    dense = widths(make_tiny(family))
    heads = tuple(range(1, max(dense[0]))) or (0,)  # a family of one KV head keeps it
    model, folder = saved(tmp_path, tokenizer, {**MIXED, "layers.0.heads": heads}, family)
    done = uniform.export_uniform(folder, tmp_path / "out", how="pad")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert (logits(stock, TOKENS) - logits(model, TOKENS)).abs().max() < 1e-5
    assert widths(stock) == dense  # layers that were left whole give the dense shapes back
    assert done.parameters == count_parameters(stock) > count_parameters(model)
    assert done.parameters_before == count_parameters(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_of_every_family_is_stock_or_refused(tmp_path, tokenizer, family):
    several = max(widths(make_tiny(family))[0]) > 1
    keep = {k: v for k, v in MIXED.items() if several or not k.endswith("heads")}
    _, folder = saved(tmp_path, tokenizer, keep, family)
    try:
        uniform.export_uniform(folder, tmp_path / "out", how="cut")
    except Unsupported as error:  # families whose config has no number of its own for a width
        assert f"no stock class of {family} has these shapes" in str(error)
        assert any(case.own_loader for case in CASES.values() if case.family == family)
        assert not (tmp_path / "out").exists()
        return
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert widths(stock) == ({1}, {4})


def test_norms_of_single_heads_are_padded_with_them(tmp_path, tokenizer):
    changes = {"qk_layernorm": True, "num_key_value_heads": 2}
    model, folder = saved(tmp_path, tokenizer, MIXED, "stablelm", **changes)
    uniform.export_uniform(folder, tmp_path / "out", how="pad")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert (logits(stock, TOKENS) - logits(model, TOKENS)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("family", "keep", "why"),
    [
        ("olmo2", {"layers.0.heads": (1,)}, "norm over all heads would count the added ones"),
        ("mixtral", {"layers.0.experts": (0, 2, 3)}, "router would send tokens to an added expert"),
    ],
)
def test_units_that_zeros_do_not_make_absent_are_cut_only(tmp_path, tokenizer, family, keep, why):
    _, folder = saved(tmp_path, tokenizer, keep, family)
    with pytest.raises(Unsupported, match=f"cannot be padded with zeros: the {why}|a {why}"):
        uniform.export_uniform(folder, tmp_path / "out", how="pad")
    assert not (tmp_path / "out").exists()
    uniform.export_uniform(folder, tmp_path / "out", how="cut")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ((name, kept),) = keep.items()
    kind = name.rpartition(".")[2]
    units = {s.units for s in structures_of(stock).values() if s.kind == kind}
    assert units == {len(kept)}


@pytest.mark.skipif("bloom" not in FAMILIES, reason="no family with ALiBi here")
@pytest.mark.parametrize(
    ("few", "message"),
    [((1, 3), "heads have slopes by their original numbers"), ((1, 2), "no stock class of bloom")],
)
def test_heads_with_slopes_need_a_layer_that_has_them_all(tmp_path, tokenizer, few, message):
    keep = {"layers.0.heads": (1, 2, 3), "layers.1.heads": few, "layers.2.heads": (0, 1, 2)}
    _, folder = saved(tmp_path, tokenizer, keep, "bloom")
    with pytest.raises(Unsupported, match=message):
        uniform.export_uniform(folder, tmp_path / "out", how="pad")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tie", [False, True])
def test_a_padded_model_generates_the_same(tmp_path, tokenizer, tie):
    model, folder = saved(tmp_path, tokenizer, tie_word_embeddings=tie)
    uniform.export_uniform(folder, tmp_path / "out", how="pad")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    options = {"attention_mask": torch.ones_like(TOKENS), "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(stock.generate(TOKENS, **options), model.generate(TOKENS, **options))


def test_padding_goes_up_to_the_largest_layer_only(tmp_path, tokenizer):
    whole = {f"layers.{i}.neurons": tuple(range(20 + i)) for i in range(3)}
    model, folder = saved(tmp_path, tokenizer, whole, attention_bias=True, mlp_bias=True)
    uniform.export_uniform(folder, tmp_path / "out", how="pad")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert widths(stock) == ({2}, {22})
    assert (logits(stock, TOKENS) - logits(model, TOKENS)).abs().max() < 1e-5


def test_a_cut_model_keeps_the_largest_units_and_says_that_it_is_another(tmp_path, tokenizer):
    model, folder = saved(tmp_path, tokenizer)
    with torch.no_grad():  # neurons 1, 3, 5 and 7 of layer 0 are the large ones
        model.model.layers[0].mlp.down_proj.weight[:, [1, 3, 5, 7]] += 9.0
    folders.save(model, tokenizer, folder, uniform=False)
    done = uniform.export_uniform(folder, tmp_path / "out", how="cut")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert widths(stock) == ({1}, {4}) and done.units == {"heads": 1, "neurons": 4}
    assert done.parameters == count_parameters(stock) < count_parameters(model)
    kept = stock.model.layers[0].mlp.down_proj.weight
    assert torch.equal(kept, model.model.layers[0].mlp.down_proj.weight[:, [1, 3, 5, 7]])
    assert (logits(stock, TOKENS) - logits(model, TOKENS)).abs().max() > 1e-2
    assert "NOT the model that was measured" in "\n".join(done.lines())


@pytest.mark.parametrize(("how", "same"), [("pad", True), ("cut", False)])
def test_the_folder_says_what_was_done_and_from_what(tmp_path, tokenizer, how, same):
    model, folder = saved(tmp_path, tokenizer)
    uniform.export_uniform(folder, tmp_path / "out", how=how)
    marker = folders.describe(tmp_path / "out")
    assert marker["loadable_by"] == "transformers" and "decision" not in marker
    assert marker["origin"] == {
        "export": f"uniform {how}",
        "same_function": same,
        "source_sha256": folders.weights_digest(folder),
        "source_parameters": count_parameters(model),
    }


def test_half_precision_stays_half_precision(tmp_path, tokenizer):
    _, folder = saved(tmp_path, tokenizer, dtype=torch.bfloat16)
    uniform.export_uniform(folder, tmp_path / "out", how="pad")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("how", ["pad", "cut"])
def test_a_wrong_export_is_not_written(tmp_path, tokenizer, monkeypatch, how):
    _, folder = saved(tmp_path, tokenizer)
    work = getattr(uniform, f"_{how}")

    def broken(model, tokens):
        result = work(model, tokens)
        model.model.layers[1].mlp.up_proj.weight.data += 0.1
        return result

    monkeypatch.setattr(uniform, f"_{how}", broken)
    with pytest.raises(Failure, match="differs from the saved one by"):
        uniform.export_uniform(folder, tmp_path / "out", how=how)
    assert [p.name for p in tmp_path.iterdir()] == ["pruned"]


def test_what_cannot_or_need_not_be_exported_is_one_line(tmp_path, tokenizer):
    _, folder = saved(tmp_path, tokenizer)
    with pytest.raises(Invalid, match="exists already"):
        uniform.export_uniform(folder, folder, how="pad")
    with pytest.raises(Invalid, match="found no config.json"):
        uniform.export_uniform(tmp_path, tmp_path / "out", how="pad")
    shutil.rmtree(folder)
    _, folder = saved(tmp_path, tokenizer, {f"layers.{i}.neurons": (1, 2) for i in range(3)})
    with pytest.raises(Invalid, match="stock classes load it as it is"):
        uniform.export_uniform(folder, tmp_path / "out", how="pad")


def test_shapes_that_no_stock_class_has_even_so(tmp_path, tokenizer):
    """Three heads at width 32 with biases: no config of transformers takes that."""
    keep = {f"layers.{i}.heads": (0, 1, 3) for i in range(3)} | {"layers.1.neurons": (0, 1)}
    _, folder = saved(tmp_path, tokenizer, keep, num_key_value_heads=4, attention_bias=True)
    with pytest.raises(Unsupported, match="no stock class of llama has these shapes"):
        uniform.export_uniform(folder, tmp_path / "out", how="pad")
    assert [p.name for p in tmp_path.iterdir()] == ["pruned"]


def test_the_command_pads_by_default(tmp_path, tokenizer, capsys):
    _, folder = saved(tmp_path, tokenizer)
    assert main(["export", str(folder), str(tmp_path / "out"), "--uniform"]) == 0
    shown = capsys.readouterr().out
    assert "pad: every layer has 2 heads, 48 neurons" in shown
    assert "the same function as the saved model" in shown
    assert main(["export", str(folder), str(tmp_path / "small"), "--uniform", "cut"]) == 0
    assert "cut: every layer has 1 heads, 4 neurons" in capsys.readouterr().out
