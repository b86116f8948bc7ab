"""One series of measurements: all models of a job, interleaved, beside the dense one."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from prunebench.errors import Invalid, describe_error
from prunebench.modules import module_of
from prunebench.profiling.device import describe, is_shared
from prunebench.profiling.figures import figures
from prunebench.profiling.flops import macs
from prunebench.profiling.points import Point
from prunebench.profiling.sizes import size
from prunebench.profiling.turns import TurnOptions, measure_point
from prunebench.text.fits import positions
from prunebench.untyped import Json

logger = logging.getLogger(__name__)

UNKNOWN_SHARING = "only a GPU's driver can tell, and only where it can be asked"
Source = nn.Module | Callable[[], nn.Module]


def measure(
    models: Mapping[str, Source],
    points: Sequence[Point],
    *,
    device: torch.device | str,
    paths: Mapping[str, Path] | None = None,
    baseline: str = "dense",
    repeats: int = 20,
    warmup: int = 3,
    budget_s: float | None = None,
    resident: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    compile: bool | str = False,
    cuda_graphs: bool = False,
    macs_length: int = 64,
) -> dict[str, Json]:
    """Measure all models at all points; per model the `profile` part of a record.

    In each round every model runs once, so that whatever else the machine does meets all alike,
    and a speed-up is the median over rounds of baseline / model. `series` numbers the group that a
    model was measured in: absolute times of one group may be compared. A model that fails (out of
    memory included), at one point or at all, is `failed` there with its reason; others go on.

    Args:
        models: name -> model, or a function that loads it (called once, here, for each group).
        paths: name -> folder of the model, for `disk_mib`.
        baseline: the model against which speed-ups are stated.
        repeats: least number of timed rounds at each point; `warmup` untimed ones come before.
        budget_s: seconds for timed rounds over all points; what the least number of rounds leaves
            of it goes into more rounds (at most ten times as many). None: the least number.
        resident: how many models may lie on the device at once. More are measured in groups, each
            with the baseline loaded anew. None: all at once.
        seed: draws the token ids and the order of the models in each round.
        compile: time the models under torch.compile, True for its default backend.
        cuda_graphs: decode by replaying one captured step (see `graphs`); on a CPU the same step
            runs uncaptured.
        macs_length: tokens at which `macs` are counted, or the model's positions if fewer.

    Raises:
        Invalid: an option is out of range.
    """
    if repeats < 1 or warmup < 0 or (resident is not None and resident < 2):
        raise Invalid(
            "profile: expected repeats >= 1, warmup >= 0 and resident >= 2, got "
            f"repeats={repeats}, warmup={warmup}, resident={resident}"
        )
    groups = _groups(list(models), baseline, resident)
    share_s = budget_s / max(1, len(groups) * len(points)) if budget_s is not None else None
    backend = compile if isinstance(compile, str) else ("inductor" if compile else None)
    device = torch.device(device)
    options = TurnOptions(
        device, baseline, repeats, warmup, share_s, seed, confidence, backend, cuda_graphs
    )
    profiles: dict[str, Json] = {}
    for number, group in enumerate(groups):
        sources = {name: models[name] for name in group}
        for name, profile in _measure_group(sources, points, options, macs_length, paths).items():
            profiles.setdefault(name, {**profile, "series": number})
        _release(device)
    return {name: profiles[name] for name in models}


def _groups(names: list[str], baseline: str, resident: int | None) -> list[list[str]]:
    """Split the models so that each group has the baseline and fits."""
    if resident is None or len(names) <= resident:
        return [names]
    first = [baseline] if baseline in names else []
    others = [name for name in names if name != baseline]
    step = resident - len(first)
    return [first + others[i : i + step] for i in range(0, len(others), step)]


def _measure_group(
    sources: Mapping[str, Source],
    points: Sequence[Point],
    options: TurnOptions,
    macs_length: int,
    paths: Mapping[str, Path] | None,
) -> dict[str, Json]:
    """Load the models of a group, measure them at each point, and let them go."""
    before = is_shared(options.device)
    profiles: dict[str, Json] = {}
    loaded: dict[str, nn.Module] = {}
    for name, source in sources.items():
        try:
            model = source if isinstance(source, nn.Module) else source()
            model = model.to(options.device).eval()
            profiles[name] = _whole(model, macs_length, (paths or {}).get(name))
            loaded[name] = model
        except Exception as error:
            logger.exception("%s cannot be measured", name)
            profiles[name] = {"status": "failed", "reason": describe_error(error)}
    for point in points:
        runs = measure_point(loaded, point, options)
        base = runs.get(options.baseline)
        for name, run in runs.items():
            profiles[name]["points"].append(figures(run, base, point, options))
    after = is_shared(options.device)  # another process may have come meanwhile, or have left
    shared = True if before or after else (None if None in (before, after) else False)
    for name in loaded:
        _say_where(profiles[name], shared, options)
    return profiles


def _say_where(profile: Json, shared: bool | None, options: TurnOptions) -> None:
    """Add to a profile on what and how it was measured."""
    mark = ", shared device" if shared else ""
    profile["device"] = describe(options.device) + mark
    profile["shared_device"] = shared
    if shared is None:
        profile["missing"]["shared_device"] = UNKNOWN_SHARING
    profile |= {"baseline": options.baseline, "compile": options.backend}
    captured = "CUDA graph" if options.device.type == "cuda" else "fixed cache"
    profile["decode"] = captured if options.cuda_graphs else "growing cache"


def _whole(model: nn.Module, macs_length: int, path: Path | None) -> Json:
    """Figures of a model that belong to no point."""
    length = min(macs_length, positions(model.config) or macs_length)
    counts = {
        "attention": module_of(model).config._attn_implementation,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "macs": macs(model, length),
        "macs_length": length,
    }
    return {"status": "ok", "reason": None, **size(model, path), **counts, "points": []}


def _release(device: torch.device) -> None:
    """Give the memory of the models that went back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
