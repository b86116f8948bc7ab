"""From scores and a sparsity target to a Decision: the parameter-budget solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Literal

from torch import Tensor, nn

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.structure import Decision, Structure
from prunebench.untyped import Json, JsonMap

TOLERANCE = 0.005
"""Half a point: the largest accepted distance between target and achieved sparsity."""


class Budget:
    """Counts the parameters that are left when units leave, for overlapping structures too.

    A parameter may shrink along both sides (heads and hidden, say), so what a unit is worth depends
    on the others; counting walks the couplings and is exact. `of` says what is counted: all
    parameters of the model, or those of its decoder blocks (no embedding, head or final norm).
    """

    def __init__(
        self,
        model: nn.Module,
        structures: Mapping[str, Structure],
        *,
        of: Literal["model", "decoder"] = "model",
    ) -> None:
        self.structures, self.of = structures, of
        blocks = tuple(f"{name}." for name in structures["layers"].modules)
        self.shapes = {
            name: tuple(p.shape)
            for name, p in model.named_parameters()
            if of == "model" or name.startswith(blocks)
        }
        self.sides: dict[str, dict[int, list[tuple[str, int]]]] = {name: {} for name in self.shapes}
        for structure in structures.values():
            for coupling in structure.couplings:
                if coupling.parameter in self.shapes:
                    sides = self.sides[coupling.parameter].setdefault(coupling.dim, [])
                    sides.append((structure.name, coupling.width))
        self.total = sum(prod(shape) for shape in self.shapes.values())

    def left(self, removed: Mapping[str, int], dropped_layers: tuple[int, ...] = ()) -> int:
        """Parameters left, of those that count, after removing so many units of structures."""
        gone = tuple(self.structures["layers"].modules[i] + "." for i in dropped_layers)
        count = 0
        for name, shape in self.shapes.items():
            if gone and name.startswith(gone):
                continue
            size = list(shape)
            for dim, owners in self.sides[name].items():
                size[dim] -= sum(removed.get(owner, 0) * width for owner, width in owners)
            count += prod(size)
        return count

    def sparsity(self, decision: Decision) -> float:
        """Fraction of the parameters that count that `decision` removes."""
        kept = decision.keep
        removed = {n: self.structures[n].units - len(k) for n, k in kept.items() if n != "layers"}
        layers = range(self.structures["layers"].units) if "layers" in kept else ()
        dropped = tuple(i for i in layers if i not in kept["layers"])
        return 1.0 - self.left(removed, dropped) / self.total


def select(
    budget: Budget,
    scores: Mapping[str, Tensor],
    sparsity: float,
    *,
    scope: str = "layer",
    multiple_of: Mapping[str, int] | None = None,
) -> Decision:
    """Keep the units with the highest scores so that `sparsity` of the budget's parameters leaves.

    scores       structure name -> Tensor [units]; only these structures are pruned
    scope        "layer": the same share of units leaves every structure (as nearly as rounding
                 permits); "global": one ranking over all scored units decides
    multiple_of  kind -> the kept units of a structure are a multiple of this number

    The target is met within half a point where units are fine enough; `how` states what was
    achieved. No structure loses its last unit. Raises Unsupported when too few units were scored
    to reach the target at all.
    """
    _check_scores(budget, scores)
    multiples = dict(multiple_of or {})
    if scope == "global" and multiples:
        raise Invalid("select: multiple_of needs scope 'layer', got scope 'global'")
    if scope not in ("layer", "global"):
        raise Invalid(f"select: scope: expected 'layer' or 'global', got {scope!r}")
    _check_reachable(budget, scores, sparsity, multiples)
    if scope == "global" or "layers" in scores:
        removed = _ranked(budget, scores, sparsity)
    else:
        removed = _even(budget, scores, sparsity, multiples)
    how: Json = {"scope": scope}
    if multiples:
        how["multiple_of"] = multiples
    return lowest(budget, scores, removed, how=how)


def lowest(
    budget: Budget,
    scores: Mapping[str, Tensor],
    removed: Mapping[str, int],
    *,
    how: JsonMap | None = None,
) -> Decision:
    """Remove exactly the given number of lowest-scored units of each structure (ties: first index).

    This is what a paper's native setting needs; `select` ends here too.
    """
    keep = {}
    for name, count in removed.items():
        units = budget.structures[name].units
        if not 0 <= count < units:
            raise Invalid(f"{name}: may lose 0..{units - 1} of {units} units, got {count}")
        if count:
            order = scores[name].float().cpu().argsort(stable=True)  # [units], lowest first
            keep[name] = tuple(sorted(order[count:].tolist()))
    achieved = budget.sparsity(Decision(keep))
    return Decision(keep, {**(how or {}), "achieved": achieved})


def channel_counts(structures: Mapping[str, Structure], ratio: float) -> dict[str, int]:
    """Units that leave each structure by LLM-Pruner's count: C - int(C (1 - ratio)) of C channels.

    Heads are counted in channels of their narrowest matrix, the key projection, so a unit under GQA
    is a KV head with its query heads; what is not a whole head stays (released code, 128a07d).
    """
    removed = {}
    for name, structure in structures.items():
        width = min((coupling.width for coupling in structure.couplings), default=1)
        channels = structure.units * width
        removed[name] = (channels - int(channels * (1 - ratio))) // width
    return removed


def matched(budget: Budget, scores: Mapping[str, Tensor], removed: Mapping[str, int]) -> Decision:
    """Remove as many units of each structure as another decision did: a matched control.

    Raises Invalid when a structure that loses units was not scored.
    """
    if absent := [name for name in removed if name not in scores]:
        raise Invalid(
            f"matched: {absent[0]} loses units in the row that this one is matched to, but was not "
            "scored; a method can be matched if it scores what ctx.prunable() gives it"
        )
    if removed:
        _check_scores(budget, scores)
    return lowest(budget, scores, removed, how={"scope": "matched", "matched": True})


def _check_scores(budget: Budget, scores: Mapping[str, Tensor]) -> None:
    if not scores:
        raise Invalid("select: expected scores for at least one structure, got none")
    for name, score in scores.items():
        if name not in budget.structures:
            raise Invalid(f"select: unknown structure {name!r}")
        units = budget.structures[name].units
        if tuple(score.shape) != (units,):
            raise Invalid(f"select: {name}: expected scores of shape ({units},), got {score.shape}")
        if not bool(score.isfinite().all()):
            raise Invalid(f"select: {name}: scores must be finite, got NaN or infinity")


def _check_reachable(
    budget: Budget, scores: Mapping[str, Tensor], sparsity: float, multiples: Mapping[str, int]
) -> None:
    if not 0.0 <= sparsity < 1.0:
        raise Invalid(f"select: expected a sparsity in [0, 1), got {sparsity}")
    most = {name: _most(budget.structures[name], multiples) for name in scores if name != "layers"}
    dropped = tuple(range(1, budget.structures["layers"].units)) if "layers" in scores else ()
    reachable = 1.0 - budget.left(most, dropped) / budget.total
    if reachable < sparsity - TOLERANCE:
        raise Unsupported(
            f"sparsity {sparsity:.3f} cannot be reached: removing all but the last unit of the "
            f"{len(scores)} structures that may be pruned removes {reachable:.3f} of the "
            f"{budget.of}'s parameters"
        )


def _most(structure: Structure, multiples: Mapping[str, int]) -> int:
    """The largest number of units that may leave a structure."""
    return structure.units - min(structure.units, multiples.get(structure.kind, 1))


def _even(
    budget: Budget, scores: Mapping[str, Tensor], sparsity: float, multiples: Mapping[str, int]
) -> dict[str, int]:
    """The same share from every structure; coarse kinds are rounded first, fine ones fill up."""
    target = budget.total * (1.0 - sparsity)
    chosen: dict[str, int] = {}
    for kind in _coarse_first(budget, scores):
        members = [name for name in scores if budget.structures[name].kind == kind]
        others = [n for n in scores if n not in chosen and n not in members]

        def left(share: float, members: list[str] = members, others: list[str] = others) -> float:
            fluid = {n: share * budget.structures[n].units for n in (*members, *others)}
            return budget.left({**chosen, **fluid})  # type: ignore[dict-item]

        share = _bisect(left, target)
        for name in members:
            chosen[name] = _rounded(budget.structures[name], share, multiples)
    fine = [n for n in scores if multiples.get(budget.structures[n].kind, 1) == 1]
    if abs(budget.left(chosen) - target) > TOLERANCE / 2 * budget.total:
        _fill(budget, chosen, fine, target)
    return chosen


def _coarse_first(budget: Budget, scores: Mapping[str, Tensor]) -> list[str]:
    """Kinds of the scored structures, those whose single unit weighs most first."""
    weight: dict[str, int] = {}
    for name in scores:
        kind = budget.structures[name].kind
        step = budget.total - budget.left({name: 1})
        weight[kind] = max(weight.get(kind, 0), step)
    return sorted(weight, key=lambda kind: -weight[kind])


def _bisect(left: Callable[[float], float], target: float) -> float:
    """Share in [0, 1] at which `left` (falling) meets the target."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > target else (low, middle)
    return (low + high) / 2


def _rounded(structure: Structure, share: float, multiples: Mapping[str, int]) -> int:
    """Units to remove so that the kept number is the nearest allowed one."""
    multiple = multiples.get(structure.kind, 1)
    kept = structure.units * (1.0 - share)
    kept = int(kept / multiple + 0.5) * multiple
    return structure.units - min(structure.units, max(kept, min(multiple, structure.units)))


def _fill(budget: Budget, chosen: dict[str, int], fine: list[str], target: float) -> None:
    """Move single units, one structure after another, for as long as that brings us closer."""
    for name in sorted(fine, key=lambda n: budget.total - budget.left({n: 1})):
        distance = budget.left(chosen) - target
        step = 1 if distance > 0 else -1
        moved = {**chosen, name: chosen[name] + step}
        allowed = 0 <= moved[name] < budget.structures[name].units
        if allowed and abs(budget.left(moved) - target) < abs(distance):
            chosen.update(moved)


def _ranked(budget: Budget, scores: Mapping[str, Tensor], sparsity: float) -> dict[str, int]:
    """One ranking over all units: the lowest leave, as long as the target is not overshot.

    A unit that would overshoot is passed over, so that finer ones behind it can fill the gap.
    """
    target = budget.total * (1.0 - sparsity)
    units = [(s, name, i) for name, t in scores.items() for i, s in enumerate(t.tolist())]
    ranking = [name for _, name, _ in sorted(units)]
    low, high = 0, len(ranking)
    while low < high:  # the longest prefix that does not overshoot
        middle = (low + high + 1) // 2
        fits = _left_after(budget, scores, ranking[:middle]) >= target
        low, high = (middle, high) if fits else (low, middle - 1)
    removed = _counts(budget, scores, ranking[:low])
    too_coarse: set[str] = set()  # a structure whose unit overshoots once always will
    for name in ranking[low:]:
        if name in too_coarse:
            continue
        if len(too_coarse) == len(scores):
            break
        more = {**removed, name: removed[name] + 1}
        full = more[name] >= budget.structures[name].units
        if full or _left_after_counts(budget, scores, more) < target:
            too_coarse.add(name)
        else:
            removed = more
    return _last_step(budget, scores, removed, target)


def _last_step(
    budget: Budget, scores: Mapping[str, Tensor], removed: dict[str, int], target: float
) -> dict[str, int]:
    """One more unit, if overshooting by it is nearer to the target than stopping short."""
    steps = [
        {**removed, name: count + 1}
        for name, count in removed.items()
        if count + 1 < budget.structures[name].units
    ]
    return min(
        [removed, *steps],
        key=lambda counts: abs(_left_after_counts(budget, scores, counts) - target),
    )


def _counts(budget: Budget, scores: Mapping[str, Tensor], prefix: list[str]) -> dict[str, int]:
    counts = dict.fromkeys(scores, 0)
    for name in prefix:
        counts[name] = min(counts[name] + 1, budget.structures[name].units - 1)
    return counts


def _left_after(budget: Budget, scores: Mapping[str, Tensor], prefix: list[str]) -> int:
    return _left_after_counts(budget, scores, _counts(budget, scores, prefix))


def _left_after_counts(
    budget: Budget, scores: Mapping[str, Tensor], counts: Mapping[str, int]
) -> int:
    removed = {name: count for name, count in counts.items() if name != "layers"}
    dropped: tuple[int, ...] = ()
    if counts.get("layers"):
        order = scores["layers"].float().cpu().argsort(stable=True).tolist()
        dropped = tuple(order[: counts["layers"]])
    return budget.left(removed, dropped)
