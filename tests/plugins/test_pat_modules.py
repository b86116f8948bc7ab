"""PAT's modules, gates, losses and rates by themselves, and what learns."""

from __future__ import annotations

import pytest
import torch
from pat_toy import (
    FAMILIES,
    TOKENS,
    family,
    harden,
    meta_llama,
    options,
    scramble,
    sparsifier_of,
    tuned,
)
from torch import nn

from prunebench.errors import Invalid
from prunebench.pruning.surgery import count_parameters, logits
from prunebench.recovery import RecoverySettings

from prunebench_plugin_pat.losses import bimodal_loss, count_loss, identity_loss  # isort: skip
from prunebench_plugin_pat.schedule import GateSchedule, mask_rate, soft_gate  # isort: skip
from prunebench_plugin_pat.sparsifier import HSM  # isort: skip

FLAVOURS = ["code", "paper"]


@pytest.mark.parametrize(
    "step, temperature, offset, gates",
    [
        (0, 1.0000, 0.500, [0.877541, 0.975021, 1.0000, 1.024979, 1.122459]),
        (100, 2.0000, 0.490, [0.758942, 0.940166, 0.9900, 1.039834, 1.221058]),
        (1000, 4.0000, 0.400, [0.519204, 0.801313, 0.9000, 0.998687, 1.280796]),
        (2500, 6.6438, 0.250, [0.284827, 0.589756, 0.7500, 0.910244, 1.215173]),
        (5000, 13.2875, 0.000, [0.001300, 0.209366, 0.5000, 0.790634, 0.998700]),
        (8000, 41.2737, 0.000, [0.000045, 0.015869, 0.5000, 0.984131, 1.000000]),
        (30000, 41.2737, 0.000, [0.000045, 0.015869, 0.5000, 0.984131, 1.000000]),
    ],
)
def test_t6_gates_of_the_released_schedule(step, temperature, offset, gates):
    schedule = GateSchedule(30000, 10000, 8000)
    if step >= 8000:  # the released offset goes on to 0.0 at 0.5 s0
        assert schedule.offset(step) == 0.0
    assert schedule.temperature(step) == pytest.approx(temperature, abs=1e-3)
    assert schedule.offset(step) == pytest.approx(offset, abs=1e-6)
    mask = torch.tensor([-0.5, -0.1, 0.0, 0.1, 0.5], dtype=torch.float64)
    got = soft_gate(
        mask,
        temperature=schedule.temperature(step),
        offset=schedule.offset(step),
        exponent_limit=10.0,
    )
    assert torch.allclose(got, torch.tensor(gates, dtype=torch.float64), atol=2e-6)


def test_gates_without_a_limit_do_not_leak():
    mask = torch.tensor([-1.0])
    limited = soft_gate(mask, temperature=40.0, offset=0.0, exponent_limit=10.0)
    assert limited.item() == pytest.approx(4.54e-5, rel=1e-3)
    assert soft_gate(mask, temperature=40.0, offset=0.0).item() < 1e-15


def test_t7_all_modules_share_one_gate_and_keep_the_number_asked_for(monkeypatch):
    model = family("llama")
    sparsifier = scramble(sparsifier_of(model, kept=19))
    seen, real = [], HSM.forward

    def spy(self, z, gate):
        seen.append(gate)
        return real(self, z, gate)

    monkeypatch.setattr(HSM, "forward", spy)
    before = logits(model, TOKENS)
    assert len(seen) == 7 and len({id(gate) for gate in seen}) == 1
    with torch.no_grad():
        sparsifier.mask[0] += 3.0
    assert (logits(model, TOKENS) - before).abs().max() > 1e-4
    seen.clear()
    decision = harden(sparsifier)
    logits(model, TOKENS)
    assert len({id(gate) for gate in seen}) == 1
    assert len(decision.keep["hidden"]) == 19 == int(seen[0].sum())
    kept = sparsifier.mask[sparsifier.keep == 1].min()
    assert kept >= sparsifier.mask[sparsifier.keep == 0].max()


@pytest.mark.parametrize("rank, width, expected", [(200, 4096, 2.25e-3), (300, 2048, 1.536e-3)])
def test_t8_identity_loss_at_the_first_step(rank, width, expected):
    hsm = HSM(width, rank, "channel", torch.Generator().manual_seed(0))
    loss = identity_loss(hsm.down, hsm.up, kind="mean").item()
    assert loss == pytest.approx(4 / 9 / rank + 1 / (9 * width), rel=0.02)
    assert loss == pytest.approx(expected, rel=0.03)
    rows, columns = torch.empty(rank, width), torch.empty(width, rank)
    nn.init.orthogonal_(rows)
    nn.init.orthogonal_(columns)
    assert identity_loss(rows, columns, kind="mean").item() < 1e-12
    assert identity_loss(rows, columns, kind="norm").item() < 1e-3
    assert identity_loss(rows, 2 * columns, kind="norm").item() == pytest.approx(3 * rank**0.5)


def test_t9_mask_losses_at_the_first_step():
    mask = torch.zeros(4096, requires_grad=True)
    count = count_loss(mask, 3072, relative=True)
    assert count.item() == pytest.approx(10 / 3, abs=1e-4)
    assert count_loss(mask, 3072, relative=False).item() == 1024
    bimodal = bimodal_loss(mask)
    assert bimodal.item() == pytest.approx(0.25)
    (count + bimodal).backward()
    assert bool(mask.grad.isfinite().all()) and bool((mask.grad > 0).all())
    upper = torch.full((8,), 0.5)
    assert bimodal_loss(upper).item() == 0.0 and bimodal_loss(-upper).item() == 0.0


@pytest.mark.parametrize("with_surrogate", [True, False])
def test_t10_the_count_locks_only_with_a_cross_entropy(with_surrogate):
    """A tiny random linear loss in the cross-entropy's place breaks the tie between channels."""
    width, kept = 512, 384
    mask = nn.Parameter(torch.zeros(width))
    slope = torch.randn(width, generator=torch.Generator().manual_seed(0)) * 1e-3
    optimizer = torch.optim.Adam([mask], lr=5e-5)
    schedule = GateSchedule(30000, 10000, 8000)
    counts = []
    for step in range(2500):
        gate = soft_gate(
            mask, temperature=schedule.temperature(step), offset=schedule.offset(step),
            exponent_limit=10.0,
        )  # fmt: skip
        loss = count_loss(mask, kept, relative=True) + bimodal_loss(mask)
        if with_surrogate:
            loss = loss + (slope * gate).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        counts.append(int((mask > 0).sum()))
    if with_surrogate:
        assert set(counts[2000:]) == {kept}
    else:
        assert kept not in counts and set(counts[2000:]) <= {0, width}


def lora_parameters(model, rank):
    linears = (m for n, m in model.named_modules() if n.endswith("proj"))
    return sum(rank * sum(linear.weight.shape) for linear in linears)


def test_t11_trainable_parameters_of_llama_7b():
    model = meta_llama()
    total = count_parameters(model)
    assert total == 6_738_415_616
    sparsifier = sparsifier_of(model, rank=200, kept=3072, attach=False)
    hsms = count_parameters(sparsifier) - 4096  # the mask
    assert len(sparsifier.writers) == 65
    assert hsms == 106_496_000 + 266_240
    assert lora_parameters(model, 20) == 49_971_200
    assert round((hsms + 49_971_200) / 1e6, 1) == 156.7
    assert round(lora_parameters(model, 64) / 1e6, 1) == 159.9
    ranked = sparsifier_of(model, rank=200, kept=3072, attach=False, flavour="paper")
    assert count_parameters(ranked) - 4096 == 106_496_000 + 65 * 200
    small = count_parameters(sparsifier_of(model, rank=8, kept=3072, attach=False, scale="none"))
    added = small - 4096 + lora_parameters(model, 8)
    assert f"{added / (total + added):.2%}" == "0.36%"
    dense = len(sparsifier.writers) * 4096**2 + lora_parameters(model, 8)  # of Figure 4
    assert f"{dense / (total + dense):.2%}" == "14.15%"


def gradients(model, sparsifier, loss):
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_t15_what_learns_and_what_does_not(name):
    model = family(name)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    tuned_model, _, sparsifier = tuned(name)
    learns = {n for n, p in tuned_model.named_parameters() if p.requires_grad}
    assert all(n.startswith("sparsifier.") or "lora_" in n for n in learns)
    parts = {n.rpartition(".")[2] for n in learns if n.startswith("sparsifier.")}
    assert parts == {"mask", "down", "up", "s"}
    for key, parameter in tuned_model.named_parameters():
        if key not in learns:
            assert torch.equal(parameter, before[key.replace("base_layer.", "")])


def test_t15_cross_entropy_at_the_first_step():
    model, wrapped, sparsifier = tuned("llama", steps=0)
    loss = wrapped(input_ids=TOKENS, labels=TOKENS).loss
    found = gradients(model, sparsifier, loss)
    assert found["sparsifier.hsms.0.down"].abs().max() == 0.0
    assert found["sparsifier.hsms.0.up"].abs().min() > 0.0
    of_mask = found["sparsifier.mask"]
    assert len(set(of_mask.tolist())) == of_mask.numel()


def test_t16_a_frozen_mask_is_left_alone_by_the_cross_entropy():
    model, wrapped, sparsifier = tuned("llama")
    values = sparsifier.mask.detach().clone()
    sparsifier.step = sparsifier.schedule.freeze
    sparsifier.settle()
    loss = wrapped(input_ids=TOKENS, labels=TOKENS).loss + sparsifier.penalty()
    found = gradients(model, sparsifier, loss)
    assert "sparsifier.mask" not in found and found["sparsifier.hsms.1.s"].abs().max() > 0
    assert torch.equal(sparsifier.mask, values)


@pytest.mark.parametrize("after", ["hard", "soft"])
def test_gates_after_the_freeze_are_hard_or_as_released(after):
    _, _, sparsifier = tuned("llama", after_freeze=after)
    sparsifier.step = sparsifier.schedule.freeze
    assert sparsifier.current_gate().unique().numel() > 2
    sparsifier.settle()
    gates = sparsifier.current_gate()
    assert (set(gates.tolist()) == {0.0, 1.0}) == (after == "hard")
    sparsifier.step = sparsifier.schedule.steps - 1
    assert torch.equal(sparsifier.current_gate(), gates)


def test_separation_is_that_of_what_stays_from_what_leaves():
    sparsifier = sparsifier_of(family("llama"), kept=24)
    assert sparsifier.separation() == 0.0
    with torch.no_grad():
        sparsifier.mask[:24], sparsifier.mask[24:] = 0.7, -0.2
    apart = (torch.sigmoid(torch.tensor(0.7)) - torch.sigmoid(torch.tensor(-0.2))).item()
    assert sparsifier.separation() == pytest.approx(apart, abs=1e-6)
    harden(sparsifier)
    assert sparsifier.separation() == 1.0


def test_the_identity_loss_is_on_all_modules_or_on_three():
    model = family("llama")
    everywhere = sparsifier_of(model, attach=False)
    upstream = sparsifier_of(model, attach=False, identity_on="last-layer")
    none = sparsifier_of(model, attach=False, identity_loss="none")
    for sparsifier, modules in ((everywhere, 7), (upstream, 3), (none, 0)):
        found = torch.autograd.grad(
            sparsifier.penalty(), [h.down for h in sparsifier.hsms], allow_unused=True
        )
        assert sum(g is not None for g in found) == modules
    assert upstream._near_identity() == [upstream.hsms[0], upstream.hsms[5], upstream.hsms[6]]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_mask_that_is_not_trained_shuts_the_last_channels(flavour):
    model = family("llama")
    sparsifier = sparsifier_of(model, steps=300, trainable_mask=False, flavour=flavour)
    assert not sparsifier.mask.requires_grad
    closing = []
    for step in (0, 50, 100, 200, 300):
        sparsifier.step = step
        gate = sparsifier.current_gate()
        assert torch.equal(gate[:24], torch.ones(24)) and gate[24:].unique().numel() == 1
        closing.append(gate[-1].item())
    expected = {"code": [1.0, 0.25, 0.0627, 2.46e-4, 9.7e-7], "paper": [1.0, 0.5, 0, 0, 0]}
    assert closing == pytest.approx(expected[flavour], rel=0.01, abs=1e-9)
    assert harden(sparsifier).keep["hidden"] == tuple(range(24))


def test_the_masks_rate_reaches_the_travel_that_was_asked_for():
    settings = RecoverySettings.from_config({"preset": "pat"})
    released = GateSchedule(30500, 10000, 8000)
    rate = mask_rate(settings, released, 0.376)
    assert rate == pytest.approx(1.0, abs=0.01)  # the paper's run needs no multiplier
    short = GateSchedule.over(300, milestone=1 / 3, freeze=0.8)
    assert short == GateSchedule(300, 100, 80)
    warm = RecoverySettings.from_config({"preset": "pat", "warmup": 0.1})
    rate = mask_rate(warm, short, 0.4)
    sums = sum(5e-5 * rate * min(1.0, step / 30) for step in range(80))
    assert 0.38 < sums < 0.43


@pytest.mark.parametrize("steps", [2, 30])
def test_a_run_too_short_for_the_schedule_says_so(steps):
    with pytest.raises(Invalid, match=rf"has {steps} optimizer steps.*raise recovery.tokens"):
        GateSchedule.over(steps, milestone=1 / 3, freeze=0.8)


def test_flavours_differ_as_listed_and_each_part_can_be_chosen():
    code, paper = options(), options(flavour="paper")
    differing = {k for k in code.to_dict() if code.to_dict()[k] != paper.to_dict()[k]}
    assert differing == {
        "scale", "exponent_limit", "freeze", "count_loss", "bimodal_loss", "identity_loss",
        "decay",
    }  # fmt: skip
    mixed = options(flavour="paper", scale="channel", exponent_limit=0)
    assert (mixed.scale, mixed.exponent_limit, mixed.freeze) == ("channel", 0, 1.0)
    with pytest.raises(Invalid, match="give one of them"):
        options(width=8, multiple_of=8)
    with pytest.raises(Invalid, match="at most the hidden width 32"):
        options(rank=33).hsm_rank(32)
    assert [options().hsm_rank(width) for width in (256, 4096, 5120, 7168)] == [13, 200, 200, 200]
