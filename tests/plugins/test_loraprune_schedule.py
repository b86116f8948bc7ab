"""LoRAPrune's schedule: the released values, events, counts and the released sizes of LLaMA-7B."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.errors import Invalid
from prunebench.plugins.discovery import discover
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import lowest, select
from prunebench.pruning.surgery import count_parameters, slice_model

PLUGIN = discover()["loraprune"]
PLUGIN.load()
from prunebench_plugin_loraprune.options import LoRAPruneOptions  # noqa: E402
from prunebench_plugin_loraprune.schedule import (  # noqa: E402
    SparsitySchedule,
    default_cooldown,
    default_interval,
    exact_counts,
    native_counts,
)

LONG = SparsitySchedule(steps=1000, final=0.5)
RELEASED = {
    100: 0.0, 101: 0.001873, 110: 0.018517, 200: 0.165039, 300: 0.289062, 500: 0.4375,
    700: 0.492188, 800: 0.499023, 890: 0.499999, 900: 0.5,
}  # fmt: skip


def options(**params):
    return LoRAPruneOptions.from_params(PLUGIN.params(params, where="test"))


@pytest.fixture(scope="module")
def llama_7b():
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig())  # the defaults are LLaMA-7B's


@pytest.mark.parametrize("step", RELEASED)
def test_released_values(step):
    assert abs(LONG.at(step) - RELEASED[step]) < 1e-6


def test_it_rises_between_its_ends_and_is_flat_outside():
    values = [LONG.at(step) for step in range(1000)]
    assert values == sorted(values)
    assert set(values[:101]) == {0.0} and set(values[900:]) == {0.5}


def test_released_events_end_just_below_the_target():
    events = LONG.events(exact=False)
    assert (len(events), events[0], events[-1]) == (79, 110, 890)
    assert abs(LONG.at(890) - 0.4999990234) < 1e-10


def test_the_exact_schedule_has_one_event_more_on_the_target():
    assert LONG.events(exact=True) == [*LONG.events(exact=False), 900]
    odd = SparsitySchedule(steps=47, final=0.5, every=3)
    assert odd.events(exact=True)[-1] == 43 and odd.at(43) == 0.5 and odd.at(42) < 0.5
    assert SparsitySchedule(steps=50, final=0.5, cooldown=0.0, every=4).events(exact=True)[-1] == 49


@pytest.mark.parametrize("keys", [{"steps": 5, "every": 10}, {"steps": 1, "every": 1}])
def test_a_training_that_is_too_short_says_what_to_change(keys):
    with pytest.raises(Invalid, match=r"no pruning event.*budget.*recovery.batch.*prune_every"):
        SparsitySchedule(final=0.5, **keys).events(exact=True)


def test_nothing_to_prune_needs_no_event():
    assert SparsitySchedule(steps=1, final=0.0).events(exact=True) == []
    assert exact_counts(SparsitySchedule(steps=1, final=0.0), {"a": 0}) == {}


def test_intervals_of_short_and_long_trainings():
    assert [default_interval(steps) for steps in (1, 49, 150, 499, 500, 40_000)] == [
        1, 1, 3, 9, 10, 10,
    ]  # fmt: skip


def test_short_trainings_recover_longer():
    assert [default_cooldown(steps) for steps in (10, 125, 200, 400, 1000, 40_000)] == [
        0.5, 0.5, 0.5, 0.25, 0.1, 0.1,
    ]  # fmt: skip


def test_released_counts():
    (*_, heads), (*_, fifth) = (
        native_counts(SparsitySchedule(steps=1000, final=ratio), {"h": 32, "n": 11008}).values()
        for ratio in (0.5, 0.2)
    )
    assert heads == {"h": 15, "n": 5503} and fifth == {"h": 6, "n": 2201}


@pytest.mark.parametrize(("ratio", "size"), [(0.5, 3_964_227_584), (0.2, 5_628_809_216)])
def test_released_sizes_of_llama_7b(llama_7b, ratio, size):
    structures = structures_of(llama_7b)
    scored = options().scored(structures)
    assert sorted({s.layer for s in scored.values()}) == list(range(3, 31))
    units = {name: structure.units for name, structure in scored.items()}
    *_, last = native_counts(SparsitySchedule(steps=1000, final=ratio), units).values()
    assert Budget(llama_7b, structures).left(last) == size


def test_the_released_size_is_that_of_a_sliced_model():
    """The same through surgery, on the 7B shapes of two pruned and two protected layers."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=4))
    structures = structures_of(model)
    units = {
        n: s.units for n, s in options(protect_first=1, protect_last=1).scored(structures).items()
    }
    *_, last = native_counts(SparsitySchedule(steps=1000, final=0.5), units).values()
    budget = Budget(model, structures)
    decision = lowest(budget, {name: torch.zeros(count) for name, count in units.items()}, last)
    slice_model(model, decision)
    assert count_parameters(model) == budget.left(last)
    assert model.model.layers[1].mlp.up_proj.weight.shape == (5505, 4096)
    assert model.model.layers[1].self_attn.q_proj.weight.shape == (17 * 128, 4096)


@pytest.mark.parametrize(("layers", "expected"), [(40, 35), (60, 53), (80, 71)])
def test_protected_layers_of_larger_models(layers, expected):
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                num_hidden_layers=layers, hidden_size=16, intermediate_size=8, vocab_size=8,
                num_attention_heads=2,
            )
        )  # fmt: skip
    scored = options().scored(structures_of(model))
    assert len({s.layer for s in scored.values()}) == expected


def test_layers_that_are_left_out():
    assert [options().protected(layers) for layers in (6, 9, 10, 32)] == [
        (0, 0), (0, 0), (1, 1), (3, 1),
    ]  # fmt: skip
    assert options(protect_first=2, protect_last=0).protected(32) == (2, 0)


def test_exact_counts_follow_the_solver_and_never_fall(llama_7b):
    structures = structures_of(llama_7b)
    budget = Budget(llama_7b, structures)
    scored = options().scored(structures)
    zeros = {name: torch.zeros(structure.units) for name, structure in scored.items()}
    keep = select(budget, zeros, 0.5).keep
    final = {name: scored[name].units - len(kept) for name, kept in keep.items()}
    counts = exact_counts(LONG, final)
    assert counts[900] == final
    assert abs(1 - budget.left(counts[900]) / budget.total - 0.5) < 1e-4
    steps = sorted(counts)
    for before, after in zip(steps, steps[1:], strict=False):
        assert all(counts[before][name] <= counts[after][name] for name in final)
    for step in steps:  # a head is 0.03 % of the model, and at most one per layer is missing
        assert abs(1 - budget.left(counts[step]) / budget.total - LONG.at(step)) < 0.01


def test_contradictions_are_named():
    with pytest.raises(Invalid, match="warmup"):
        options(warmup=0.6, cooldown=0.4)
    with pytest.raises(Invalid, match="native"):
        options(ratio=0.5)
    with pytest.raises(Invalid, match="bits"):
        options(shrink=True, bits=8)
    with pytest.raises(Invalid, match="eta"):
        options(eta=-1)


FINALS = st.dictionaries(
    st.builds("layers.{}.{}".format, st.integers(0, 5), st.sampled_from(["heads", "neurons"])),
    st.integers(0, 40),
    min_size=1,
)


def excess(schedule, final, rounding):
    """By how many units the number that is gone is off the schedule, at worst, for each kind."""
    worst = 0.0
    for step, gone in list(exact_counts(schedule, final, rounding=rounding).items())[:-1]:
        share = schedule.at(step) / schedule.final
        for kind in ("heads", "neurons"):
            names = [name for name in final if name.endswith(kind)]
            wanted = share * sum(final[name] for name in names)
            worst = max(worst, abs(sum(gone[name] for name in names) - wanted))
    return worst


@given(FINALS, st.integers(30, 400), st.sampled_from([0.2, 0.5]))
def test_counts_follow_the_budget_within_half_a_unit(final, steps, sparsity):
    schedule = SparsitySchedule(steps=steps, final=sparsity, every=3)
    counts = list(exact_counts(schedule, final).values())
    assert counts[-1] == final
    for earlier, later in zip(counts, counts[1:], strict=False):
        assert all(earlier[name] <= later[name] <= final[name] for name in final)
    assert excess(schedule, final, "budget") <= 0.5 + 1e-9


def test_coarse_units_leave_one_by_one_and_with_released_rounding_all_at_once():
    schedule = SparsitySchedule(steps=290, final=0.5, cooldown=0.34, every=5)
    final = {f"layers.{i}.heads": 2 for i in range(6)}

    def gone(rounding):
        counts = exact_counts(schedule, final, rounding=rounding)
        return list(dict.fromkeys(sum(removed.values()) for removed in counts.values()))

    assert gone("down") == [0, 6, 12]
    assert len(gone("budget")) >= 10 and gone("budget")[-1] == 12
    assert excess(schedule, final, "down") > 5 and excess(schedule, final, "budget") <= 0.5
    first = next(c for c in exact_counts(schedule, final).values() if sum(c.values()) == 1)
    assert first["layers.5.heads"] == 1  # ties: the last layer first
