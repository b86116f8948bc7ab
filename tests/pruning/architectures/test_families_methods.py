"""Every method and baseline on every family: it prunes, exactly, or says in a sentence why not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from family_cases import CASES, TOKENS, pruned

from prunebench.errors import Unsupported
from prunebench.jobs.prune import decide
from prunebench.plugins.context import Context
from prunebench.plugins.discovery import discover
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import FAMILIES, structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.surgery import count_parameters, cut, logits
from prunebench.recovery import RecoverySettings

PLUGINS = discover()
RECORDS = [
    {"instruction": f"Count from {n}.", "input": "", "output": " ".join(map(str, range(n, n + 5)))}
    for n in range(30)
]
TUNING = RecoverySettings.from_config(
    {
        "tokens": 1900, "batch": 2, "micro_batch": 2, "length": 192, "dropout": 0.0, "rank": 2,
        "targets": "auto", "learning_rate": 1e-3, "log_every": 1, "checkpoint_every": None,
    }
)  # fmt: skip
BY_FILE = {FAMILIES[case.family]: name for name, case in CASES.items()}
ONE_EACH = (*(BY_FILE | {"llama": "llama", "falcon": "falcon-40b", "opt": "opt"}).values(), "qwen3")


def test_there_is_one_case_for_each_family_file():
    assert {FAMILIES[CASES[case].family] for case in ONE_EACH} == set(FAMILIES.values())


# What methods are given instead of the usual. PAT's mask needs steps to separate. A policy is given
# few: how long it searches is not about the family. SliceGPT's multiples of 8 channels are quarters
# of a width of 32.
NEEDS = {
    "pat": {"sparsity": 0.25, "tokens": 12_000, "milestone": 0.9, "mask_travel": 7.0},
    "policy_gradient": {"steps": 8},
    "slicegpt": {"multiple_of": 1},
}
COARSE = ("layers", "hidden")
"""Kinds of which a unit may be more than the half point that the others meet the target by."""


def half_a_unit(model, dense, decision):
    """Half of what one more unit of those coarse kinds would take off `dense` parameters.

    The nearest number of units is never further from the target, if nothing else makes up for it.
    """
    if not decision.keep or not set(decision.keep) <= set(COARSE):
        return 0.0
    structures = structures_of(model)
    budget = Budget(model, structures)
    left = [budget.left({"hidden": 1})] if "hidden" in decision.keep else []
    if "layers" in decision.keep:
        left += [budget.left({}, (i,)) for i in range(structures["layers"].units)]
    return (budget.total - min(left)) / dense / 2


def context(model, plugin, tokenizer, workdir, sparsity=0.15, tokens=TUNING.tokens, **params):
    structures = structures_of(model)
    settings = dataclasses.replace(TUNING, tokens=tokens)
    return Context(
        sparsity=0.0 if plugin.unpruned else sparsity,
        seed=0,
        device=torch.device("cpu"),
        params=plugin.params(params, where="test"),
        workdir=workdir,
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(torch.device("cpu")),
        tokenizer=tokenizer,
        sample_calibration=lambda samples, length: TOKENS,
        load_recovery=lambda: (RECORDS, settings),
    )


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("case", ONE_EACH)
def test_every_method_prunes_every_family(case, name, tokenizer, tmp_path):
    plugin, model = PLUGINS[name], CASES[case].model()
    before = count_parameters(model)
    ctx = context(model, plugin, tokenizer, tmp_path, **NEEDS.get(name, {}))
    try:
        decision = decide(plugin, model, ctx)
    except Unsupported as reason:
        assert case != "llama" and len(str(reason).split()) > 5
        return
    coarse = half_a_unit(model, before, decision)
    verification, _ = cut(model, decision, TOKENS)
    largest = max(1.0, logits(model, TOKENS).abs().max().item())
    assert verification.max_abs_logit_difference < 1e-5 * largest
    removed = 1.0 - count_parameters(model) / before
    assert removed == pytest.approx(decision.how["achieved"], abs=1e-12)
    assert removed == pytest.approx(ctx.sparsity, abs=max(0.02, coarse))
    assert removed > 0 or plugin.unpruned


REFUSED = {
    ("qwen3_moe", "shortgpt"): "no layer leaves: the one of least influence has 0.3.* fill: true",
    ("qwen3_moe", "wanda_sp"): "layers.0.neurons: .*no single module consumes them",
    ("opt-350m", "shortgpt"): "layers cannot be pruned.*no layer passes its input on unchanged",
    ("bloom", "slicegpt"): "hidden cannot be pruned.*LayerNorm",
}


@pytest.mark.parametrize("case, name", REFUSED)
def test_a_refusal_says_what_is_in_the_way(case, name, tokenizer, tmp_path):
    plugin, model = PLUGINS[name], CASES[case].model()
    with pytest.raises(Unsupported, match=REFUSED[case, name]):
        decide(plugin, model, context(model, plugin, tokenizer, tmp_path))


CHANNELS = [("llm_pruner", {"mode": "channel"}), ("magnitude", {"kinds": ["hidden"]})]


@pytest.mark.parametrize("case", ONE_EACH)
@pytest.mark.parametrize("name, params", CHANNELS)
def test_channels_leave_or_the_reason_is_given(case, name, params, tokenizer, tmp_path):
    plugin, model = PLUGINS[name], CASES[case].model()
    ctx = context(model, plugin, tokenizer, tmp_path, **params)
    if "hidden" not in CASES[case].kinds:
        with pytest.raises(Unsupported, match="hidden cannot be pruned.*LayerNorm"):
            decide(plugin, model, ctx)
        return
    decision = decide(plugin, model, ctx)
    assert list(decision.keep) == ["hidden"]
    verification, _ = cut(model, decision, TOKENS)
    assert verification.max_abs_logit_difference < 1e-5


def check_cutting(make, tokenizer, tmp_path):
    """With `shrink`, LoRAPrune ends with the model and the decision that its masks end with."""
    plugin = PLUGINS["loraprune"]
    found, kept = [], []
    for more in ({}, {"shrink": True, "shrink_every": 1}):
        model = make()
        workdir = tmp_path / str(len(found))
        workdir.mkdir()
        ctx = context(model, plugin, tokenizer, workdir, sparsity=0.25, **more)
        decision = decide(plugin, model, ctx)
        assert any(name.endswith("heads") for name in decision.keep)
        verification, _ = cut(model, decision, TOKENS)
        assert verification.max_abs_logit_difference < 1e-5
        found.append(logits(model, TOKENS))
        kept.append(dict(decision.keep))
    assert kept[0] == kept[1]
    assert (found[0] - found[1]).abs().max() < 1e-4
    return model


@pytest.mark.parametrize("case", ["bloom", "falcon-40b", "phi3", "olmo2", "stablelm-12b"])
def test_cutting_while_training_is_the_same_as_masks(case, tokenizer, tmp_path):
    """Fused projections, slopes and norms that go with their heads, in the midst of a training."""
    check_cutting(lambda: CASES[case].model(num_hidden_layers=4), tokenizer, tmp_path)


def test_so_it_is_where_heads_are_numbered_already(tokenizer, tmp_path):
    """ALiBi's slopes in a model that was pruned before: each head that is left has its own."""
    model = check_cutting(lambda: pruned("bloom"), tokenizer, tmp_path)
    numbers = [b.tolist() for n, b in model.named_buffers() if n.endswith("head_numbers")]
    assert numbers and any(own != list(range(len(own))) for own in numbers)
