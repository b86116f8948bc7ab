"""One ranking over many structures: which of their units leave, so that a budget is met.

Units leave a structure lowest score first, in blocks: single ones, or as many as lead from one
allowed multiple to the next. A block is ranked by the mean score of its units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from prunebench.pruning.budget import Budget
from prunebench.pruning.structure import Structure


@dataclass(frozen=True, order=True)
class Block:
    """Units that leave a structure together, after its first `place` blocks."""

    score: float
    name: str
    place: int
    size: int


def fewest(structure: Structure, multiples: Mapping[str, int]) -> int:
    """The smallest number of units that may stay in a structure: an allowed multiple, or all."""
    multiple = multiples.get(structure.kind, 1)
    return min(structure.units, -(-structure.least // multiple) * multiple)


def most(structure: Structure, multiples: Mapping[str, int]) -> int:
    """The largest number of units that may leave a structure."""
    return structure.units - fewest(structure, multiples)


def blocks_in(
    structures: Mapping[str, Structure], scores: Mapping[str, Tensor], multiples: Mapping[str, int]
) -> list[Block]:
    """All blocks of the scored structures, lowest first (ties: by name, then in their order)."""
    found = []
    for name, values in scores.items():
        structure = structures[name]
        multiple, least = multiples.get(structure.kind, 1), fewest(structure, multiples)
        ascending, kept, place = sorted(values.tolist()), structure.units, 0
        while kept > least:
            size = kept % multiple or multiple
            start = structure.units - kept
            mean = sum(ascending[start : start + size]) / size
            found.append(Block(mean, name, place, size))
            kept, place = kept - size, place + 1
    return sorted(found)


def ranked(
    budget: Budget,
    scores: Mapping[str, Tensor],
    target: float,
    multiples: Mapping[str, int],
    *,
    names: Iterable[str] | None = None,
    fixed: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """One ranking: the lowest blocks leave, as long as the target is not overshot.

    target  parameters to be left
    names   structures that are ranked; default: all scored ones
    fixed   units that have left others

    A block that would overshoot is passed over, so that smaller ones behind it can fill the gap;
    in the end one more leaves, where that is nearer. So what is left is within half a block of
    the target, unless nothing more may leave.
    """
    chosen = {name: scores[name] for name in (scores if names is None else names)}
    ranking = blocks_in(budget.structures, chosen, multiples)
    start = {**(fixed or {}), **dict.fromkeys(chosen, 0)}
    low, high = 0, len(ranking)
    while low < high:  # the longest prefix that does not overshoot
        middle = (low + high + 1) // 2
        fits = left_after(budget, scores, _after(start, ranking[:middle])) >= target
        low, high = (middle, high) if fits else (low, middle - 1)
    removed = _after(start, ranking[:low])
    passed: dict[str, Block] = {}  # by structure: its first block that overshoots; once, always
    for block in ranking[low:]:
        if block.name in passed:
            continue
        if len(passed) == len(chosen):
            break
        more = _after(removed, [block])
        if left_after(budget, scores, more) < target:
            passed[block.name] = block
        else:
            removed = more
    last = [removed, *(_after(removed, [passed[name]]) for name in chosen if name in passed)]
    return min(last, key=lambda counts: abs(left_after(budget, scores, counts) - target))


def by_kind(
    budget: Budget,
    scores: Mapping[str, Tensor],
    even: Mapping[str, int],
    kinds: Sequence[str],
    target: float,
    multiples: Mapping[str, int],
) -> dict[str, int]:
    """The same share of every kind's units; which, one ranking over the layers says.

    even   units that leave each structure where the same share leaves all
    kinds  those that are scored, coarse ones first; with multiples the last meets the target
    """
    removed: dict[str, int] = {}
    for kind in kinds:
        members = [name for name in scores if budget.structures[name].kind == kind]
        if multiples and kind == kinds[-1]:
            return ranked(budget, scores, target, multiples, names=members, fixed=removed)
        wanted = sum(even[name] for name in members)
        removed |= dict.fromkeys(members, 0)
        passed = set[str]()
        ranking = blocks_in(budget.structures, {n: scores[n] for n in members}, multiples)
        for block in ranking:
            if block.name in passed or block.size > wanted:
                passed.add(block.name)
            else:
                removed[block.name] += block.size
                wanted -= block.size
    return removed


def left_after(budget: Budget, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> int:
    """Parameters left when so many units of each structure leave; whole layers lowest first."""
    removed = {name: count for name, count in counts.items() if name != "layers"}
    dropped: tuple[int, ...] = ()
    if counts.get("layers"):
        order = scores["layers"].float().cpu().argsort(stable=True).tolist()
        dropped = tuple(order[: counts["layers"]])
    return budget.left(removed, dropped)


def _after(counts: Mapping[str, int], blocks: Iterable[Block]) -> dict[str, int]:
    found = dict(counts)
    for block in blocks:
        found[block.name] += block.size
    return found
