"""From scores and a sparsity target to a Decision: the parameter-budget solver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from torch import Tensor

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.budget import Budget
from prunebench.pruning.ranking import by_kind, fewest, most, ranked
from prunebench.pruning.structure import Decision, Structure
from prunebench.untyped import Json, JsonMap

TOLERANCE = 0.005
"""Half a point: the largest accepted distance between target and achieved sparsity."""


SCOPES = ("layer", "kind", "global")


def select(
    budget: Budget,
    scores: Mapping[str, Tensor],
    sparsity: float,
    *,
    scope: str = "layer",
    shares: Mapping[str, float] | None = None,
    multiple_of: Mapping[str, int] | None = None,
) -> Decision:
    """Keep the units with the highest scores so that `sparsity` of the budget's parameters leaves.

    scores       structure name -> Tensor [units]; only these structures are pruned
    scope        "layer": the same share of units leaves every structure (as nearly as rounding
                 permits); "kind": the same share of all heads, of all neurons, ..., each by one
                 ranking over the layers; "global": one ranking over all scored units decides
    shares       with scope "layer": how the shares of structures compare, under the name of a
                 structure, of a layer (`layers.3`) or of a kind; the narrowest holds, else 1
    multiple_of  kind -> the kept units of a structure are a multiple of this number, or all of its
                 units; with scope "global" and "kind" units are ranked in blocks of so many

    The target is met within half a point where units are fine enough; `how` states what was
    achieved. No structure keeps less than its least number of units. Raises Unsupported when too
    few units were scored to reach the target at all.
    """
    _check_scores(budget, scores)
    multiples = dict(multiple_of or {})
    if scope not in SCOPES:
        raise Invalid(f"select: scope: expected one of {', '.join(SCOPES)}, got {scope!r}")
    if scope != "layer" and shares:
        raise Invalid(f"select: shares needs scope 'layer', got scope {scope!r}")
    scores = {name: scores[name] for name in budget.open(scores)}
    how: Json = {"scope": scope}
    if scope == "layer" and "layers" not in scores:
        removed = counts(budget, scores, sparsity, shares=shares, multiple_of=multiples)
    else:
        _check_reachable(budget, list(scores), sparsity, multiples)
        target = budget.total * (1.0 - sparsity)
        if scope == "kind" and "layers" not in scores:
            even = _even(budget, dict.fromkeys(scores, 1.0), sparsity, {})
            kinds = _coarse_first(budget, scores, multiples)
            removed = by_kind(budget, scores, even, kinds, target, multiples)
        else:
            removed = ranked(budget, scores, target, multiples)
    if multiples:
        how["multiple_of"] = multiples
    return lowest(budget, scores, removed, how=how)


def counts(
    budget: Budget,
    names: Iterable[str],
    sparsity: float,
    *,
    shares: Mapping[str, float] | None = None,
    multiple_of: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """How many units leave each structure with scope "layer", which no score decides.

    Arguments as of `select`; structures of layers that are dropped are left out.
    """
    names = budget.open(names)
    weights = relative_shares(budget.structures, names, shares or {})
    open_names = [name for name in names if weights[name] > 0]
    multiples = dict(multiple_of or {})
    _check_reachable(budget, open_names, sparsity, multiples)
    removed = _even(budget, {n: weights[n] for n in open_names}, sparsity, multiples)
    return {name: removed.get(name, 0) for name in names}


def relative_shares(
    structures: Mapping[str, Structure], names: Iterable[str], shares: Mapping[str, float]
) -> dict[str, float]:
    """The share of every structure, from those that name it, its layer or its kind."""
    found, used = {}, set()
    for name in names:
        structure = structures[name]
        keys = (name, f"layers.{structure.layer}", structure.kind)
        known = [key for key in keys if key in shares]
        used.update(known)
        found[name] = float(shares[known[0]]) if known else 1.0
    if unknown := sorted(set(shares) - used):
        raise Invalid(
            f"select: shares: {unknown[0]!r} is no structure, layer (layers.3) or kind that is "
            "scored"
        )
    if any(not 0 <= share < float("inf") for share in found.values()):
        raise Invalid(f"select: shares must be numbers from 0 on, got {dict(shares)}")
    return found


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
    for name in budget.open(removed):
        count, structure = removed[name], budget.structures[name]
        units, largest = structure.units, structure.units - structure.least
        if not 0 <= count <= largest:
            raise Invalid(f"{name}: may lose 0..{largest} of {units} units, got {count}")
        if count:
            order = scores[name].float().cpu().argsort(stable=True)  # [units], lowest first
            keep[name] = tuple(sorted(order[count:].tolist()))
    if budget.dropped:
        layers = range(budget.structures["layers"].units)
        keep["layers"] = tuple(i for i in layers if i not in budget.dropped)
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
    budget: Budget, names: Collection[str], sparsity: float, multiples: Mapping[str, int]
) -> None:
    if not 0.0 <= sparsity < 1.0:
        raise Invalid(f"select: expected a sparsity in [0, 1), got {sparsity}")
    all_gone = {
        name: most(budget.structures[name], multiples) for name in names if name != "layers"
    }
    dropped = tuple(range(1, budget.structures["layers"].units)) if "layers" in names else ()
    reachable = 1.0 - budget.left(all_gone, dropped) / budget.total
    if reachable < sparsity - TOLERANCE:
        raise Unsupported(
            f"sparsity {sparsity:.3f} cannot be reached: removing all units that may leave the "
            f"{len(names)} structures that may be pruned removes {reachable:.3f} of the "
            f"{budget.of}'s parameters"
        )


def _even(
    budget: Budget, weights: Mapping[str, float], sparsity: float, multiples: Mapping[str, int]
) -> dict[str, int]:
    """The same share from every structure, times its weight; coarse kinds are rounded first, fine
    ones fill up.
    """
    target = budget.total * (1.0 - sparsity)
    highest = 1.0 / min(weights.values(), default=1.0)
    chosen: dict[str, int] = {}
    for kind in _coarse_first(budget, weights):
        members = [name for name in weights if budget.structures[name].kind == kind]
        others = [n for n in weights if n not in chosen and n not in members]

        def left(share: float, members: list[str] = members, others: list[str] = others) -> float:
            fluid = {
                n: min(share * weights[n], 1.0) * budget.structures[n].units
                for n in (*members, *others)
            }
            return budget.left({**chosen, **fluid})  # type: ignore[dict-item]

        share = _bisect(left, target, highest)
        for name in members:
            structure = budget.structures[name]
            chosen[name] = _rounded(structure, min(share * weights[name], 1.0), multiples)
    fine = [n for n in weights if multiples.get(budget.structures[n].kind, 1) == 1]
    if abs(budget.left(chosen) - target) > TOLERANCE / 2 * budget.total:
        _fill(budget, chosen, fine, target)
    return chosen


def _coarse_first(
    budget: Budget, scores: Iterable[str], multiples: Mapping[str, int] | None = None
) -> list[str]:
    """Kinds of the scored structures, those whose single block of units weighs most first."""
    weight: dict[str, int] = {}
    for name in scores:
        kind = budget.structures[name].kind
        block = min((multiples or {}).get(kind, 1), budget.structures[name].units)
        step = budget.total - budget.left({name: block})
        weight[kind] = max(weight.get(kind, 0), step)
    return sorted(weight, key=lambda kind: -weight[kind])


def _bisect(left: Callable[[float], float], target: float, high: float = 1.0) -> float:
    """Share in [0, high] at which `left` (falling) meets the target."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > target else (low, middle)
    return (low + high) / 2


def _rounded(structure: Structure, share: float, multiples: Mapping[str, int]) -> int:
    """Units to remove so that the kept number is the nearest allowed one."""
    multiple = multiples.get(structure.kind, 1)
    kept = structure.units * (1.0 - share)
    kept = int(kept / multiple + 0.5) * multiple
    return structure.units - min(structure.units, max(kept, fewest(structure, multiples)))


def _fill(budget: Budget, chosen: dict[str, int], fine: list[str], target: float) -> None:
    """Move single units, one structure after another, for as long as that brings us closer."""
    for name in sorted(fine, key=lambda n: budget.total - budget.left({n: 1})):
        distance = budget.left(chosen) - target
        step = 1 if distance > 0 else -1
        moved = {**chosen, name: chosen[name] + step}
        allowed = 0 <= moved[name] <= most(budget.structures[name], {})
        if allowed and abs(budget.left(moved) - target) < abs(distance):
            chosen.update(moved)
