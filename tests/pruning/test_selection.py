"""Selection: the parameter budget is met, and what cannot be met is said."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import TOLERANCE, counts, lowest, select
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import count_decoder_parameters, count_parameters, slice_model

WIDE = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}


def scored(model, kinds, seed=0):
    structures = structures_of(model)
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(s.units, generator=generator)
        for name, s in structures.items()
        if s.kind in kinds
    }
    return Budget(model, structures), scores


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.2, 0.35, 0.5])
@pytest.mark.parametrize("kinds", ["heads neurons", "neurons", "heads neurons hidden"])
def test_target_is_met_and_counted_by_real_surgery(scope, sparsity, kinds):
    model = make_tiny(**WIDE, vocab_size=64)
    dense = count_parameters(model)
    budget, scores = scored(model, kinds.split())
    decision = select(budget, scores, sparsity, scope=scope)
    slice_model(model, decision)
    achieved = 1 - count_parameters(model) / dense
    assert achieved == pytest.approx(decision.how["achieved"], abs=1e-12)
    assert abs(achieved - sparsity) <= TOLERANCE


def test_layer_scope_keeps_shapes_uniform():
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    decision = select(budget, scores, 0.4)
    for kind in ("heads", "neurons"):
        assert len({len(kept) for name, kept in decision.keep.items() if kind in name}) == 1


def test_lowest_scores_leave():
    model = make_tiny()
    budget, _ = scored(model, ())
    scores = {"layers.0.neurons": torch.arange(48.0).flip(0)}
    decision = lowest(budget, scores, {"layers.0.neurons": 5})
    assert decision.keep["layers.0.neurons"] == tuple(range(43))


def test_global_ranking_follows_the_scores():
    model = make_tiny()
    structures = structures_of(model)
    budget = Budget(model, structures)
    scores = {f"layers.{i}.neurons": torch.rand(48) + 10 * (i != 1) for i in range(3)}
    decision = select(budget, scores, 0.1, scope="global")
    assert set(decision.keep) == {"layers.1.neurons"}


def test_multiples_are_kept():
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    decision = select(budget, scores, 0.3, multiple_of={"neurons": 32, "heads": 2})
    for name, kept in decision.keep.items():
        assert len(kept) % (32 if "neurons" in name else 2) == 0


MULTIPLES = {"neurons": 64, "heads": 2, "hidden": 16}


@pytest.mark.parametrize("scope", ["global", "kind"])
@pytest.mark.parametrize("kinds", ["heads neurons", "neurons", "heads neurons hidden"])
@pytest.mark.parametrize("sparsity", [0.0, 0.15, 0.3, 0.45])
def test_blocks_are_ranked_and_the_target_is_met_within_half_a_block(scope, kinds, sparsity):
    model = make_tiny(**WIDE, vocab_size=64)
    dense = count_parameters(model)
    budget, scores = scored(model, kinds.split())
    decision = select(budget, scores, sparsity, scope=scope, multiple_of=MULTIPLES)
    assert decision.how["multiple_of"] == MULTIPLES
    kept = {n: len(decision.keep.get(n, range(len(s)))) for n, s in scores.items()}
    block = {n: MULTIPLES[budget.structures[n].kind] for n in scores}
    for name, number in kept.items():
        assert number >= block[name] and number % block[name] == 0
        lost = set(range(len(scores[name]))) - set(decision.keep.get(name, range(number)))
        order = scores[name].argsort(stable=True).tolist()
        assert lost == set(order[: len(lost)]), "the lowest units leave"
    removed = {n: len(scores[n]) - number for n, number in kept.items()}
    left = budget.left(removed)
    steps = [
        left - budget.left({**removed, n: removed[n] + block[n]})
        for n in scores
        if kept[n] > block[n]
    ]
    assert abs(left - budget.total * (1 - sparsity)) <= min(steps) / 2 + 1
    again = select(budget, dict(scores), sparsity, scope=scope, multiple_of=MULTIPLES)
    assert again == decision
    slice_model(model, decision)
    assert 1 - count_parameters(model) / dense == pytest.approx(decision.how["achieved"], abs=1e-12)


@pytest.mark.parametrize("scope", ["global", "kind"])
def test_with_multiples_more_leaves_at_a_higher_target(scope):
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    achieved, before = -1.0, {}
    for sparsity in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5):
        decision = select(budget, scores, sparsity, scope=scope, multiple_of=MULTIPLES)
        assert decision.how["achieved"] > achieved
        achieved = decision.how["achieved"]
        neurons = {n: set(k) for n, k in decision.keep.items() if "neurons" in n}
        assert all(neurons[n] <= kept for n, kept in before.items()), "nothing comes back"
        before = neurons


def test_a_size_that_is_no_multiple_goes_down_to_one_or_stays():
    """Of 250 neurons 192, 128 or 64 may stay, or all; of 40 all, where 64 is asked for."""
    for width, allowed in ((250, {250, 192, 128, 64}), (40, {40})):
        budget, scores = scored(make_tiny(**{**WIDE, "intermediate_size": width}),
                                ("heads", "neurons"))  # fmt: skip
        for sparsity in (0.05, 0.1, 0.15):
            decision = select(budget, scores, sparsity, scope="global", multiple_of={"neurons": 64})
            kept = {len(k) for n, k in decision.keep.items() if "neurons" in n}
            assert kept <= allowed


def test_blocks_of_one_are_the_ranking_of_units():
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons", "hidden"))
    ones = dict.fromkeys(MULTIPLES, 1)
    for sparsity in (0.1, 0.33, 0.5):
        plain = select(budget, scores, sparsity, scope="global")
        assert select(budget, scores, sparsity, scope="global", multiple_of=ones).keep == plain.keep


def test_a_target_beyond_the_last_block_is_refused():
    budget, scores = scored(make_tiny(**WIDE), ("neurons",))
    with pytest.raises(Unsupported, match="cannot be reached"):
        select(budget, scores, 0.5, scope="global", multiple_of={"neurons": 192})


def test_no_structure_loses_its_last_unit():
    budget, scores = scored(make_tiny(num_key_value_heads=1), ("heads", "neurons"))
    for scope in ("layer", "global"):
        decision = select(budget, scores, 0.33, scope=scope)
        assert all(kept for kept in decision.keep.values())
        assert not any("heads" in name for name in decision.keep)


def test_unreachable_target_says_what_is_reachable():
    budget, scores = scored(make_tiny(), ("heads",))
    with pytest.raises(Unsupported, match=r"sparsity 0.500 cannot be reached.*removes 0\.\d+"):
        select(budget, scores, 0.5)


@pytest.mark.parametrize(
    "scores, message",
    [
        ({}, "at least one structure"),
        ({"layers.0.heads": torch.rand(3)}, "shape"),
        ({"layers.0.heads": torch.tensor([1.0, float("nan")])}, "finite"),
        ({"nonsense": torch.rand(3)}, "unknown structure"),
    ],
)
def test_bad_scores_are_refused(scores, message):
    budget, _ = scored(make_tiny(), ())
    with pytest.raises(Invalid, match=message):
        select(budget, scores, 0.2)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_sparsity_outside_the_unit_interval_is_refused(sparsity):
    budget, scores = scored(make_tiny(), ("neurons",))
    with pytest.raises(Invalid, match=r"\[0, 1\)"):
        select(budget, scores, sparsity)


def test_whole_layers_are_counted_and_removed():
    model = make_tiny(num_hidden_layers=8)
    dense = count_parameters(model)
    budget, scores = scored(model, ("layers",))
    decision = select(budget, scores, 0.5)
    slice_model(model, decision)
    assert 1 - count_parameters(model) / dense == pytest.approx(decision.how["achieved"])
    assert len(model.model.layers) == len(decision.keep["layers"])


def test_ties_are_broken_by_position():
    budget, _ = scored(make_tiny(), ())
    scores = {"layers.0.neurons": torch.zeros(48)}
    assert lowest(budget, scores, {"layers.0.neurons": 2}).keep["layers.0.neurons"][0] == 2


def test_decision_survives_json():
    decision = Decision({"hidden": (0, 2), "layers.0.heads": (1,)}, {"scope": "layer"})
    assert Decision.from_json(decision.to_json()) == decision
    with pytest.raises(Invalid, match="decision.json: expected a decision"):
        Decision.from_json('{"keep": [1]}', where="decision.json")


def test_llama_7b_counts_on_the_meta_device():
    """LLM-Pruner's 25 % of layers 4..29 leaves 5,422,977,024 of 6,738,415,616 parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())
    structures = structures_of(model)
    budget = Budget(model, structures)
    assert budget.total == 6_738_415_616
    inner = [s for s in structures.values() if s.layer is not None and 4 <= s.layer < 30]
    removed = {s.name: 8 if s.kind == "heads" else 2752 for s in inner}
    assert budget.left(removed) == 5_422_977_024
    scores = {s.name: torch.rand(s.units) for s in inner}
    for scope in ("layer", "global"):
        assert abs(select(budget, scores, 0.5, scope=scope).how["achieved"] - 0.5) <= TOLERANCE


@pytest.mark.parametrize("case", ["heads and neurons", "hidden", "layers"])
def test_a_share_of_the_decoder_counts_its_blocks_alone(tiny, case):
    """With a tied embedding that is most of the model, the two shares are far apart."""
    model = tiny("llama", tie_word_embeddings=True)
    structures = structures_of(model)
    kinds = {"heads and neurons": ("heads", "neurons")}.get(case, (case,))
    chosen = {n: s for n, s in structures.items() if s.kind in kinds}
    scores = {name: torch.rand(s.units) for name, s in chosen.items()}
    budget = Budget(model, structures, of="decoder")
    dense, everything = count_decoder_parameters(model), count_parameters(model)
    assert budget.total == dense < everything
    wanted = 1 / 3 if case == "layers" else 0.4
    decision = select(budget, scores, wanted)
    slice_model(model, decision)
    achieved = 1 - count_decoder_parameters(model) / dense
    assert achieved == pytest.approx(decision.how["achieved"])
    assert achieved == pytest.approx(wanted, abs=0.03)  # units of so small a model are coarse
    assert 1 - count_parameters(model) / everything < achieved - 0.02 or case == "hidden"


def left_of(decision, budget):
    """Share of units that leaves every structure."""
    units = {name: structure.units for name, structure in budget.structures.items()}
    return {name: 1 - len(kept) / units[name] for name, kept in decision.keep.items()}


def test_shares_say_how_structures_compare_and_the_target_stays():
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    shares = {"heads": 0.0, "layers.1": 0.5, "layers.2.neurons": 0.25}
    decision = select(budget, scores, 0.2, shares=shares)
    left = left_of(decision, budget)
    assert {name for name in left if "heads" in name} == {"layers.1.heads"}
    assert left["layers.1.neurons"] == pytest.approx(left["layers.0.neurons"] / 2, abs=0.02)
    assert left["layers.2.neurons"] == pytest.approx(left["layers.0.neurons"] / 4, abs=0.02)
    assert abs(decision.how["achieved"] - 0.2) <= TOLERANCE
    assert select(budget, scores, 0.2, shares={"neurons": 1.0}) == select(budget, scores, 0.2)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"layers.9": 1.0}, "'layers.9' is no structure, layer"),
        ({"heads": -1.0}, "shares must be numbers from 0 on"),
    ],
)
def test_wrong_shares_are_refused(shares, message):
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    with pytest.raises(Invalid, match=message):
        select(budget, scores, 0.2, shares=shares)
    with pytest.raises(Invalid, match="shares needs scope 'layer'"):
        select(budget, scores, 0.2, shares={"heads": 1.0}, scope="kind")


def test_counts_are_known_before_scores():
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    numbers = counts(budget, scores, 0.3)
    assert lowest(budget, scores, numbers).keep == select(budget, scores, 0.3).keep


def test_kinds_lose_the_same_share_by_one_ranking_each():
    budget, scores = scored(make_tiny(**WIDE), ("heads", "neurons"))
    scores = {n: s + (10 if n.startswith("layers.0.") else 0) for n, s in scores.items()}
    decision = select(budget, scores, 0.3, scope="kind")
    assert not any(name.startswith("layers.0.") for name in decision.keep)
    left = left_of(decision, budget)
    shares = [sum(left[n] for n in left if kind in n) / 3 for kind in ("heads", "neurons")]
    assert shares[0] == pytest.approx(shares[1], abs=0.0625)  # half a head of eight
    assert abs(decision.how["achieved"] - 0.3) <= TOLERANCE


def test_layers_and_units_leave_in_one_decision():
    model = make_tiny(**WIDE, vocab_size=64)
    dense = count_parameters(model)
    budget, scores = scored(model, ("heads", "neurons"))
    decision = select(budget.after(dropped=[1]), scores, 0.5)
    assert decision.keep["layers"] == (0, 2)
    assert not any(name.startswith("layers.1.") for name in decision.keep)
    slice_model(model, decision)
    assert 1 - count_parameters(model) / dense == pytest.approx(decision.how["achieved"], abs=1e-12)
    assert abs(decision.how["achieved"] - 0.5) <= TOLERANCE
    with pytest.raises(Invalid, match=r"expected some of the layers 0..2"):
        budget.after(dropped=[0, 1, 2])


def test_parameters_that_a_method_adds_are_made_up_for():
    budget, scores = scored(make_tiny(**WIDE), ("neurons",))
    decision = select(budget.after(gained=3000), scores, 0.2)
    plain = select(budget, scores, 0.2)
    assert abs(decision.how["achieved"] - 0.2) <= TOLERANCE
    assert sum(map(len, decision.keep.values())) < sum(map(len, plain.keep.values()))
