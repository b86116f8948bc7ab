"""Tokens are counted where they pass, whatever way a family's head takes to its decoder."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, TOKENS, model_of

from prunebench.profiling.cost import Cost
from prunebench.profiling.passes import counted
from prunebench.pruning.architectures import blocks_of


@pytest.mark.parametrize("case", CASES)
def test_what_is_masked_does_not_count_and_layers_count_their_share(case):
    model = model_of(case)
    mask = torch.ones_like(TOKENS)  # [3, 21]
    mask[1, 14:] = 0
    cost = Cost(torch.device("cpu"))
    with counted(model, blocks_of(model), cost.see):
        model(TOKENS, attention_mask=mask, use_cache=False).logits.sum().backward()
        with torch.no_grad():
            model.base_model(TOKENS, use_cache=False)
    report = cost.report()
    assert report["forward_tokens"] == 3 * 21 - 7 + 3 * 21
    assert report["backward_tokens"] == 3 * 21 - 7
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
