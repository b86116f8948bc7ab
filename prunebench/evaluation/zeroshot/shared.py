"""Score continuations of which many share a beginning, and compute each beginning once.

The answers to a question follow the same text; the questions of a few-shot task follow the same
examples. Requests form a tree of token segments (`grow`). A segment is run once, batched with
others of its depth, on the key-value cache of what stands before it (`Scorer`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from prunebench.evaluation.scoring import has_own_decoder, hidden_states, target_scores
from prunebench.pruning.architectures import is_known
from prunebench.untyped import Json

SHORTEST = 6
"""Tokens: a shorter common beginning is run again with each of its continuations. Below that a pass
of its own costs more than it saves."""
PASS_COST = (48, 2048)
"""Tokens of padding that are cheaper than one more pass: on a CPU, on a GPU."""
ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on the length of the whole input."""

Answer = tuple[float, bool]
"""Sum of the log-probabilities of a continuation's tokens, and whether each is the likeliest."""


def why_not(model: PreTrainedModel) -> str | None:
    """Why a model's requests cannot share their beginnings; None if they can."""
    config = model.config
    if not is_known(config.model_type):
        return f"model type {config.model_type!r} is not one that the suite knows"
    if not has_own_decoder(model):
        return f"{type(model).__name__} has no decoder that runs without its head"
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind in ROPE_BY_LENGTH:
        return f"rotary embedding {kind!r} depends on the length of the whole input"
    return None


@dataclass(frozen=True)
class Request:
    """tokens: context and continuation as they fit the model; the last `scored` are scored."""

    tokens: Sequence[int]
    scored: int


@dataclass
class Segment:
    """Tokens that follow the parent's; the first stands at position `start` of the input.

    targets   (position in the segment, token that follows there, number of the request)
    """

    start: int
    tokens: Sequence[int]
    targets: list[tuple[int, int, int]] = field(default_factory=list)
    children: list[Segment] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)


def grow(requests: Sequence[Request]) -> list[Segment]:
    """The roots of the tree of all requests; the path of a request holds all that it scores."""
    inputs = [tuple(request.tokens[:-1]) for request in requests]
    order = sorted(range(len(inputs)), key=inputs.__getitem__)
    top = Segment(0, ())
    # Sorted, what begins alike stands together: ranges of `order`, the segments before them, and up
    # to where the inputs of a range are known to agree.
    rest: list[tuple[int, int, tuple[Segment, ...], int]] = [(0, len(order), (top,), 0)]
    while rest:
        low, high, path, known = rest.pop()
        if low == high:
            continue
        first, last = inputs[order[low]], inputs[order[high - 1]]
        common = _agree(first, last, known)
        start = path[-1].end
        if common > start and (common - start >= SHORTEST or first == last):
            segment = Segment(start, first[start:common])
            path[-1].children.append(segment)
            path = (*path, segment)
        if first == last:
            for i in order[low:high]:
                _place(i, requests[i], path)
        else:
            rest.extend((*part, path, common) for part in _split(inputs, order, low, high, common))
    return top.children


def _agree(first: Sequence[int], second: Sequence[int], known: int) -> int:
    """Length of the common beginning, of which `known` is known."""
    shorter = min(len(first), len(second))
    return next((i for i in range(known, shorter) if first[i] != second[i]), shorter)


def _split(
    inputs: Sequence[Sequence[int]], order: Sequence[int], low: int, high: int, at: int
) -> Iterator[tuple[int, int]]:
    """Ranges of order[low:high] with one token at position `at`; an input that ends is its own."""
    begin = low
    for i in range(low + 1, high + 1):
        if i == high or inputs[order[i]][at : at + 1] != inputs[order[begin]][at : at + 1]:
            yield begin, i
            begin = i


def _place(number: int, request: Request, path: Sequence[Segment]) -> None:
    """Note in the segments of a request's path what it scores there."""
    first = len(request.tokens) - 1 - request.scored  # position that predicts the first such token
    for segment in path:
        for position in range(max(first, segment.start), segment.end):
            target = (position - segment.start, request.tokens[position + 1], number)
            segment.targets.append(target)


@dataclass
class _Past:
    """What stands before segments: the cache of every row, and which of its places are filled.

    layers   keys and values [rows, heads, length, size] by layer; none at the roots
    filled   bool [rows, length]
    """

    layers: list[tuple[Tensor, Tensor]]
    filled: Tensor

    def rows(self, chosen: Sequence[int]) -> tuple[DynamicCache, Tensor]:
        """A cache of the chosen rows, moved to the right so that nothing empty stands between what
        is there and what comes next; and which of its places are filled."""
        picked = torch.tensor(chosen, device=self.filled.device)
        filled = self.filled[picked]
        length = int(filled.sum(dim=1).max())
        # A stable sort puts empty places first and leaves the order of the others.
        order = filled.to(torch.uint8).sort(dim=1, stable=True).indices[:, -length:]
        cache = DynamicCache()
        for keys, values in self.layers:
            layer = DynamicLayer()
            layer.keys, layer.values = (_picked(t, picked, order) for t in (keys, values))
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
            cache.layers.append(layer)
        return cache, filled.gather(1, order)


def batches(lengths: Sequence[int], rows: int, cost: int) -> list[int]:
    """Sizes of the batches, at most `rows` each, into which falling `lengths` are cut.

    The cut has the least cost: the tokens of all batches, padding included, and `cost` tokens for
    each. (Dynamic programming over where the last batch begins.)
    """
    total, begin = [0], [0]
    for end in range(1, len(lengths) + 1):
        value, first = min(
            (total[i] + (end - i) * lengths[i] + cost, i) for i in range(max(0, end - rows), end)
        )
        total.append(value)
        begin.append(first)
    sizes, end = [], len(lengths)
    while end:
        sizes.append(end - begin[end])
        end = begin[end]
    return sizes[::-1]


def _picked(states: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """states[rows] with their places in the order of places [rows, length]."""
    heads = torch.arange(states.shape[1], device=states.device)
    return states[rows[:, None, None], heads[None, :, None], places[:, None, :]]


class Scorer:
    """Runs the segments of a tree, `rows` of them at once; halved where memory does not suffice.

    `progress` is called with the number of requests that a pass has finished.
    """

    def __init__(
        self, model: PreTrainedModel, rows: int, progress: Callable[[int], object] | None = None
    ) -> None:
        self.model, self.rows = model, rows
        self.device = next(model.parameters()).device
        self._progress = progress or (lambda _: None)
        parameters = inspect.signature(model.base_model.forward).parameters
        self._takes_positions = "position_ids" in parameters

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers of the requests, in their order."""
        self._sums = [0.0] * len(requests)
        self._greedy = [True] * len(requests)
        self._open = [request.scored for request in requests]
        nothing = torch.zeros(1, 0, dtype=torch.bool, device=self.device)
        self._run([(0, root) for root in grow(requests)], _Past([], nothing))
        return list(zip(self._sums, self._greedy, strict=True))

    def _run(self, segments: list[tuple[int, Segment]], past: _Past) -> None:
        """Run segments and all below them, each on a row of `past`."""
        # The longest first: what memory does not allow shows at once.
        segments.sort(key=lambda pair: -len(pair[1].tokens))
        done = 0
        while done < len(segments):
            lengths = [len(segment.tokens) for _, segment in segments[done:]]
            try:
                for size in batches(lengths, self.rows, PASS_COST[self.device.type != "cpu"]):
                    some = segments[done : done + size]
                    after = self._pass(some, past)
                    done += size
                    below = [
                        (i, child) for i, (_, seg) in enumerate(some) for child in seg.children
                    ]
                    if below:
                        self._run(below, after)
            except (RuntimeError, MemoryError) as error:
                if self.rows == 1 or not should_reduce_batch_size(error):
                    raise
                self.rows //= 2
                clear_device_cache(garbage_collection=True)

    def _pass(self, some: Sequence[tuple[int, Segment]], past: _Past) -> _Past:
        """Run segments at once, score their targets; returns what stands before their children."""
        segments = [segment for _, segment in some]
        lengths = torch.tensor([len(segment.tokens) for segment in segments])
        ids = torch.zeros(len(segments), int(lengths.max()), dtype=torch.long)
        for row, segment in enumerate(segments):
            ids[row, : len(segment.tokens)] = torch.tensor(segment.tokens)
        # Padding stands on the right, where a causal model's real tokens never see it.
        filled = (torch.arange(ids.shape[1]) < lengths[:, None]).to(self.device)
        cache, options = self._options([row for row, _ in some], past, filled, segments)
        output = hidden_states(self.model, ids.to(self.device), **options)
        self._collect(segments, output.last_hidden_state)
        if cache is None:
            return _Past([], filled)
        layers = [(keys, values) for keys, values, _ in cache]
        return _Past(layers, options.get("attention_mask", filled).bool())

    def _options(
        self, rows: Sequence[int], past: _Past, filled: Tensor, segments: Sequence[Segment]
    ) -> tuple[DynamicCache | None, Json]:
        """The cache of a pass, None where nothing comes before or after, and all of its options."""
        if not past.layers:
            cache = DynamicCache() if any(segment.children for segment in segments) else None
            return cache, {"past_key_values": cache, "use_cache": cache is not None}
        cache, before = past.rows(rows)
        options: Json = {
            "past_key_values": cache,
            "use_cache": True,
            "attention_mask": torch.cat([before, filled], dim=1).long(),
        }
        if self._takes_positions:  # ALiBi models read positions off the mask
            steps = torch.arange(filled.shape[1], device=self.device)
            options["position_ids"] = before.sum(dim=1, keepdim=True) + steps
        return cache, options

    def _collect(self, segments: Sequence[Segment], hidden: Tensor) -> None:
        """Add the scores of the segments' targets to those of their requests."""
        found = [(row, *target) for row, seg in enumerate(segments) for target in seg.targets]
        if not found:
            return
        rows, positions, tokens, numbers = zip(*found, strict=True)
        targets = torch.tensor(tokens, device=hidden.device)
        scores = target_scores(self.model, hidden[list(rows), list(positions)], targets)
        for number, log_prob, likeliest in zip(
            numbers, scores.log_probs.tolist(), scores.greedy.tolist(), strict=True
        ):
            self._sums[number] += log_prob
            self._greedy[number] &= likeliest
            self._open[number] -= 1
        self._progress(sum(self._open[number] == 0 for number in set(numbers)))
