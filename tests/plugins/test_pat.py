"""PAT end to end on tiny models: target, folding, resuming, the job, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from job_specs import attempt, pruning
from pat_toy import FAMILIES, PLUGIN, PRUNE, TOKENS, family
from peft.tuners.lora import LoraLayer

from prunebench.errors import Failure, Invalid
from prunebench.jobs.prune import prune as prune_job
from prunebench.plugins.context import Context
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.surgery import count_parameters, cut, logits
from prunebench.recovery import RecoverySettings

import prunebench_plugin_pat.method as method  # isort: skip
import prunebench_plugin_pat.steering as steering  # isort: skip
from prunebench_plugin_pat.sparsifier import HSM, Sparsifier  # isort: skip
from prunebench_plugin_pat.steering import Steering  # isort: skip

RECORDS = [
    {"instruction": f"Count from {n}.", "input": "", "output": " ".join(map(str, range(n, n + 9)))}
    for n in range(40)
]
TUNING = {
    "tokens": 14000, "batch": 1, "micro_batch": 1, "length": 192, "dropout": 0.0, "rank": 4,
    "learning_rate": 3e-3, "log_every": 1, "checkpoint_every": None,
}  # fmt: skip
QUICK = {"milestone": 0.9, "flavour": "code"}


@pytest.fixture(autouse=True)
def any_separation(request, monkeypatch):
    """Random models of 32 channels need not separate in so few steps; one test is about that."""
    if "separate" not in request.node.name:
        monkeypatch.setattr(steering, "LEAST_SEPARATION", {"hard": -1.0, "soft": -1.0})


def context(model, tokenizer, workdir, *, sparsity=0.25, seed=0, tuning=None, **params):
    structures = structures_of(model)
    settings = RecoverySettings.from_config({**TUNING, **(tuning or {})})
    return Context(
        sparsity=sparsity,
        seed=seed,
        device=torch.device("cpu"),
        params=PLUGIN.params({**QUICK, **params}, where="test"),
        workdir=workdir,
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(torch.device("cpu")),
        tokenizer=tokenizer,
        sample_calibration=lambda samples, length: TOKENS,
        load_recovery=lambda: (RECORDS, settings),
    )


def run(tokenizer, workdir, *, model=None, **keys):
    """(model, decision, context) after pruning; the model is folded and not yet sliced."""
    model = model or family("llama")
    ctx = context(model, tokenizer, workdir, **keys)
    return model, PRUNE(model, ctx), ctx


@pytest.mark.parametrize("name", FAMILIES)
def test_it_meets_the_target_and_leaves_a_plain_model(name, tokenizer, tmp_path):
    model = family(name)
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    total, tied = count_parameters(model), model.config.tie_word_embeddings
    model, decision, ctx = run(tokenizer, tmp_path, model=model)
    assert not any(isinstance(m, (LoraLayer, HSM, Sparsifier)) for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not hasattr(model, "peft_config") and not model.training
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    written = {n for n in before if n.endswith(("proj.weight", "o_proj.bias", "down_proj.bias"))}
    assert changed == (written if tied else written | {"model.embed_tokens.weight"})
    verification, stock = cut(model, decision, TOKENS)
    assert verification.passed and stock and verification.masked_minus_dense > 1e-3
    assert model.config.hidden_size == 24 == ctx.notes["hidden_size"]["kept"]
    assert abs(1 - count_parameters(model) / total - 0.25) < 0.01
    tuning = ctx.notes["tuning"]
    assert tuning["fold_max_abs_logit_difference"] <= tuning["fold_tolerance"]
    assert tuning["tuning_tokens"] == ctx.cost.report()["backward_tokens"] > 12000
    json.dumps(ctx.notes)


@pytest.mark.parametrize("flavour", ["code", "paper"])
def test_the_mask_ends_with_exactly_the_number_asked_for(flavour, tokenizer, tmp_path):
    model, decision, ctx = run(tokenizer, tmp_path, flavour=flavour, width=19)
    assert len(decision.keep["hidden"]) == 19 and decision.keep["hidden"] != tuple(range(19))
    steps = ctx.notes["schedule"]
    assert steps["freeze"] == round(steps["milestone"] * (1.0 if flavour == "paper" else 0.8))
    series = ctx.notes["mask_count"]["series"]
    assert series["wanted"][-1] == [steps["freeze"], 19]
    assert ctx.notes["mask_separation"]["series"]["separation"][-1][0] == steps["freeze"]
    assert cut(model, decision, TOKENS)[0].passed


def test_a_mask_that_is_not_trained_keeps_the_first_channels(tokenizer, tmp_path):
    model, decision, ctx = run(tokenizer, tmp_path, trainable_mask=False)
    assert decision.keep["hidden"] == tuple(range(24))
    assert "mask_count" not in ctx.notes and ctx.notes["tuning"]["mask_rate"] == 1.0
    assert cut(model, decision, TOKENS)[0].passed


def test_trainable_parameters_are_those_of_both_parts(tokenizer, tmp_path):
    model = family("llama")
    linears = [m for n, m in model.named_modules() if n.endswith("proj")]
    _, _, ctx = run(tokenizer, tmp_path, model=model, rank=5, lora_rank=3)
    hsms = 7 * (2 * 5 * 32 + 32) + 32
    lora = sum(3 * sum(linear.weight.shape) for linear in linears)
    assert ctx.notes["tuning"]["hsm_parameters"] == hsms
    assert ctx.notes["tuning"]["trainable_parameters"] == hsms + lora


def test_lora_keeps_the_campaigns_scale(tokenizer, tmp_path, monkeypatch):
    seen, real = [], method.attach

    def spy(model, settings, *, seed):
        seen.append(settings)
        return real(model, settings, seed=seed)

    monkeypatch.setattr(method, "attach", spy)
    run(tokenizer, tmp_path, lora_rank=2, tuning={"rank": 8, "alpha": 16})
    assert (seen[0].rank, seen[0].alpha) == (2, 4)


def test_the_same_seed_gives_the_same_model(tokenizer, tmp_path):
    keys = {"tuning": {"dropout": 0.05}, "trainable_mask": False}
    runs = [run(tokenizer, tmp_path, seed=seed, **keys) for seed in (0, 0, 1)]
    first, again, other = (logits(model, TOKENS) for model, _, _ in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert runs[0][1].to_json() == runs[1][1].to_json()


@pytest.mark.parametrize("crash_at", [30, 63])
def test_a_killed_run_resumes_its_mask(crash_at, tokenizer, tmp_path):
    """Crash before and after the mask has settled: the end is the same to 1e-6."""
    keys = {"tuning": {"checkpoint_every": 20, "dropout": 0.05}}
    model, decision, whole = run(tokenizer, tmp_path / "whole", **keys)
    assert 30 < whole.notes["schedule"]["freeze"] < 60
    real = Steering.on_step_begin

    def crash(self, args, state, control, **kwargs):
        if state.global_step == crash_at:
            raise KeyboardInterrupt
        real(self, args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steering, "on_step_begin", crash)
        with pytest.raises(KeyboardInterrupt):
            run(tokenizer, tmp_path / "killed", **keys)
    resumed, again, ctx = run(tokenizer, tmp_path / "killed", **keys)
    assert ctx.notes["tuning"]["resumed_from_step"] == crash_at // 20 * 20
    assert again.to_json() == decision.to_json()
    assert (logits(resumed, TOKENS) - logits(model, TOKENS)).abs().max() <= 1e-6
    assert ctx.notes["mask_count"] == whole.notes["mask_count"]


@pytest.mark.parametrize(("after", "least"), [("hard", 0.5), ("soft", 0.9)])
def test_a_mask_that_does_not_separate_says_what_to_change(after, least, tokenizer, tmp_path):
    slow = {"mask_travel": 1e-6, "tuning": {"learning_rate": 1e-5}}
    with pytest.raises(Failure, match=rf"did not separate: at step 55 .*at least {least}.*raise"):
        run(tokenizer, tmp_path, after_freeze=after, **slow)


def test_a_fold_that_forgets_something_fails_the_cell(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(method, "fold", lambda *_: None)
    with pytest.raises(Failure, match="folding moved logits"):
        run(tokenizer, tmp_path)


def test_a_training_that_is_too_short_says_so(tokenizer, tmp_path):
    with pytest.raises(Invalid, match=r"raise recovery.tokens or lower recovery.batch"):
        run(tokenizer, tmp_path, tuning={"tokens": 3000})


def test_the_job_prunes_verifies_and_saves(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "model"
    family("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = tmp_path / "data" / "alpaca"
    data.mkdir(parents=True)
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (data / "train.jsonl").write_text(text, encoding="utf-8")
    spec = pruning(
        folder,
        tmp_path / "data",
        method="pat",
        params=PLUGIN.params(QUICK, where="test"),
        recovery={**TUNING, "instructions": "alpaca"},
        sparsity=0.3,
        multiple_of={"hidden": 4},
    )
    result = attempt(prune_job, spec, tmp_path / "cell" / "prune.json")
    assert result["verify"]["passed"] and result["export"]["loadable_by"] == "transformers"
    assert result["sparsity"]["achieved"] == result["method_notes"]["hidden_size"]["achieved"]
    assert result["sparsity"]["native_ratio"] is None
    assert result["cost"]["backward_tokens"] == result["method_notes"]["tuning"]["tuning_tokens"]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "cell" / "model")
    assert saved.config.hidden_size == 24
    json.dumps(result)


def half_dead(seed=0):
    """A model in which every second channel of the stream carries and is read as nothing."""
    model = family("llama", seed=seed)
    dead = torch.arange(0, 32, 2)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, dead] = 0
        model.lm_head.weight[:, dead] = 0
        for layer in model.model.layers:
            for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
                writer.weight[dead] = 0
            for reader in ("q_proj", "k_proj", "v_proj"):
                getattr(layer.self_attn, reader).weight[:, dead] = 0
            layer.mlp.gate_proj.weight[:, dead] = layer.mlp.up_proj.weight[:, dead] = 0
    return model, set(dead.tolist())


def found_dead(tokenizer, workdir, **keys):
    model, dead = half_dead()
    _, decision, ctx = run(tokenizer, workdir, model=model, width=24, **keys)
    return len(dead - set(decision.keep["hidden"])), ctx


def test_a_mask_that_starts_from_evidence_finds_dead_channels(tokenizer, tmp_path):
    found, ctx = found_dead(tokenizer, tmp_path / "a", flavour="short")
    chosen_by_noise, _ = found_dead(tokenizer, tmp_path / "b", flavour="code")
    assert found == 8 > chosen_by_noise
    overlap = ctx.notes["mask_overlap"]["series"]
    assert overlap["overlap"][-1][1] == 1.0 and overlap["chance"][0][1] == pytest.approx(0.25)
    assert ctx.notes["tuning"]["module_rate"] > 1


def test_the_order_can_fix_a_mask_that_is_not_trained(tokenizer, tmp_path):
    found, ctx = found_dead(tokenizer, tmp_path, trainable_mask=False, mask_start="taylor")
    assert found == 8 and "mask_overlap" not in ctx.notes


def test_overlap_with_the_end_is_one_where_nothing_moves_and_grows_where_it_does(
    tokenizer, tmp_path
):
    _, _, ctx = run(tokenizer, tmp_path, flavour="short")
    still = [share for _, share in ctx.notes["mask_overlap"]["series"]["overlap"]]
    _, _, ctx = run(tokenizer, tmp_path / "moving", flavour="code")
    moving = [share for _, share in ctx.notes["mask_overlap"]["series"]["overlap"]]
    assert still[-1] == moving[-1] == 1.0 and moving[0] < 1.0 and min(still) > min(moving)


def test_the_code_flavour_is_the_released_run_whatever_the_default_is(tokenizer, tmp_path):
    explicit = {"mask_start": "zero", "module_rate": 1.0}
    first = run(tokenizer, tmp_path / "a", flavour="code")
    again = run(tokenizer, tmp_path / "b", flavour="short", **explicit)
    assert first[1].keep == again[1].keep
    assert torch.equal(logits(first[0], TOKENS), logits(again[0], TOKENS))
