"""Try a method on tiny models and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.plugins.description import Plugin, read
from prunebench.plugins.discovery import discover
from prunebench.testing import checks
from prunebench.testing.checks import Problem
from prunebench.testing.report import CHECKS, Report, report
from prunebench.testing.runner import one_for_each
from prunebench.testing.trials import MODELS, SHARES, Bench, Trial, warmed
from prunebench.untyped import Call


def check_method(
    folder: Path | str,
    *,
    models: Sequence[str] = tuple(MODELS),
    shares: Sequence[float] = SHARES,
    repeat: bool = True,
    bench: Bench | None = None,
) -> Report:
    """Every check of `report.CHECKS` on the method in a plugin folder.

    models, shares  what it is tried on
    repeat          try the first model once more, and with another seed
    bench           where it is tried, if there is one already (it takes seconds to warm up)
    """
    folder = Path(folder)
    try:
        plugin = read(folder)
        _check_name(plugin)
    except Invalid as error:
        return report(folder.name, 0, [("description", str(error))])
    place: AbstractContextManager[Bench] = warmed() if bench is None else nullcontext(bench)
    with place as ready:
        trials = list(_trials(plugin, ready, models, shares, repeat=repeat))
    return report(plugin.name, len(trials), _problems(trials, plugin))


def method_tests(place: str) -> Call:
    """A test for pytest, one case for each check, of the plugin folder in which `place` lies.

    It is tried once, when the first case runs. Raises Invalid where pytest is not installed.
    """
    path = Path(place)
    folder = path if path.is_dir() else path.parent

    @cache
    def found() -> Report:
        return check_method(folder)

    @one_for_each("check", CHECKS)
    def test(check: str) -> None:
        problems = found().problems[check]
        assert not problems, f"{CHECKS[check]}: not so:\n" + "\n".join(problems)

    return test


def _check_name(plugin: Plugin) -> None:
    """Raise Invalid where another plugin of the project has this name."""
    known = discover().get(plugin.name)
    if known is not None and known.folder.resolve() != plugin.folder.resolve():
        raise Invalid(
            f"{plugin.folder}: name {plugin.name!r} is already taken by {known.folder}; rename it"
        )


def _trials(
    plugin: Plugin,
    bench: Bench,
    models: Sequence[str],
    shares: Sequence[float],
    *,
    repeat: bool,
) -> Iterator[Trial]:
    """All trials; after one that failed, no more of the same model."""
    shares = [0.0] if plugin.unpruned else plugin.trial.get("shares", shares)
    for model in models:
        for share in shares:
            trial = bench.run(plugin, model, share, imports=model == models[0])
            yield trial
            if trial.status != "ok":
                break
        if repeat and model == models[0] and trial.status == "ok":
            yield bench.run(plugin, model, share)
            yield bench.run(plugin, model, share, seed=1)


def _problems(trials: Sequence[Trial], plugin: Plugin) -> Iterator[Problem]:
    ran = {trial.model for trial in trials if trial.status == "ok"}
    all_skipped = all(trial.status == "skipped" for trial in trials)
    for trial in trials:
        if trial.status == "ok":
            yield from checks.of_trial(trial, plugin)
        elif trial.status == "skipped":
            yield from checks.of_skipped(trial, plugin, all_skipped=all_skipped)
        else:
            yield checks.of_failed(trial, others_ran=bool(ran - {trial.model}))
    first = [trial for trial in trials if trial.model == trials[0].model]
    repeated = len(first) >= 3 and first[-1].seed == 1
    if repeated and checks.paired(first[-3:]):
        yield from checks.of_seeds(first[-3], first[-2], first[-1], plugin)
