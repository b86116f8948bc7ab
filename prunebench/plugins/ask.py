"""Let a plugin decide: whatever it does ends as a Decision or as a reason that names its line."""

from __future__ import annotations

import operator
import random
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import NoReturn

import numpy
import torch
from transformers import PreTrainedModel

from prunebench.errors import Failure, Invalid, PrunebenchError, Unsupported, describe_error
from prunebench.plugins.context import Context
from prunebench.plugins.description import DESCRIPTION, Plugin
from prunebench.plugins.watch import Watch, active, watching
from prunebench.pruning.structure import Decision, Structure
from prunebench.untyped import Call, Passed, Plain
from prunebench.whole import as_plain


def ask(
    plugin: Plugin,
    model: PreTrainedModel,
    context: Context,
    structures: Mapping[str, Structure],
) -> Decision:
    """The plugin's decision, as plain data. What it left in the weights is for the caller to check.

    structures  of the model, for a decision must fit them

    Raises Unsupported as the plugin does, or where its description says so; Failure, with the file
    and line of the plugin, for anything else that it did instead of deciding.
    """
    kinds = frozenset(structure.kind for structure in structures.values())
    plugin.check_model(model.config.model_type, kinds)
    watch = Watch(plugin.folder, context.workdir, plugin.deterministic)
    if plugin.deterministic:
        context = SeedWatch(**{f.name: getattr(context, f.name) for f in fields(context)})
    before = _random_states()
    with reasons(watch):
        with watching(watch):
            prune = plugin.load()
            returned = prune(model, context)
        start = _start_of(prune, watch)
        if plugin.deterministic and (changed := _changed(before)):
            where = watch.drew or start
            raise Failure(_not_deterministic(f"drew from {changed}, which the seed sets", where))
        decision = _plain(returned, start)
        try:
            decision.check(structures)
            as_plain(context.notes, "ctx.notes")
        except Invalid as error:
            raise Failure(f"{error} (returned by prune(), {start})") from None
    return decision


class SeedWatch(Context):
    """The Context of a method that says it is deterministic: it notices when the seed is used."""

    def __getattribute__(self, name: str) -> Passed:
        watch = active()
        if watch is not None and name in ("seed", "calibration"):
            frame = sys._getframe(1)
            file = frame.f_code.co_filename
            fixed = name == "calibration" and getattr(self.sample_calibration, "is_fixed", False)
            if watch.owns(file) and not fixed:
                where = watch.place(file, frame.f_lineno)
                what = "read ctx.seed" if name == "seed" else "read text drawn by the seed"
                fault = _not_deterministic(what, where)
                watch.faults.append(fault)
                raise Failure(fault)
        return super().__getattribute__(name)


@contextmanager
def reasons(watch: Watch) -> Iterator[None]:
    """What a plugin raises inside the block, as the suite's errors with its file and line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if watch.faults:  # what followed from them says less
            raise Failure(watch.faults[0]) from None
        _explain(error, watch)


def _explain(error: BaseException, watch: Watch) -> NoReturn:
    """Raise an error again with the plugin's line."""
    where = watch.line_of(error.__traceback__)
    if isinstance(error, Unsupported):
        raise error
    if isinstance(error, PrunebenchError):
        text = str(error)
        raise type(error)(f"{text} ({where})" if where and where not in text else text) from None
    if isinstance(error, SystemExit):
        raise Failure(
            f"called sys.exit({error.code!r}) ({where}); raise Failure or Unsupported instead"
        ) from None
    traceback.print_exception(error, file=sys.stderr)
    if where is None and isinstance(error, SyntaxError) and watch.owns(error.filename or ""):
        where = watch.place(error.filename or "", error.lineno or 0)
    text = describe_error(error)
    raise Failure(f"{text} ({where})" if where else text) from error


def _plain(returned: Plain, start: str) -> Decision:
    """A decision of tuples of Python's own numbers. Raises Failure for anything else."""
    if not isinstance(returned, Decision):
        name = type(returned).__name__
        raise Failure(f"prune() returned {name}, not a Decision ({start}); return ctx.select(...)")
    if not isinstance(returned.keep, Mapping):
        name = type(returned.keep).__name__
        raise Failure(f"decision: expected keep to be a mapping, got {name} ({start})")
    keep = {}
    for name, units in returned.keep.items():
        try:
            keep[str(name)] = tuple(operator.index(unit) for unit in units)
        except (TypeError, RuntimeError):
            raise Failure(
                f"decision: {name}: expected numbers of kept units, got {units!r:.80} ({start})"
            ) from None
    try:
        how = as_plain(dict(returned.how), "decision.how")
    except (Invalid, TypeError, ValueError) as error:
        raise Failure(f"{error} ({start})") from None
    assert isinstance(how, dict)  # of a dict comes a dict
    return Decision(keep, how)


def _start_of(prune: Call, watch: Watch) -> str:
    """Where `prune` is defined."""
    code = getattr(prune, "__code__", None)
    if code is None or not watch.owns(code.co_filename):
        return f"{watch.folder.name}/method.py"
    return watch.place(code.co_filename, code.co_firstlineno)


def _not_deterministic(what: str, where: str) -> str:
    return f"{DESCRIPTION} says deterministic: true, but it {what} ({where}); delete that line"


def _random_states() -> dict[str, Plain]:
    """States of the generators that a job seeds for everybody."""
    states: dict[str, Plain] = {
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
        "the generator of the module random": random.getstate(),
        "numpy's global generator": repr(numpy.random.get_state(legacy=False)),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["the GPU's generator"] = torch.cuda.get_rng_state().numpy().tobytes()
    return states


def _changed(before: Mapping[str, Plain]) -> str | None:
    now = _random_states()
    return next((name for name, state in before.items() if state != now[name]), None)
