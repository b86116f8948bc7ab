"""One cell in words, for the page and the command line: facts, numbers, kept units, origin."""

from __future__ import annotations

from collections.abc import Mapping

from prunebench.leaderboard.numbers.losses import truncated
from prunebench.leaderboard.numbers.quantities import KINDS, Quantity
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import TITLES, titles
from prunebench.record.form import Kept, Leak, ModelFacts, Provenance, Record, TunedOn
from prunebench.record.measured import SuitePart
from prunebench.record.parts import there
from prunebench.untyped import Json

UNITS = {"fraction": "%", "perplexity": "", "count": "", "ratio": "×"}


def described(quantity: Quantity) -> dict[str, str]:
    """Title, unit, protocol and device of a quantity."""
    unit = KINDS[quantity.kind].unit
    return {
        "title": _title(quantity),
        "unit": UNITS.get(unit, unit),
        "protocol": "; ".join(f"{key} {value}" for key, value in quantity.details),
        "device": quantity.device,
    }


def _title(quantity: Quantity) -> str:
    """The title that the tables give it, or its kind in words."""
    title = titles([quantity])[0].rstrip(" ↓↑")
    if quantity.kind not in (*TITLES, "perplexity", "task"):
        title = quantity.kind.replace("_", " ").capitalize()
    return title if quantity.name in title else f"{title} ({quantity.name})"


def cell_facts(record: Record) -> list[list[str]]:
    """What the cell is and what was made of it, as pairs of words."""
    cell, sparsity, verify = record.cell, record.sparsity, there(record.verify)
    facts = {
        "Campaign": cell.campaign,
        "Method": cell.method,
        "Parameters of the method": ", ".join(f"{k}={v}" for k, v in sorted(cell.params.items())),
        "Matched to": cell.matched,
        "Target sparsity": formats.percent(cell.sparsity),
        "Achieved": _percent(sparsity.achieved if sparsity else None),
        "Of decoder blocks": _percent(sparsity.decoder_achieved if sparsity else None),
        "Native ratio": sparsity.native_ratio if sparsity else None,
        "Remark": sparsity.note if sparsity else None,
        "Sizes are multiples of": _multiples(record),
        "Parameters": _kept(record.model),
        "Decision": _decision(record),
        "Model source": _source(record.model),
        "Largest logit difference, masked against cut": verify.max_abs_logit_difference
        if verify
        else None,
        "Tuned on": _tuned(record.tuning),
        "Evaluation text that it was given": _leak(there(record.leak)),
        "Calibrated on": _calibrated(record),
        "Evaluated as": _ran(record),
        "Inputs that did not fit": _cut(record),
        "Notes": "; ".join(record.notes or ()),
    }
    return [[key, str(value)] for key, value in facts.items() if value not in (None, "")]


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f} %"


def _kept(model: ModelFacts | None) -> str:
    return f"{model.parameters:,} of {model.parameters_dense:,}" if model else ""


def _multiples(record: Record) -> str:
    found = (record.sparsity.multiple_of if record.sparsity else None) or {}
    return ", ".join(f"{kind} {number}" for kind, number in sorted(found.items()))


def _decision(record: Record) -> str:
    """The files that make the weights again, or why they cannot."""
    kept = there(record.decision_file)
    if kept is None:
        return ""
    text = f"{kept.file}, {kept.bytes:,} bytes"
    if kept.delta is None:
        return text
    delta = there(kept.delta)
    if delta is None:
        return f"{text}; not the weights: {getattr(kept.delta, 'reason', '')}"
    return f"{text}; {delta.file}, {delta.bytes:,} bytes"


def _source(model: ModelFacts | None) -> str:
    if model is None:
        return ""
    revision = f" at {model.revision}" if model.revision else ""
    place = f"{model.kind} {model.source or ''}{revision}".strip()
    return ", ".join(part for part in (place, imported_from(model)) if part)


def imported_from(model: ModelFacts) -> str:
    """The GGUF file behind a model, with its types of tensors, or nothing."""
    if model.imported is None:
        return ""
    types = model.imported.quantisation
    order = sorted(types, key=lambda name: (name == "F32", -types[name], name))
    listed = ", ".join(f"{name} {types[name]:,}" for name in order)
    return f"imported from {model.imported.file} ({listed})"


def _tuned(tuning: TunedOn | None) -> str:
    if tuning is None:
        return ""
    tokens = tuning.tuning_tokens
    return f"{tuning.instructions}, by the {tuning.by}" + (
        f", {tokens:,} tokens" if tokens is not None else ""
    )


def _calibrated(record: Record) -> str:
    return "; ".join(
        f"{' + '.join(c.corpus)} {c.split}, {c.samples} x {c.length} tokens, "
        f"seed {c.seed}, BOS: {c.bos}"
        for c in record.calibration or ()
    )


def _ran(record: Record) -> str:
    """Type, attention and batch size of every evaluation that says so, each wording once."""
    found: dict[str, list[str]] = {}
    for name, lost in (there(record.perplexity) or {}).items():
        part = there(lost)
        if part and part.attention:
            how = f"{part.dtype}, {part.attention} attention, batches of {part.batch_size}"
            found.setdefault(how, []).append(name)
    for name, suite in (("zero-shot", record.zeroshot), ("generated", record.generation)):
        whole = there(suite)
        if whole and whole.attention:
            sizes = ", ".join(map(str, whole.batch_size or ()))
            how = f"{whole.dtype}, {whole.attention} attention, batches of {sizes}{_scored(whole)}"
            found.setdefault(how, []).append(name)
    return "; ".join(f"{how} ({', '.join(names)})" for how, names in found.items())


def _scored(suite: SuitePart) -> str:
    """Whether what requests have in common was computed once, and why not."""
    if suite.scoring == "shared":
        return ", common beginnings of requests computed once"
    because = suite.plain_because
    return f", each request by itself: {because}" if because else ""


def _cut(record: Record) -> str:
    parts = [f"{name}: {cut} of {items}" for name, (cut, items) in truncated(record).items()]
    data = (record.tuning.data if record.tuning else None) or {}
    if data.get("truncated"):
        parts.append(f"tuning: {data['truncated']} of {data['examples']} examples")
    return "; ".join(parts)


def _leak(leak: Leak | None) -> str:
    """Evaluation sets whose items, or whose corpus, the method was given."""
    sets = leak.sets if leak else {}
    found = [
        f"{name}: {100 * (entry.share or 0):.1f} % of items"
        + (", same corpus" if entry.same_corpus else "")
        for name, entry in sorted(sets.items())
        if entry.share or entry.same_corpus
    ]
    return "; ".join(found) or ("none found" if sets else "")


def kept_units(decision: Mapping[str, Kept] | None) -> Json | None:
    """Kept and all units per kind and layer: {kind: [[layer or null, kept, units], ...]}."""
    if not decision:
        return None
    kinds: dict[str, list[list[int | None]]] = {}
    for entry in decision.values():
        kinds.setdefault(entry.kind, []).append([entry.layer, entry.kept, entry.units])
    order = {kind: i for i, kind in enumerate(("heads", "neurons", "experts", "hidden", "layers"))}
    return {
        "kinds": sorted(kinds, key=lambda kind: (order.get(kind, len(order)), kind)),
        "kept": {
            kind: sorted(found, key=lambda e: -1 if e[0] is None else e[0])
            for kind, found in kinds.items()
        },
    }


def origin(provenance: Provenance) -> list[list[str]]:
    """Where, when and with what a record was made, as pairs of words."""
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(provenance.packages.items()) if version
    )
    commit = provenance.git_commit
    facts = {
        "Measured": provenance.created,
        "prunebench": provenance.prunebench_version,
        "Commit": commit and commit + (" with changes" if provenance.git_dirty else ""),
        "Device": provenance.device,
        "Python": provenance.python,
        "Platform": provenance.platform,
        "Packages": versions,
        "Method's code": provenance.plugin_sha256,
        "Data": ", ".join(
            f"{key} {digest[:12]}"
            for key, digest in sorted((provenance.data_sha256 or {}).items())
            if digest
        ),
    }
    return [[key, str(value)] for key, value in facts.items() if value]
