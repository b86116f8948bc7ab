"""What a method leaves in a model is saved whole, or its cell fails and says what was left."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_tiny
from job_specs import attempt, changed, evaluating, pruning

from prunebench.errors import Failure
from prunebench.jobs import evaluate, prune
from prunebench.jobs.readback import Build, Folder, read_back
from prunebench.models import folders
from prunebench.pruning.surgery import count_parameters, logits

CALIBRATION = {"corpus": "newswire", "samples": 4, "length": 16}
TOKENS = torch.arange(2, 34).view(2, 16)
START = """
import torch
from prunebench import Decision
def prune(model, ctx):
    layer = model.model.layers[1]
"""
DECIDE = "    return ctx.select({n: torch.arange(s.units) for n, s in ctx.prunable().items()})\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("world")
    (root / "newswire").mkdir()
    text = "\n".join(f"item {i}: something happened somewhere" for i in range(60))
    for split in ("train", "test"):
        (root / "newswire" / f"{split}.txt").write_text(text)
    folders.save(make_tiny(intermediate_size=96), tokenizer, root / "original", uniform=True)
    return pruning(root / "original", root, calibration=CALIBRATION, sparsity=0.3)


def ran(world, tmp_path, body, end=DECIDE, **given):
    """The result of a plugin that does `body` and then decides."""
    place = tmp_path / "plugins" / "toy"
    place.mkdir(parents=True)
    (place / "method.yaml").write_text("name: toy\nsummary: Made by a test.\nkind: method\n")
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (place / "method.py").write_text(START + lines + end)
    own = {"plugins": [str(tmp_path / "plugins")], "method": "toy", "params": {}}
    return attempt(prune.prune, changed(world, **own, **given), tmp_path / "cell" / "prune.json")


LEFT = {
    "a hook": (
        "layer.mlp.register_forward_hook(lambda m, a, o: o * 0.5)",
        "toy: left a hook on model.layers.1.mlp (LlamaMLP)",
    ),
    "a wrapped module": (
        "layer.mlp.down_proj = torch.nn.Sequential(layer.mlp.down_proj)",
        "toy: left Sequential at model.layers.1.mlp.down_proj of the model where Linear was",
    ),
    "a module more": (
        "layer.extra = torch.nn.Linear(2, 2)",
        "toy: left Linear at model.layers.1.extra of the model where nothing was",
    ),
    "half precision": (
        "model.half()",
        "toy: left weights in float16 that were in float32",
    ),
    "a patched forward": (
        "old = layer.mlp.forward\nlayer.mlp.forward = lambda x: 0.5 * old(x)",
        "something that no file holds",
    ),
    "rotations that lost precision": (
        "model.model.rotary_emb.inv_freq.mul_(1.5)",
        "something that no file holds",
    ),
    "a bias where there is no Linear": (
        "layer.input_layernorm.bias = torch.nn.Parameter(torch.ones(32))",
        "the saved model cannot be read back: ",
    ),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_no_file_holds_fails_the_cell_with_a_reason(world, tmp_path, what):
    body, reason = LEFT[what]
    result = ran(world, tmp_path, body)
    assert result["status"] == "failed" and reason in result["reason"], result["reason"]
    assert not (tmp_path / "cell" / "model").exists()


@pytest.mark.parametrize("end", [DECIDE, "    return Decision({})\n"], ids=["uneven", "whole"])
def test_a_bias_that_the_class_does_not_know_is_kept(world, tmp_path, end):
    """Saved for this suite's loader; no job after it measures the model without the bias."""
    body = "layer.mlp.down_proj.bias = torch.nn.Parameter(torch.full((32,), 0.7))"
    result = ran(world, tmp_path, body, end)
    assert result["status"] == "ok", result["reason"]
    assert result["export"] == {"status": "ok", "loadable_by": "prunebench", "path": "model"}
    assert result["verify"]["read_back"] < 1e-5
    model, _ = folders.load(tmp_path / "cell" / "model")
    assert model.model.layers[1].mlp.down_proj.bias.tolist() == pytest.approx([0.7] * 32)
    assert count_parameters(model) == result["model"]["parameters"]
    protocol = {"name": "ppl/t", "corpus": "newswire", "split": "test", "length": 32}
    stage = tmp_path / "cell" / "prune.json"
    figures = attempt(evaluate.evaluate, evaluating(world, protocol), tmp_path / "e.json", stage)
    assert figures["status"] == "ok", figures["reason"]
    assert figures["perplexity"]["ppl/t:newswire-test@32"]["value"] > 1


def test_changed_weights_are_saved_even_if_nothing_leaves(world, tmp_path):
    result = ran(
        world, tmp_path, "layer.mlp.down_proj.weight.data *= 2", "    return Decision({})\n"
    )
    assert result["export"]["path"] == "model" and result["verify"]["read_back"] == 0.0
    before, _ = folders.load(world.model.source)
    after, _ = folders.load(tmp_path / "cell" / "model")
    assert (logits(before, TOKENS) - logits(after, TOKENS)).abs().max() > 1e-3


def test_what_is_added_to_random_weights_is_refused(world, tmp_path):
    small = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 300}
    model = {"name": "r", "kind": "random", "source": "llama-7b", "overrides": small}
    body = "layer.mlp.down_proj.bias = torch.nn.Parameter(torch.ones(model.config.hidden_size))"
    result = ran(world, tmp_path, body, model=model, calibration=None)
    assert result["status"] == "failed"
    assert "adds to random weights is lost" in result["reason"]


def test_a_model_that_was_saved_otherwise_is_noticed(tmp_path, tokenizer):
    """Other values, other sizes, another type: each differs from what is in memory."""
    saved = Folder(tmp_path / "m", "float32", "cpu")
    folders.save(make_tiny(), tokenizer, saved.path, uniform=True)
    assert read_back(make_tiny(), saved, TOKENS) == 0.0
    with pytest.raises(Failure, match="read back from its folder"):
        read_back(make_tiny(seed=1), saved, TOKENS)
    with pytest.raises(Failure, match="parameters in memory and"):
        read_back(make_tiny(intermediate_size=96), saved, TOKENS)
    with pytest.raises(Failure, match="float16 in memory and torch.float32 when read back"):
        read_back(make_tiny().half(), saved, TOKENS)


def test_a_method_that_cleans_up_passes():
    model = make_tiny()
    build = Build.of(model)
    handle = model.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(Failure, match="left a hook on lm_head"):
        build.check(model, "toy")
    handle.remove()
    build.check(model, "toy")


PASSES = {
    "whole, with gradients": (
        "model(ctx.calibration(), labels=ctx.calibration()).loss.backward()", 64, 64,
    ),
    "told of as well": (
        "model(ctx.calibration()); ctx.cost.forward(64)", 64, 0,
    ),
    "told of passes elsewhere": (
        "ctx.cost.forward(640)", 640, 0,
    ),
    "one layer of three": (
        "h = torch.ones(1, 12, 32)\nlayer(h, position_embeddings=model.model.rotary_emb(h, "
        "torch.arange(12)[None]))", 4, 0,
    ),
    "with padding": (
        "mask = torch.ones(4, 16)\nmask[:, 8:] = 0\nmodel(ctx.calibration(), attention_mask=mask)",
        32, 0,
    ),
    "of a copy": (
        "import copy\ncopy.deepcopy(model)(ctx.calibration())", 64, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PASSES)
def test_token_passes_are_counted_by_the_suite(world, tmp_path, what):
    body, forward, backward = PASSES[what]
    result = ran(world, tmp_path, body)
    assert result["status"] == "ok", result["reason"]
    cost = json.loads(json.dumps(result["cost"]))
    assert (cost["forward_tokens"], cost["backward_tokens"]) == (forward, backward)
