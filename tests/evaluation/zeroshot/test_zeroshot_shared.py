"""Common beginnings computed once: the same log-likelihoods as request by request."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from family_cases import CASES, model_of, pruned
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.evaluation.zeroshot import shared
from prunebench.evaluation.zeroshot.shared import Request, Scorer, Segment, grow, why_not

TOLERANCE = 1e-4
tokens = st.lists(st.integers(0, 2), min_size=2, max_size=30)


def by_itself(model: Any, request: Request) -> tuple[float, bool]:
    """The answer to one request from the logits of all its tokens."""
    ids = torch.tensor([request.tokens])
    with torch.inference_mode():
        log_probs = model(ids[:, :-1]).logits.float().log_softmax(-1)[0, -request.scored :]
    wanted = ids[0, -request.scored :]
    picked = log_probs.gather(1, wanted[:, None])
    return float(picked.sum()), bool((log_probs.argmax(-1) == wanted).all())


def questions(seed: int = 0) -> list[Request]:
    """Answers to questions of unequal length, some with common examples in front; and odd ones:
    answers of one token, an answer that begins another, two alike, a question without company."""
    draw = random.Random(seed)

    def text(length: int) -> list[int]:
        return [draw.randrange(2, 258) for _ in range(length)]

    examples, found = text(9), []
    for front, length in (([], 12), ([], 7), (examples, 8), (examples, 15), (examples, 3)):
        question = front + text(length)
        found += [Request(question + answer, len(answer)) for answer in map(text, (1, 4, 9, 1))]
    long = found[2]
    found.append(Request(long.tokens[:-3], long.scored - 3))
    found.append(Request(found[5].tokens, found[5].scored))
    found.append(Request(text(2), 1))
    draw.shuffle(found)
    return found


def compare(model: Any, requests: list[Request], rows: int) -> None:
    answers = Scorer(model, rows).score(requests)
    for request, (log_prob, greedy) in zip(requests, answers, strict=True):
        alone, expected = by_itself(model, request)
        assert log_prob == pytest.approx(alone, abs=TOLERANCE)
        assert greedy == expected


@pytest.mark.parametrize("case", CASES)
def test_every_family_gives_the_answers_of_single_requests(case: str) -> None:
    model = model_of(case)
    assert why_not(model) is None
    compare(model, questions(), rows=3)


@pytest.mark.parametrize("case", CASES)
def test_so_do_pruned_models_whose_layers_differ(case: str) -> None:
    compare(pruned(case), questions(1), rows=5)


def test_a_likeliest_answer_is_told_from_others(tiny: Any) -> None:
    model = tiny("llama")
    start = torch.tensor([[5, 9, 17, 3, 8, 40, 7]])
    best = model.generate(start, max_new_tokens=3, do_sample=False)[0].tolist()
    other = [*best[:-1], (best[-1] + 1) % 258]
    answers = Scorer(model, 4).score([Request(best, 3), Request(other, 3)])
    assert [greedy for _, greedy in answers] == [True, False]


def paths(
    segments: list[Segment], before: tuple[Segment, ...] = ()
) -> list[tuple[tuple[Segment, ...], tuple[int, int, int]]]:
    """Every target of a tree, with the segments up to it."""
    found = []
    for segment in segments:
        path = (*before, segment)
        found += [(path, target) for target in segment.targets]
        found += paths(segment.children, path)
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(tokens, st.integers(1, 29)), min_size=1, max_size=12))
def test_a_tree_holds_every_token_that_is_scored_once_and_in_its_place(
    drawn: list[tuple[list[int], int]],
) -> None:
    requests = [Request(t, min(scored, len(t) - 1)) for t, scored in drawn]
    seen: dict[int, list[int]] = {i: [] for i in range(len(requests))}
    for path, (position, token, number) in paths(grow(requests)):
        before = [t for segment in path for t in segment.tokens]
        at = path[-1].start + position
        assert path[-1].start + len(path[-1].tokens) == len(before)
        assert before[: at + 1] == list(requests[number].tokens[: at + 1])
        assert token == requests[number].tokens[at + 1]
        seen[number].append(at + 1)
    for number, request in enumerate(requests):
        length = len(request.tokens)
        assert sorted(seen[number]) == list(range(length - request.scored, length))


def passed_tokens(requests: list[Request]) -> int:
    def count(segments: list[Segment]) -> int:
        return sum(len(s.tokens) + count(s.children) for s in segments)

    return count(grow(requests))


def test_a_common_beginning_is_run_once_and_a_very_short_one_with_each() -> None:
    long, short = list(range(2, 22)), [2, 3]
    ends = [[100, 101, 102], [110, 111], [120]]
    assert passed_tokens([Request(long + end, len(end)) for end in ends]) == 20 + 2 + 1 + 0
    assert passed_tokens([Request(short + end, len(end)) for end in ends]) == 4 + 3 + 2


def test_memory_that_does_not_suffice_halves_the_rows(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real = tiny("llama"), shared.hidden_states

    def small(model: Any, ids: torch.Tensor, **options: Any) -> Any:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")
        return real(model, ids, **options)

    expected = Scorer(model, 8).score(questions())
    monkeypatch.setattr(shared, "hidden_states", small)
    scorer = Scorer(model, 8)
    assert [a[0] for a in scorer.score(questions())] == pytest.approx([a[0] for a in expected])
    assert scorer.rows == 2
    monkeypatch.setattr(shared, "hidden_states", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # no other error is taken for one of memory
        scorer.score(questions())


def test_models_that_cannot_share_say_why(tiny: Any) -> None:
    model = tiny("llama")
    model.config.model_type = "mamba"
    assert why_not(model) == "model type 'mamba' is not one that the suite knows"
    stretched = tiny("llama")
    stretched.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert "'dynamic' depends on the length" in why_not(stretched)
