"""What a method sees of the suite: its Context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.untyped import Json, JsonMap, Plain
from prunebench.whole import as_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunebench.pruning.saliency import Meter
    from prunebench.recovery import RecoverySettings

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.pruning.budget import Budget
from prunebench.pruning.protection import unprotected
from prunebench.pruning.selection import counts, lowest, matched, select
from prunebench.pruning.structure import Decision, Structure

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunebench.pruning.by_layer import Layer
    from prunebench.pruning.signals import Signal


@dataclass(frozen=True)
class Context:
    """The whole world of a method while it prunes one cell.

    sparsity     fraction of the budget's parameters to remove (the campaign says which count)
    seed         seed of the cell: the only source of randomness that a method may use
    device       where the model is
    params       the method's parameters, defaults filled in
    workdir      a folder of its own for checkpoints; survives a kill, deleted after success.
                 `checkpoints` is one in it that belongs to these very parameters
    structures   what may be pruned in this model
    matched      units that must leave each structure, where the row is matched to another one
    adapter      matrices of a LoRA adapter that the method merged: `merge(..., adapter=
                 ctx.adapter.update)` lets the decision keep them instead of the weights
    cost         meter: call `cost.forward(tokens)` and `cost.backward(tokens)` for what you spend
    """

    sparsity: float
    seed: int
    device: torch.device
    params: JsonMap
    workdir: Path
    structures: Mapping[str, Structure]
    budget: Budget
    cost: Meter
    tokenizer: PreTrainedTokenizerBase
    sample_calibration: Callable[[int | None, int | None], Tensor]
    load_recovery: Callable[[], tuple[list[dict[str, str]], RecoverySettings]]
    multiple_of: Mapping[str, int] = field(default_factory=dict)
    matched: Mapping[str, int] | None = None
    notes: Json = field(default_factory=dict)
    adapter: dict[str, Tensor] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        """A folder for this sparsity and these parameters alone: what others left does not fit."""
        settings = [dict(self.params), self.sparsity, self.budget.of, dict(self.multiple_of)]
        text = json.dumps(settings, sort_keys=True)
        return self.workdir / hashlib.sha256(text.encode()).hexdigest()[:16]

    def calibration(self, samples: int | None = None, length: int | None = None) -> Tensor:
        """Token ids [samples, length] of the campaign's calibration text.

        Drawn by the cell's seed, or by `calibration.seed` where the campaign has one for all cells.
        Without arguments, the campaign's own numbers hold. Raises Invalid when the text is too
        short for what was asked.
        """
        return self.sample_calibration(samples, length)

    def recovery(self) -> tuple[list[dict[str, str]], RecoverySettings]:
        """The campaign's instruction records and its Tuning settings (token budget included).

        Raises Invalid if the campaign declares no `recovery`.
        """
        return self.load_recovery()

    def prunable(self, kinds: Collection[str] = ("heads", "neurons")) -> dict[str, Structure]:
        """Structures of these kinds outside the layers that the method's parameters protect.

        Reads `protect_first` and `protect_last` of the parameters (a number, or "auto"); a method
        without them protects no layer. In a row that is matched to another one, exactly what
        loses units there.
        """
        if self.matched is not None:
            return {name: self.structures[name] for name in self.matched}
        return unprotected(
            self.structures,
            kinds,
            protect_first=self.params.get("protect_first", 0),
            protect_last=self.params.get("protect_last", 0),
        )

    def select(
        self,
        scores: Mapping[str, Tensor],
        *,
        scope: str = "layer",
        shares: Mapping[str, float] | None = None,
        dropped: Collection[int] = (),
        gained: int = 0,
    ) -> Decision:
        """Keep the best units so that the cell's share of the budget's parameters leaves.

        scope    "layer", "kind" or "global": what is ranked together (`pruning.selection.select`)
                 where the row names multiples, units are ranked in blocks of so many
        shares   how the shares that leave compare, by structure, layer (`layers.3`) or kind
        dropped  layers that leave whole; units make up for the rest of the target
        gained   parameters that the method adds (biases); so many more leave

        In a row that is matched to another one, the counts of that row leave instead.
        """
        budget = self.budget.after(dropped=dropped, gained=gained)
        if self.matched is not None:
            return matched(budget, scores, self.matched)
        how: Json = {"scope": scope, "shares": shares, "multiple_of": self.multiple_of}
        return select(budget, scores, self.sparsity, **how)

    def counts(
        self,
        names: Iterable[str],
        *,
        shares: Mapping[str, float] | None = None,
        dropped: Collection[int] = (),
        gained: int = 0,
    ) -> dict[str, int]:
        """How many units each structure will lose, before there are scores.

        For methods that decide layer by layer; arguments as of `select` with scope "layer". End
        with `ctx.remove(scores, counts)`, with the same `dropped` and `gained`.
        """
        if self.matched is not None:
            return {name: self.matched.get(name, 0) for name in names}
        budget = self.budget.after(dropped=dropped, gained=gained)
        return counts(budget, names, self.sparsity, shares=shares, multiple_of=self.multiple_of)

    def remove(
        self,
        scores: Mapping[str, Tensor],
        removed: Mapping[str, int],
        *,
        dropped: Collection[int] = (),
        gained: int = 0,
    ) -> Decision:
        """Remove these numbers of units, lowest scores first (ties: first index)."""
        budget = self.budget.after(dropped=dropped, gained=gained)
        how: Json = {"scope": "counts"} if self.matched is None else {"matched": True}
        if self.multiple_of and self.matched is None:
            how["multiple_of"] = dict(self.multiple_of)
        return lowest(budget, scores, removed, how=how)

    def signals(
        self,
        model: PreTrainedModel,
        tokens: Tensor,
        names: Iterable[str] | None = None,
        *,
        moments: bool = False,
    ) -> dict[str, Signal]:
        """Statistics of what enters the consumers of heads and neurons, in one dense pass.

        tokens  [samples, length]; names: of structures, all heads and neurons by default
        """
        from prunebench.pruning.signals import signals

        chosen = self.consumed if names is None else {n: self.structures[n] for n in names}
        return signals(model, chosen, tokens, moments=moments)

    def by_layer(self, model: PreTrainedModel, tokens: Tensor) -> Iterator[Layer]:
        """The layers one after another, each fed by those before it as they were left."""
        from prunebench.pruning.by_layer import by_layer

        return by_layer(model, self.structures, tokens)

    @property
    def consumed(self) -> dict[str, Structure]:
        """The structures whose units are consumed by one module: heads and neurons."""
        return {n: s for n, s in self.structures.items() if s.kind in ("heads", "neurons")}

    def lowest(
        self, scores: Mapping[str, Tensor], removed: Mapping[str, int], *, ratio: float
    ) -> Decision:
        """Remove given numbers of units: for a paper's native setting, whose row is marked so."""
        if self.matched is not None:
            raise Invalid("a row that is matched to another one has no native counts of its own")
        how = {"scope": "layer", "native_ratio": ratio}
        return lowest(self.budget, scores, removed, how=how)

    def note(self, key: str, value: Plain) -> None:
        """Add plain data (a training curve, learned blends) to the cell's record.

        Raises Invalid for what JSON has no form for: a tensor is noted as `.tolist()`.
        """
        self.notes[key] = as_plain(value, "ctx.note", key)
