"""From scores and a sparsity target to a Decision: the parameter-budget solver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from torch import Tensor

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.budget import Budget
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
    multiple_of  kind -> the kept units of a structure are a multiple of this number

    The target is met within half a point where units are fine enough; `how` states what was
    achieved. No structure keeps less than its least number of units. Raises Unsupported when too
    few units were scored to reach the target at all.
    """
    _check_scores(budget, scores)
    multiples = dict(multiple_of or {})
    if scope not in SCOPES:
        raise Invalid(f"select: scope: expected one of {', '.join(SCOPES)}, got {scope!r}")
    if scope != "layer" and (multiples or shares):
        what = "multiple_of" if multiples else "shares"
        raise Invalid(f"select: {what} needs scope 'layer', got scope {scope!r}")
    scores = {name: scores[name] for name in budget.open(scores)}
    how: Json = {"scope": scope}
    if scope == "layer" and "layers" not in scores:
        removed = counts(budget, scores, sparsity, shares=shares, multiple_of=multiples)
    else:
        _check_reachable(budget, list(scores), sparsity, multiples)
        by_kind = scope == "kind" and "layers" not in scores
        removed = (_by_kind if by_kind else _ranked)(budget, scores, sparsity)
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
        units, most = structure.units, structure.units - structure.least
        if not 0 <= count <= most:
            raise Invalid(f"{name}: may lose 0..{most} of {units} units, got {count}")
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
    most = {name: _most(budget.structures[name], multiples) for name in names if name != "layers"}
    dropped = tuple(range(1, budget.structures["layers"].units)) if "layers" in names else ()
    reachable = 1.0 - budget.left(most, dropped) / budget.total
    if reachable < sparsity - TOLERANCE:
        raise Unsupported(
            f"sparsity {sparsity:.3f} cannot be reached: removing all units that may leave the "
            f"{len(names)} structures that may be pruned removes {reachable:.3f} of the "
            f"{budget.of}'s parameters"
        )


def _most(structure: Structure, multiples: Mapping[str, int]) -> int:
    """The largest number of units that may leave a structure."""
    return structure.units - _fewest(structure, multiples)


def _fewest(structure: Structure, multiples: Mapping[str, int]) -> int:
    """The smallest number of units that may stay in a structure: an allowed multiple, or all."""
    multiple = multiples.get(structure.kind, 1)
    return min(structure.units, -(-structure.least // multiple) * multiple)


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


def _by_kind(budget: Budget, scores: Mapping[str, Tensor], sparsity: float) -> dict[str, int]:
    """The same share of every kind's units; which, one ranking over the layers says."""
    even = _even(budget, dict.fromkeys(scores, 1.0), sparsity, {})
    removed: dict[str, int] = {}
    for kind in _coarse_first(budget, scores):
        members = [name for name in scores if budget.structures[name].kind == kind]
        units = [(score, n, i) for n in members for i, score in enumerate(scores[n].tolist())]
        wanted = sum(even[name] for name in members)
        room = {name: _most(budget.structures[name], {}) for name in members}
        removed |= dict.fromkeys(members, 0)
        for _, name, _ in sorted(units):
            if wanted and removed[name] < room[name]:
                removed[name] += 1
                wanted -= 1
    return removed


def _coarse_first(budget: Budget, scores: Iterable[str]) -> list[str]:
    """Kinds of the scored structures, those whose single unit weighs most first."""
    weight: dict[str, int] = {}
    for name in scores:
        kind = budget.structures[name].kind
        step = budget.total - budget.left({name: 1})
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
    return structure.units - min(structure.units, max(kept, _fewest(structure, multiples)))


def _fill(budget: Budget, chosen: dict[str, int], fine: list[str], target: float) -> None:
    """Move single units, one structure after another, for as long as that brings us closer."""
    for name in sorted(fine, key=lambda n: budget.total - budget.left({n: 1})):
        distance = budget.left(chosen) - target
        step = 1 if distance > 0 else -1
        moved = {**chosen, name: chosen[name] + step}
        allowed = 0 <= moved[name] <= _most(budget.structures[name], {})
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
        full = more[name] > _most(budget.structures[name], {})
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
        if count < _most(budget.structures[name], {})
    ]
    return min(
        [removed, *steps],
        key=lambda counts: abs(_left_after_counts(budget, scores, counts) - target),
    )


def _counts(budget: Budget, scores: Mapping[str, Tensor], prefix: list[str]) -> dict[str, int]:
    counts = dict.fromkeys(scores, 0)
    for name in prefix:
        counts[name] = min(counts[name] + 1, _most(budget.structures[name], {}))
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
