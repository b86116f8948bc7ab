"""LoRAPrune end to end on tiny models: target, masks, merging, resuming, shrinking, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_tiny
from job_specs import attempt, pruning
from peft.tuners.lora import LoraLayer

from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.jobs.prune import prune as prune_job
from prunebench.plugins.context import Context
from prunebench.plugins.discovery import discover
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import TOLERANCE
from prunebench.pruning.surgery import count_parameters, cut, logits, masked
from prunebench.recovery import RecoverySettings

PLUGIN = discover()["loraprune"]
PRUNE = PLUGIN.load()
import prunebench_plugin_loraprune.method as method  # noqa: E402
import prunebench_plugin_loraprune.pruner as pruner_module  # noqa: E402
from prunebench_plugin_loraprune.pruner import Pruner  # noqa: E402

TOKENS = torch.randint(258, (3, 21), generator=torch.Generator().manual_seed(1))
RECORDS = [
    {"instruction": f"Count from {n}.", "input": "", "output": " ".join(map(str, range(n, n + 9)))}
    for n in range(40)
]
TUNING = {
    "tokens": 4800, "batch": 2, "micro_batch": 2, "length": 192, "dropout": 0.0, "rank": 4,
    "learning_rate": 3e-3, "log_every": 1, "checkpoint_every": None,
}  # fmt: skip
WIDE = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 96,
    "num_hidden_layers": 4,
}  # fmt: skip


def model_of(family="llama", **changes):
    return make_tiny(family, **{**WIDE, **changes})


def context(model, tokenizer, workdir, *, sparsity=0.3, seed=0, tuning=None, **params):
    structures = structures_of(model)
    settings = RecoverySettings.from_config({**TUNING, **(tuning or {})})
    return Context(
        sparsity=sparsity,
        seed=seed,
        device=torch.device("cpu"),
        params=PLUGIN.params({"protect_last": 1, "cooldown": 0.1, **params}, where="test"),
        workdir=workdir,
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(torch.device("cpu")),
        tokenizer=tokenizer,
        sample_calibration=lambda samples, length: TOKENS,
        load_recovery=lambda: (RECORDS, settings),
    )


def run(tokenizer, workdir, *, model=None, **keys):
    """(model, decision, context) after pruning; the model is merged and not yet sliced."""
    model = model or model_of()
    ctx = context(model, tokenizer, workdir, **keys)
    return model, PRUNE(model, ctx), ctx


@pytest.fixture
def spied(monkeypatch):
    """The Pruner of the run that follows, under "pruner"; its masks after each event, too."""
    seen = {"masks": []}

    class Spy(Pruner):
        def __init__(self, *args):
            super().__init__(*args)
            seen["pruner"] = self

        def rebuild(self, step):
            super().rebuild(step)
            seen["masks"].append({name: mask.clone() for name, mask in self.masks.items()})

    monkeypatch.setattr(method, "Pruner", Spy)
    return seen


FAMILIES = {
    "llama": {},
    "llama-biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama-mha": {"num_key_value_heads": 8},
    "qwen2": {},
    "qwen3": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_meets_the_target_and_leaves_a_plain_model(name, tokenizer, tmp_path):
    model = model_of(name.partition("-")[0], **FAMILIES[name])
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    total = count_parameters(model)
    model, decision, ctx = run(tokenizer, tmp_path, model=model)
    assert not any(isinstance(m, LoraLayer) or "lora" in n for n, m in model.named_modules())
    assert not hasattr(model, "peft_config") and not model.training
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if n.endswith("proj.weight")}
    verification, _ = cut(model, decision, TOKENS)
    assert verification.passed and verification.masked_minus_dense > 1e-3
    assert abs(1 - count_parameters(model) / total - 0.3) < TOLERANCE
    assert {structures_of(model)[f"layers.3.{kind}"].units for kind in ("heads", "neurons")} == {
        8 if name == "llama-mha" else 4, 96,
    }  # fmt: skip
    assert ctx.notes["tuning"]["tuning_tokens"] == ctx.cost.report()["backward_tokens"] > 4000
    assert ctx.notes["mask_history"][-1]["schedule"] == 0.3
    assert abs(ctx.notes["mask_history"][-1]["sparsity"] - 0.3) < TOLERANCE
    json.dumps(ctx.notes)


@pytest.mark.parametrize("flavour", ["code", "paper"])
def test_masks_never_open_again_and_end_as_the_decision(flavour, tokenizer, tmp_path, spied):
    _, decision, _ = run(tokenizer, tmp_path, flavour=flavour)
    assert len(spied["masks"]) > 5
    for before, after in zip(spied["masks"], spied["masks"][1:], strict=False):
        assert all(bool((after[name] <= before[name]).all()) for name in before)
    for name, mask in spied["masks"][-1].items():
        kept = tuple(mask.nonzero().flatten().tolist())
        assert decision.keep.get(name, tuple(range(len(mask)))) == kept


def test_a_tie_at_zero_does_not_open_a_mask():
    model = model_of()
    structures = structures_of(model)
    scored = {"layers.1.neurons": structures["layers.1.neurons"]}
    options = method.LoRAPruneOptions.from_params(PLUGIN.params({}, where="test"))
    events = {n: {"layers.1.neurons": count} for n, count in enumerate((1, 2, 3))}
    pruner = Pruner(model, scored, events, options)
    pruner.updates += 1
    pruner.averages["layers.1.neurons"][5] = -0.0
    pruner.averages["layers.1.neurons"][:3] = 1.0
    gone = []
    for event in events:
        pruner.rebuild(event)
        gone.append(set((pruner.masks["layers.1.neurons"] == 0).nonzero().flatten().tolist()))
    assert [len(units) for units in gone] == [1, 2, 3] and gone[0] < gone[1] < gone[2]


def test_scores_average_from_zero(tokenizer, tmp_path, spied, monkeypatch):
    ones = lambda model, structure, kept, formula: torch.ones_like(kept)  # noqa: E731
    monkeypatch.setattr(pruner_module, "unit_scores", ones)
    run(tokenizer, tmp_path)
    pruner = spied["pruner"]
    steps = int(pruner.updates)
    assert steps > 10
    for average in pruner.averages.values():
        assert torch.allclose(average, torch.full_like(average, 1 - 0.9**steps), atol=1e-6)


def test_scores_of_a_layer_lie_between_zero_and_the_number_of_modules(tokenizer, tmp_path, spied):
    run(tokenizer, tmp_path)
    pruner = spied["pruner"]
    steps = int(pruner.updates)
    for name, average in pruner.averages.items():
        most = 4 if name.endswith("heads") else 3
        assert 0 <= average.min() and 0 < average.max() <= most * (1 - 0.9**steps) + 1e-5


def test_open_gates_change_nothing(tokenizer, tmp_path):
    """Before its first event a run is plain LoRA tuning, and so is one without a target."""
    model, decision, ctx = run(tokenizer, tmp_path, sparsity=0.0)
    assert decision.keep == {} and ctx.notes["mask_history"] == []
    from prunebench.recovery import recover

    plain, _ = recover(
        model_of(), tokenizer, RECORDS, ctx.recovery()[1], workdir=tmp_path, seed=0, device="cpu"
    )
    assert (logits(model, TOKENS) - logits(plain, TOKENS)).abs().max() <= 1e-5
    assert (logits(model, TOKENS) - logits(model_of(), TOKENS)).abs().max() > 1e-2


def test_the_same_seed_gives_the_same_model(tokenizer, tmp_path):
    runs = [run(tokenizer, tmp_path, seed=seed, tuning={"dropout": 0.05}) for seed in (0, 0, 1)]
    first, again, other = (logits(model, TOKENS) for model, _, _ in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert runs[0][1].to_json() == runs[1][1].to_json()


def test_native_counts_are_those_of_the_released_code(tokenizer, tmp_path):
    model, decision, ctx = run(tokenizer, tmp_path, native=True, ratio=0.5)
    assert decision.how["native_ratio"] == 0.5
    assert {len(kept) for name, kept in decision.keep.items() if "heads" in name} == {3}
    assert {len(kept) for name, kept in decision.keep.items() if "neurons" in name} == {49}
    assert all("layers.3" not in name for name in decision.keep)
    assert ctx.notes["mask_history"][-1]["schedule"] < 0.5


SHRINKS = {"every-event": {"shrink_every": 1}, "some-events": {"shrink_every": 3}}


@pytest.mark.parametrize("which", SHRINKS)
@pytest.mark.parametrize("name", ["llama", "llama-biases"])
def test_shrinking_trains_the_same_model_as_masks(which, name, tokenizer, tmp_path):
    """fp32, to 1e-5 of the logits, cuts and many steps after the last one included."""
    keys = {"sparsity": 0.35, "cooldown": 0.5, "tuning": {"tokens": 8000}}
    (gated_model, expected, _), (cut_model, decision, ctx) = (
        run(tokenizer, tmp_path, model=model_of(**FAMILIES[name]), **keys, **more)
        for more in ({}, {"shrink": True, **SHRINKS[which]})
    )
    steps, last = ctx.notes["tuning"]["steps"], ctx.notes["mask_history"][-1]["step"]
    assert steps - last >= 10
    assert decision.keep == expected.keep and len(decision.keep) > 3
    with masked(gated_model, expected):
        wanted = logits(gated_model, TOKENS)
    assert (logits(cut_model, TOKENS) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    shapes = {n: p.shape for n, p in model_of(**FAMILIES[name]).named_parameters()}
    assert {n: p.shape for n, p in cut_model.named_parameters()} == shapes
    verification, _ = cut(cut_model, decision, TOKENS)
    assert verification.passed


def test_shrinking_really_makes_the_model_smaller(tokenizer, tmp_path, monkeypatch):
    seen = []
    real = pruner_module.shrink

    def spy(model, structures, keep, optimizer):
        left = real(model, structures, keep, optimizer)
        owned = {id(p) for p in model.parameters() if p.requires_grad}
        listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert owned == listed and {id(p) for p in optimizer.state} <= listed
        for parameter, state in optimizer.state.items():
            assert state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape
        frozen = [p.numel() for p in model.parameters() if not p.requires_grad]
        seen.append(sum(frozen))
        return left

    monkeypatch.setattr(pruner_module, "shrink", spy)
    run(tokenizer, tmp_path, shrink=True, shrink_every=4)
    assert len(seen) > 2 and seen == sorted(seen, reverse=True)
    assert abs(1 - seen[-1] / count_parameters(model_of()) - 0.3) < TOLERANCE


def test_a_killed_run_resumes_its_averages_and_masks(tokenizer, tmp_path, spied):
    """Crash after a checkpoint in the middle of pruning: the end is the same to 1e-6."""
    keys = {"tuning": {"checkpoint_every": 3}}
    model, decision, _ = run(tokenizer, tmp_path / "whole", **keys)
    real = Pruner.on_pre_optimizer_step

    def crash(self, args, state, control, **kwargs):
        if state.global_step == 10:
            raise KeyboardInterrupt
        real(self, args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pruner, "on_pre_optimizer_step", crash)
        with pytest.raises(KeyboardInterrupt):
            run(tokenizer, tmp_path / "killed", **keys)
    assert float(min(mask.min() for mask in spied["pruner"].masks.values())) == 0.0
    resumed, again, ctx = run(tokenizer, tmp_path / "killed", **keys)
    assert ctx.notes["tuning"]["resumed_from_step"] == 9
    assert int(spied["pruner"].updates) == ctx.notes["tuning"]["steps"]
    assert again.to_json() == decision.to_json()
    assert (logits(resumed, TOKENS) - logits(model, TOKENS)).abs().max() <= 1e-6


def test_a_step_that_is_not_finite_is_skipped_and_counted(tokenizer, tmp_path, monkeypatch):
    real = method.trainer

    def poisoned(wrapped, *args, **keys):
        tuner = real(wrapped, *args, **keys)
        loss = tuner.compute_loss

        def compute_loss(*inputs, **kwargs):
            factor = float("nan") if tuner.state.global_step in (2, 7) else 1.0
            return loss(*inputs, **kwargs) * factor

        tuner.compute_loss = compute_loss
        return tuner

    monkeypatch.setattr(method, "trainer", poisoned)
    model, decision, ctx = run(tokenizer, tmp_path)
    steps = ctx.notes["tuning"]["steps"]
    assert ctx.notes["tuning"]["skipped_steps"] == 2
    assert ctx.notes["score_updates"] == {"taken": steps - 2, "dropped": 2}
    assert cut(model, decision, TOKENS)[0].passed


def test_scores_that_are_never_finite_say_what_to_change(tokenizer, tmp_path, monkeypatch):
    bad = lambda model, structure, kept, formula: kept / 0.0 * 0.0  # noqa: E731
    monkeypatch.setattr(pruner_module, "unit_scores", bad)
    with pytest.raises(Failure, match="learning_rate"):
        run(tokenizer, tmp_path)


def test_a_missing_projection_is_named(tokenizer, tmp_path):
    with pytest.raises(Invalid, match=r"missing k_proj, q_proj, v_proj.*add them"):
        run(
            tokenizer, tmp_path, tuning={"targets": ["o_proj", "gate_proj", "up_proj", "down_proj"]}
        )
    run(tokenizer, tmp_path, tuning={"targets": "auto"})


def test_a_training_that_is_too_short_says_so(tokenizer, tmp_path):
    with pytest.raises(Invalid, match=r"no pruning event: the training has 2 optimizer steps"):
        run(tokenizer, tmp_path, tuning={"tokens": 700}, prune_every=3)


def test_a_target_out_of_reach_names_the_protected_layers(tokenizer, tmp_path):
    with pytest.raises(Unsupported, match="protect_first and protect_last"):
        run(tokenizer, tmp_path, sparsity=0.6)
    with pytest.raises(Invalid, match="all 4 layers are protected"):
        run(tokenizer, tmp_path, protect_last=4)
    _, decision, _ = run(tokenizer, tmp_path, sparsity=0.6, protect_last=0, protect_first=0)
    assert abs(decision.how["achieved"] - 0.6) < TOLERANCE


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits_need_a_gpu(bits, tokenizer, tmp_path):
    with pytest.raises(Unsupported, match=f"bits: {bits} needs a CUDA device, got cpu"):
        run(tokenizer, tmp_path, bits=bits)


def test_the_job_prunes_verifies_and_saves(tokenizer, tmp_path):
    folder = tmp_path / "model"
    model = model_of()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = tmp_path / "data" / "alpaca"
    data.mkdir(parents=True)
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    (data / "train.jsonl").write_text(text, encoding="utf-8")
    spec = pruning(
        folder,
        tmp_path / "data",
        method="loraprune",
        params=PLUGIN.params({}, where="test"),
        recovery={**TUNING, "instructions": "alpaca"},
        sparsity=0.3,
    )
    result = attempt(prune_job, spec, tmp_path / "cell" / "prune.json")
    assert result["verify"]["passed"] and result["sparsity"]["within_tolerance"]
    assert result["cost"]["backward_tokens"] == result["method_notes"]["tuning"]["tuning_tokens"]
    assert result["export"]["path"] == "model"
    json.dumps(result)


def test_cut_at_once_removes_what_the_steps_removed_and_tunes_the_original(tokenizer, tmp_path):
    stepwise, by_steps, _ = run(tokenizer, tmp_path / "a")
    at_once, decision, ctx = run(tokenizer, tmp_path / "b", cut="at_once")
    assert decision.keep == by_steps.keep
    assert not torch.equal(logits(at_once, TOKENS), logits(stepwise, TOKENS))
    assert ctx.notes["deciding"]["tuning_tokens"] == ctx.notes["tuning"]["tuning_tokens"]
    spent = ctx.cost.report()
    assert spent["forward_tokens"] == 2 * ctx.notes["tuning"]["tuning_tokens"]
    assert not any(isinstance(module, LoraLayer) for module in at_once.modules())


def test_what_is_cut_at_once_is_away_from_the_first_step(tokenizer, tmp_path, monkeypatch):
    seen = []

    class Spy(Pruner):
        def on_step_begin(self, args, state, control, **kwargs):
            gone = sum(int((mask == 0).sum()) for mask in self.masks.values())
            seen.append((self.learns, state.global_step, gone))

    monkeypatch.setattr(method, "Pruner", Spy)
    _, decision, _ = run(tokenizer, tmp_path, cut="at_once")
    first = {learns: gone for learns, step, gone in seen if step == 0}
    structures = structures_of(model_of())
    left = sum(structures[n].units - len(kept) for n, kept in decision.keep.items())
    assert first == {True: 0, False: left} and left > 0


def test_the_taylor_ranking_is_that_of_llm_pruner(tokenizer, tmp_path):
    from prunebench_plugin_loraprune.taylor import taylor_ranking

    model = model_of()
    ctx = context(model, tokenizer, tmp_path)
    scored = {n: s for n, s in ctx.structures.items() if s.kind in ("heads", "neurons")}
    ranking = taylor_ranking(model, scored, ctx)
    _, decision, _ = run(tokenizer, tmp_path / "run", ranking="taylor", protect_last=0)
    for name, kept in decision.keep.items():
        lowest = ranking[name].argsort(stable=True)[: scored[name].units - len(kept)]
        assert sorted(set(range(scored[name].units)) - set(kept)) == sorted(lowest.tolist())


def test_cut_at_once_is_refused_with_shrinking(tokenizer, tmp_path):
    with pytest.raises(Invalid, match="at_once.*no shrink"):
        run(tokenizer, tmp_path, cut="at_once", shrink=True)
