"""From channels to units: pairing under MHA and GQA, reductions, what is scored."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from saliency_toy import DATA, all_sides, saliency

from prunebench.pruning.architectures import structures_of
from prunebench.pruning.saliency import (
    REDUCTIONS,
    Side,
    unit_scores,
    weight_couplings,
)
from prunebench.pruning.structure import Coupling, Structure


def test_gqa_heads_are_scored_with_the_query_heads_that_read_them():
    """A group whose o columns are 0 changes nothing: its score is 0. Other pairings miss that."""
    model = make_tiny(num_attention_heads=8, num_key_value_heads=2)
    heads = structures_of(model)["layers.1.heads"]
    o_side = Side("model.layers.1.self_attn.o_proj.weight", 1)
    with torch.no_grad():
        columns = next(c for c in heads.couplings if c.parameter == o_side.parameter).index[1]
        model.get_parameter(o_side.parameter)[:, columns] = 0
    # W_v of that group gets no gradient, W_o has no weight: every term of the group is 0.
    channels = saliency(model, ["param_first"])["param_first"]
    scores = unit_scores(channels, heads)
    assert scores[1] == 0 and scores[0] > 0

    def interleaved(values):  # query head h with KV head h % 2, as the released code pairs them
        return (
            values.view(4, 2, 8).sum(dim=(0, 2)) if len(values) == 64 else values.view(2, 8).sum(1)
        )

    wrong = sum(interleaved(channels[Side(c.parameter, c.dim)]) for c in weight_couplings(heads))
    assert wrong[1] > 0.1 * wrong[0]


def test_head_reductions_pair_channels_under_mha_and_sum_heads_first_under_gqa():
    q, k = torch.tensor([1.0, 4.0, 2.0, 8.0]), torch.tensor([3.0, 1.0, 5.0, 6.0])
    channels = {Side("q.weight", 0): q, Side("k.weight", 0): k}
    pairs = torch.arange(4).view(2, 2)

    def score(reduction, k_index, k_values):
        couplings = (Coupling("q.weight", 0, pairs), Coupling("k.weight", 0, k_index))
        known = {**channels, Side("k.weight", 0): k_values}
        structure = Structure("heads", "heads", 0, 2, couplings)
        return unit_scores(known, structure, reduction=reduction).tolist()

    assert score("max", pairs, k) == [3 + 4, 5 + 8]
    assert score("prod", pairs, k) == [3 + 4, 10 + 48]
    assert score("mean", pairs, k) == [2 + 2.5, 3.5 + 7]
    narrow = torch.arange(2).view(2, 1)  # one key channel for two query channels
    assert score("max", narrow, torch.tensor([7.0, 2.0])) == [7, 10]
    assert score("prod", narrow, torch.tensor([7.0, 2.0])) == [35, 20]
    assert score("sum", narrow, torch.tensor([7.0, 2.0])) == [12, 12]


def test_biases_are_not_scored_and_gains_are():
    model = make_tiny("qwen2", tie_word_embeddings=True)
    sides = all_sides(model)
    assert not any(side.parameter.endswith("bias") for side in sides)
    assert Side("model.norm.weight", 0) in sides
    assert all(bool((v >= 0).all()) for v in saliency(model, ["param_mix"])["param_mix"].values())


@pytest.mark.parametrize("measure", DATA)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scores_follow_a_permutation_of_heads_and_neurons(measure, reduction):
    plain, permuted = make_tiny(num_key_value_heads=4), make_tiny(num_key_value_heads=4)
    orders = {"layers.1.heads": [2, 0, 3, 1], "layers.1.neurons": list(reversed(range(48)))}
    known = structures_of(plain)
    with torch.no_grad():
        for name, order in orders.items():
            for c in known[name].couplings:
                positions = c.index[order].reshape(-1)
                weight = permuted.get_parameter(c.parameter)
                weight.copy_(weight.index_select(c.dim, positions).clone())
    before, after = (saliency(m, [measure])[measure] for m in (plain, permuted))
    for name, order in orders.items():
        old = unit_scores(before, known[name], reduction=reduction)
        new = unit_scores(after, known[name], reduction=reduction)
        torch.testing.assert_close(new, old[order], rtol=1e-3, atol=0)
