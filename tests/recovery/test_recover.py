"""Recovery end to end: it learns, merges exactly, leaves no trace, and is deterministic."""

from __future__ import annotations

import json

import pytest
import torch
from tuning_toy import examples, pruned_llama, settings, tokenizer

from prunebench.errors import Failure, Invalid
from prunebench.recovery import Collator, attach, encode, merge, recover

COLLATED = ("input_ids", "attention_mask")


@pytest.fixture(scope="module")
def toy_tokenizer():
    return tokenizer()


@pytest.fixture(scope="module")
def tuned(toy_tokenizer, tmp_path_factory):
    """One tuning of the toy facts: (model, report, work folder, a dense copy)."""
    workdir = tmp_path_factory.mktemp("tuned")
    model = pruned_llama()
    model.model.embed_tokens.weight.requires_grad_(False)
    chosen = settings(tokens=20_000, checkpoint_every=10)
    merged, report = recover(
        model, toy_tokenizer, examples(), chosen, workdir=workdir, seed=0, device="cpu"
    )
    return merged, report, workdir, model


def test_the_loss_goes_down(tuned):
    losses = [loss for _, loss in tuned[1]["loss"]]
    assert sum(losses[-5:]) / 5 < 0.75 * losses[0]
    assert [step for step, _ in tuned[1]["loss"]] == list(range(1, tuned[1]["steps"] + 1))


def test_merging_keeps_the_logits(tuned):
    assert 0 < tuned[1]["merge_max_abs_logit_difference"] < 1e-4
    assert tuned[1]["merge_tolerance"] >= 1e-4


def test_a_plain_model_comes_back(tuned):
    merged, _, workdir, given = tuned
    fresh = pruned_llama()
    assert merged is given
    assert type(merged) is type(fresh)
    assert [(n, p.shape) for n, p in merged.named_parameters()] == [
        (n, p.shape) for n, p in fresh.named_parameters()
    ]
    assert not any(hasattr(module, "base_layer") for module in merged.modules())
    assert not hasattr(merged, "peft_config")
    assert merged.config.to_dict() == fresh.config.to_dict()
    assert merged.training is False
    frozen = [name for name, p in merged.named_parameters() if not p.requires_grad]
    assert frozen == ["model.embed_tokens.weight"]
    assert all(p.grad is None for p in merged.parameters())
    assert list(workdir.iterdir()) == []  # checkpoints are gone


def test_only_target_weights_have_changed(tuned):
    changed = {
        name.split(".")[-2]
        for (name, after), before in zip(
            tuned[0].named_parameters(), pruned_llama().parameters(), strict=True
        )
        if not torch.equal(after, before)
    }
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_report_is_plain_json_with_the_tokens_spent(tuned):
    report = tuned[1]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["tuning_tokens"] == report["data"]["tokens"] <= 20_000
    assert report["resumed_from_step"] is None
    assert report["settings"]["rank"] == 8
    # rank x (inputs + outputs) of every target, layer by layer (the second one is pruned)
    shapes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    shapes += [(32, 16), (32, 8), (32, 8), (16, 32), (32, 20), (32, 20), (20, 32)]
    assert report["trainable_parameters"] == 8 * sum(a + b for a, b in shapes)


def test_merging_that_changes_the_model_is_caught(toy_tokenizer):
    wrapped = attach(pruned_llama(), settings(), seed=0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)

    class Forgetful:
        get_base_model = wrapped.get_base_model
        merge_and_unload = wrapped.unload  # throws the adapters away instead of folding them in

    data = encode(examples(), toy_tokenizer, settings(), seed=0)
    batch = Collator()([data.dataset[0], data.dataset[1]])
    with pytest.raises(Failure, match="merging LoRA moved logits by"):
        merge(Forgetful(), batch)


def test_same_seed_same_weights_and_another_seed_others(toy_tokenizer, tmp_path):
    def weights(seed):
        model, _ = recover(
            pruned_llama(), toy_tokenizer, examples(), settings(), workdir=tmp_path, seed=seed,
            device="cpu",
        )  # fmt: skip
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(first, again)  # bit for bit
    assert not torch.equal(first, other)


def test_bf16_trains_on_fp32_weights_and_leaves_no_autocast(toy_tokenizer, tmp_path):
    model, report = recover(
        pruned_llama(), toy_tokenizer, examples(), settings(precision="bf16"), workdir=tmp_path,
        seed=0, device="cpu",
    )  # fmt: skip
    assert report["precision"] == "bf16"
    assert report["merge_max_abs_logit_difference"] < 1e-4
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = torch.tensor([[0, 5, 6]])
    assert torch.equal(model(ids).logits, pruned_llama_like(model)(ids).logits)


def pruned_llama_like(model):
    """A fresh model with the weights of `model`: equal logits mean no wrapper around forward."""
    fresh = pruned_llama()
    fresh.load_state_dict(model.state_dict())
    return fresh


def test_bf16_weights_are_tuned_and_the_merge_is_reported(toy_tokenizer, tmp_path):
    model, report = recover(
        pruned_llama().to(torch.bfloat16), toy_tokenizer, examples(), settings(),
        workdir=tmp_path, seed=0, device="cpu",
    )  # fmt: skip
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert report["merge_tolerance"] is None
    assert report["merge_max_abs_logit_difference"] > 0
    assert report["loss"][-1][1] < report["loss"][0][1]


def test_fp16_weights_are_refused(toy_tokenizer, tmp_path):
    with pytest.raises(Invalid, match="is float16, which overflows"):
        recover(
            pruned_llama().half(), toy_tokenizer, examples(), settings(), workdir=tmp_path, seed=0,
            device="cpu",
        )  # fmt: skip


def test_auto_targets_every_linear_of_the_blocks_and_no_head():
    wrapped = attach(pruned_llama(), settings(targets="auto"), seed=0)
    adapted = {n.rpartition(".lora_A")[0] for n, _ in wrapped.named_parameters() if "lora_A" in n}
    assert len(adapted) == 14
    assert not any("lm_head" in name for name in adapted)


def test_an_emptied_linear_gets_no_adapter():
    model = pruned_llama()
    model.model.layers[0].mlp.down_proj = torch.nn.Linear(0, 32, bias=False)
    wrapped = attach(model, settings(targets="auto"), seed=0)
    adapted = [name for name, _ in wrapped.named_parameters() if "lora_A" in name]
    assert len(adapted) == 13
    assert not any("layers.0.mlp.down_proj" in name for name in adapted)


def test_unknown_targets_are_named_with_those_that_exist():
    with pytest.raises(Invalid, match="LlamaForCausalLM has no fc1 .* it has down_proj, gate_proj"):
        attach(pruned_llama(), settings(targets=["q_proj", "fc1"]), seed=0)
