"""The shared Trainer: what methods may rely on, the finite guard, and its numbers."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers import TrainerCallback
from tuning_toy import examples, pruned_llama, settings, tokenizer

from prunebench.errors import Failure, Invalid
from prunebench.recovery import Collator, attach, encode, fit, trainer


@pytest.fixture(scope="module")
def toy_tokenizer():
    return tokenizer()


@pytest.fixture
def build(toy_tokenizer, tmp_path):
    """build(settings, model=..., **trainer keys) -> Trainer over a LoRA-wrapped toy model."""

    def make(chosen=None, *, model=None, **keys):
        chosen = chosen or settings()
        wrapped = attach(model or pruned_llama(), chosen, seed=0)
        data = encode(examples(), toy_tokenizer, chosen, seed=0)
        how = {"workdir": tmp_path, "seed": 0, "device": "cpu"}
        return trainer(wrapped, data, chosen, **{**how, **keys})

    return make


class Watch(TrainerCallback):
    """Records the norm of the gradients that the optimizer is about to use."""

    def __init__(self):
        self.norms, self.steps, self.moved = [], [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(gradients).item() if gradients else None)
        self.steps.append(state.global_step)
        self.before = _trainable(kwargs["model"])

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.moved.append(not torch.equal(self.before, _trainable(kwargs["model"])))


def _trainable(model):
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def test_callbacks_see_clipped_gradients_before_the_optimizer(build):
    free, clipped = Watch(), Watch()
    chosen = {"tokens": 1500, "warmup": 0}
    fit(build(settings(**chosen, clip=0), callbacks=[free]))
    fit(build(settings(**chosen, clip=0.25), callbacks=[clipped]))
    assert free.norms[0] > 0.5  # so there is something to clip
    assert clipped.norms[0] == pytest.approx(0.25, rel=1e-4)
    assert all(norm <= 0.25 * (1 + 1e-4) for norm in clipped.norms)
    assert clipped.steps == list(range(len(clipped.norms)))  # once per optimizer step, from 0
    assert all(clipped.moved)


def test_the_first_loss_is_the_mean_over_response_tokens(build):
    tuner = build(settings(dropout=0))
    rows = [tuner.data.dataset[at] for at in range(8)]
    batch = Collator()(rows)
    with torch.no_grad():
        logits = pruned_llama()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )
    assert fit(tuner)["loss"][0][1] == pytest.approx(expected.item(), abs=1e-5)


def test_micro_batches_do_not_change_the_tuning(build):
    curves = [
        fit(build(settings(dropout=0, micro_batch=size)))["loss"] for size in (8, 2)
    ]  # fmt: skip
    assert torch.allclose(torch.tensor(curves[0]), torch.tensor(curves[1]), atol=2e-4)


def test_the_tokens_that_went_through_are_those_reported(build):
    model, seen = pruned_llama(), []
    model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(int(inputs["attention_mask"].sum())), with_kwargs=True
    )
    report = fit(build(model=model))
    assert sum(seen) == report["tuning_tokens"]
    assert report["steps"] == -(-len(seen) // 2)


def test_the_learning_rate_ends_where_the_budget_ends(build):
    class Rates(TrainerCallback):
        seen: list[float] = []

        def on_step_begin(self, args, state, control, **kwargs):
            self.seen.append(kwargs["lr_scheduler"].get_last_lr()[0])

    watch = Rates()
    report = fit(build(settings(schedule="linear", warmup=2), callbacks=[watch]))
    steps = report["steps"]
    decay = [5e-3 * (steps - at) / (steps - 2) for at in range(2, steps)]
    assert watch.seen == pytest.approx([0, 2.5e-3, *decay])
    assert report["warmup_steps"] == 2


def test_points_of_the_curve_average_the_steps_between_them(build):
    fine = fit(build(settings(log_every=1)))["loss"]
    coarse = fit(build(settings(log_every=4)))["loss"]
    assert coarse[0] == [4, pytest.approx(sum(loss for _, loss in fine[:4]) / 4)]
    assert coarse[-1][0] == fine[-1][0]


def test_a_penalty_counts_once_per_step_whatever_the_micro_batch(build):
    def penalty(model, state):
        return 1.0 + 0.0 * sum(p.sum() for p in model.parameters() if p.requires_grad)

    plain, one, four = (
        fit(build(settings(dropout=0, micro_batch=size), penalty=extra))["loss"][0][1]
        for size, extra in ((8, None), (8, penalty), (2, penalty))
    )
    assert one == pytest.approx(plain + 1, abs=1e-4)
    assert four == pytest.approx(plain + 1, abs=1e-4)


def test_rates_give_a_parameter_its_own_learning_rate(build):
    still = build(settings(warmup=0), rates={"q_proj": 0.0})
    before = {n: p.detach().clone() for n, p in still.model.named_parameters() if p.requires_grad}
    fit(still)
    moved = {n for n, p in still.model.named_parameters() if n in before and (p != before[n]).any()}
    assert moved
    assert not any("q_proj" in name for name in moved)


def test_an_infinite_weight_stops_with_the_reason(build):
    model = pruned_llama()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("inf")
    expected = r"loss became nan at step 1; 1 weights .* first .*layers.1.mlp.up_proj"
    with pytest.raises(Failure, match=expected):
        fit(build(model=model))


def test_a_gradient_that_is_not_finite_stops_too(build):
    tuner = build()
    name, parameter = next((n, p) for n, p in tuner.model.named_parameters() if "lora_B" in n)
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(Failure, match="gradient norm became nan at step 1; all weights are finite"):
        fit(tuner)


def _nan_at(*steps):
    return lambda model, state: torch.tensor(float("nan") if state.global_step in steps else 0.0)


def test_skipping_leaves_the_step_out_and_counts_it(build):
    watch = Watch()
    tuner = build(
        settings(warmup=0), penalty=_nan_at(2, 3), nonfinite="skip", callbacks=[watch]
    )  # fmt: skip
    report = fit(tuner)
    assert report["skipped_steps"] == 2
    assert [at for at, norm in zip(watch.steps, watch.norms, strict=True) if norm is None] == [2, 3]
    assert [moved for moved in watch.moved[:5]] == [True, True, False, False, True]
    assert all(torch.isfinite(p).all() for p in tuner.model.parameters())
    assert all(torch.isfinite(torch.tensor(loss)) for _, loss in report["loss"])


def test_skipping_without_end_is_a_failure(build):
    with pytest.raises(Failure, match="21 optimizer steps in a row were skipped up to step 21"):
        fit(build(settings(tokens=20_000), penalty=_nan_at(*range(100)), nonfinite="skip"))


def test_a_run_without_faults_skips_nothing(build):
    assert fit(build(nonfinite="skip"))["skipped_steps"] == 0


def test_nothing_is_printed_and_progress_is_logged(build, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="prunebench"):
        fit(build(settings(log_every=5)))
    assert capsys.readouterr().out == ""
    assert [record.message.split(" loss")[0] for record in caplog.records] == [
        "step 5/11", "step 10/11",
    ]  # fmt: skip


def test_a_model_with_nothing_to_train_is_refused(toy_tokenizer, tmp_path):
    data = encode(examples(), toy_tokenizer, settings(), seed=0)
    model = pruned_llama().requires_grad_(False)
    with pytest.raises(Invalid, match="no trainable parameter"):
        trainer(model, data, settings(), workdir=tmp_path, seed=0, device="cpu")


def test_an_unknown_answer_to_nonfinite_is_refused(build):
    with pytest.raises(Invalid, match="nonfinite: expected 'stop' or 'skip', got 'ignore'"):
        build(nonfinite="ignore")


def test_what_resuming_stands_on_cannot_be_overridden(build):
    with pytest.raises(Invalid, match="logging_steps cannot be overridden"):
        build(logging_steps=7)


def test_an_override_reaches_the_trainer(build):
    assert build(adam_beta2=0.98).args.adam_beta2 == 0.98
