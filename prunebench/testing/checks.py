"""What each trial says about a method: (check, what is wrong and what to change)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from prunebench.plugins.description import Plugin
from prunebench.plugins.passes import forward_passes
from prunebench.pruning.selection import TOLERANCE
from prunebench.testing.trials import CALIBRATION, EXAMPLE, MEMORY_MB, SECONDS, TOKENS, Trial
from prunebench.untyped import Json

Problem = tuple[str, str]

ABOUT = (
    ("network", r"asked the network"),
    ("files", r"^changed "),
    ("seeds", r"unseeded generator|says deterministic: true"),
    ("exact", r"the sliced model differs"),
    ("saved", r"read back|left a hook|left weights in|where .+ was: a saved model|adds to random"),
    ("numbers", r"not finite|must be finite|is no number in JSON|has no form in JSON"),
    ("decision", r"decision|prune\(\) returned|unknown structure|may lose 0"),
    ("limits", r"time limit|memory limit|out of memory"),
)
"""Which check a failed trial belongs to, by its reason; any other reason is of `runs`."""
WORDS = 5
"""A refusal is a sentence: it has more words than this."""
SLACK = 1.05
ROUGHLY = 2.0
"""How far the passes of a description may be off on so short a text."""


def of_failed(trial: Trial, *, others_ran: bool) -> Problem:
    """What a failed trial is about.

    others_ran  the method works on other models: then a plain error is a refusal that is missing
    """
    for check, pattern in ABOUT:
        if re.search(pattern, trial.reason):
            return check, f"{trial}: {trial.reason}"
    if others_ran:
        return "refusal", (
            f"{trial}: {trial.reason}; if the method cannot prune such a model, raise "
            "Unsupported('why'), or say families or needs in method.yaml"
        )
    return "runs", f"{trial}: {trial.reason}"


def of_skipped(trial: Trial, plugin: Plugin, *, all_skipped: bool) -> Iterator[Problem]:
    """A refusal must be a sentence, and must not be all that the method ever says."""
    if len(trial.reason.split()) <= WORDS:
        yield "refusal", f"{trial}: {trial.reason!r} is no sentence: say what is missing, and why"
    elif all_skipped:
        yield "refusal", f"{trial}: {trial.reason}; it refused every model that it was tried on"


def of_trial(trial: Trial, plugin: Plugin) -> Iterator[Problem]:
    """What is wrong with a trial that came to an end."""
    result, seen = trial.result, trial.seen
    for changed in seen["at_import"]:
        yield "import", f"importing method.py changed {changed}; do such things in prune()"
    if not plugin.unpruned:
        yield from _target(trial)
    if (back := seen.get("read_back")) is not None:
        yield from _read_back(trial, back)
    if seen["changed"] and not plugin.changes_weights:
        yield (
            "weights",
            (
                f"{trial}: changed {seen['changed'][0]} and {len(seen['changed']) - 1} more; work "
                "on a copy, or say changes_weights: true in method.yaml"
            ),
        )
    if seen["files"]:
        yield "files", f"{trial}: left {seen['files'][0]} where it ran; write into ctx.workdir"
    yield from _cost(trial, plugin)
    limits = {"seconds": SECONDS, "memory_mb": MEMORY_MB, **plugin.trial}
    memory = result["cost"]["peak_host_mib"] - result["cost"]["start_host_mib"]
    for name, taken in (("seconds", seen["seconds"]), ("memory_mb", memory)):
        if taken > limits[name]:
            yield (
                "limits",
                (
                    f"{trial}: took {taken:.1f} {name}, of {limits[name]:g}; say more under trial "
                    "in method.yaml if it must be"
                ),
            )


def of_seeds(first: Trial, again: Trial, other: Trial, plugin: Plugin) -> Iterator[Problem]:
    """The same seed, the same decision; another seed another one, unless no seed matters."""
    # A method that changes weights may keep the same units and yet leave another model.
    found = [(trial.seen["keep"], trial.seen["weights"]) for trial in (first, again, other)]
    kept, same, different = found
    if kept != same:
        yield (
            "seeds",
            (
                f"{again}: decided otherwise than the first time; draw from "
                "torch.Generator().manual_seed(ctx.seed) and from nothing else"
            ),
        )
    elif plugin.deterministic and kept != different:
        yield "seeds", f"{other}: decided otherwise; delete deterministic: true from method.yaml"
    elif not plugin.deterministic and kept[0] and kept == different:
        yield (
            "seeds",
            (
                f"{other}: decided the same as with seed {first.seed}; if no seed matters, say "
                "deterministic: true in method.yaml, else campaigns measure it several times"
            ),
        )


def _target(trial: Trial) -> Iterator[Problem]:
    found = trial.result["sparsity"]
    achieved, most = found["decoder_achieved"], max(TOLERANCE, trial.seen["finest"] / 2)
    if not found["native"] and abs(achieved - trial.share) > most + 1e-9:
        yield (
            "target",
            (
                f"{trial}: {100 * achieved:.1f} % of the parameters left (wanted "
                f"{100 * trial.share:g} ± {100 * most:.1f} %); return ctx.select(scores), or count "
                "with ctx.budget"
            ),
        )


def _read_back(trial: Trial, back: Json) -> Iterator[Problem]:
    (here, there), (kind, loaded) = back["parameters"], back["types"]
    advice = "leave plain weights: no hooks, no patched forward, no new parameters"
    if here != there:
        yield "saved", f"{trial}: {here:,} parameters in memory, {there:,} when loaded; {advice}"
    elif kind != loaded:
        yield "saved", f"{trial}: {kind} in memory, {loaded} when loaded; convert it back"
    elif not back["difference"] <= back["tolerance"]:
        yield (
            "saved",
            (
                f"{trial}: logits differ by {back['difference']:.1e} from those of the model in "
                f"memory; {advice}"
            ),
        )


def _cost(trial: Trial, plugin: Plugin) -> Iterator[Problem]:
    cost, seen = trial.result["cost"], trial.seen
    told, entered = cost["forward_tokens"], seen["entered"]
    if told > SLACK * entered + 1 or told < entered / SLACK - 1:
        yield (
            "cost",
            (
                f"{trial}: {told} tokens are reported, {entered} went through the model; call "
                "ctx.cost.forward(tokens) once for each pass"
            ),
        )
    planned = _planned(plugin)
    if planned is not None and not planned / ROUGHLY - 1 <= told <= planned * ROUGHLY + 1:
        yield (
            "cost",
            (
                f"{trial}: {told} tokens went forward, and passes in method.yaml come to "
                f"{planned:.0f}; `prunebench plan` goes by them"
            ),
        )
    drawn = sum(text["samples"] * text["length"] for text in trial.result["calibration"])
    allowed = plugin.trial.get("tokens", TOKENS) + max(drawn, CALIBRATION.samples)
    allowed += _scored(plugin)
    if plugin.tunes_itself and seen["learnt"] > SLACK * allowed:
        yield (
            "budget",
            (
                f"{trial}: {seen['learnt']} tokens with gradients, of {allowed}; stop at the "
                "tokens of ctx.recovery()"
            ),
        )


def _planned(plugin: Plugin) -> float | None:
    """Tokens of a trial's forward passes as method.yaml has them; None where it says nothing."""
    if plugin.passes is None or plugin.tunes_itself:
        return None
    params = plugin.params(plugin.trial.get("params", {}), where="trial.params")
    text = CALIBRATION.samples * CALIBRATION.length
    return text * forward_passes(plugin.passes, params, CALIBRATION.samples)


def _scored(plugin: Plugin) -> float:
    """Tokens of tuning examples that its description says are scored before it tunes."""
    params = plugin.params(plugin.trial.get("params", {}), where="trial.params")
    own = [one for one in plugin.passes or () if one.tuning]
    return sum(one.backward * one.count(params) * (one.samples or 0) * EXAMPLE for one in own)


def paired(trials: Sequence[Trial]) -> bool:
    """Whether all of these came to an end."""
    return all(trial.status == "ok" for trial in trials)
