"""Every method and baseline on every family: it prunes, exactly, or says in a sentence why not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from family_cases import CASES, TOKENS

from prunebench.errors import Unsupported
from prunebench.jobs.prune import decide
from prunebench.plugins.context import Context
from prunebench.plugins.discovery import discover
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import FAMILIES, structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.surgery import count_parameters, cut
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


# What each method is given where the usual is not enough: its mask needs steps to separate.
NEEDS = {"pat": {"sparsity": 0.25, "tokens": 12_000, "milestone": 0.9, "mask_travel": 7.0}}


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
    verification, _ = cut(model, decision, TOKENS)
    assert verification.max_abs_logit_difference < 1e-5
    removed = 1.0 - count_parameters(model) / before
    assert removed == pytest.approx(decision.how["achieved"], abs=1e-12)
    assert removed == pytest.approx(ctx.sparsity, abs=0.02)


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


@pytest.mark.parametrize("case", ["bloom", "falcon-40b", "phi3", "olmo2", "stablelm-12b"])
def test_cutting_while_training_is_the_same_as_masks(case, tokenizer, tmp_path):
    """Fused projections, slopes and norms that go with their heads, in the midst of a training."""
    plugin = PLUGINS["loraprune"]
    logits, kept = [], []
    for more in ({}, {"shrink": True, "shrink_every": 1}):
        model = CASES[case].model(num_hidden_layers=4)
        workdir = tmp_path / str(len(logits))
        workdir.mkdir()
        ctx = context(model, plugin, tokenizer, workdir, sparsity=0.25, **more)
        decision = decide(plugin, model, ctx)
        assert any(name.endswith("heads") for name in decision.keep)
        verification, _ = cut(model, decision, TOKENS)
        assert verification.max_abs_logit_difference < 1e-5
        with torch.no_grad():
            logits.append(model(TOKENS).logits)
        kept.append(dict(decision.keep))
    assert kept[0] == kept[1]
    assert (logits[0] - logits[1]).abs().max() < 1e-4
