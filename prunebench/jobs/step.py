"""Measure one step of a method by itself: memory, throughput, and the least that it must keep."""

from __future__ import annotations

import inspect

from prunebench.campaign.specs import StepSpec
from prunebench.errors import Invalid
from prunebench.jobs import work
from prunebench.jobs.prune import model_facts
from prunebench.jobs.work import JobIO
from prunebench.plugins.discovery import locate
from prunebench.profiling.steps import measure_step
from prunebench.pruning.surgery import count_parameters
from prunebench.record.provenance import provenance
from prunebench.untyped import Json


def step(spec: StepSpec, io: JobIO) -> Json:
    """Run a job that measures the plugin's `make_step` on the unpruned model."""
    plugin = locate(spec.cell.method, spec.plugins)
    make, options = plugin.load_step(), spec.cell.params
    if foreign := sorted(set(options) - set(inspect.signature(make).parameters)):
        raise Invalid(f"steps: {spec.cell.label}: {plugin.name} has no option {foreign[0]!r}")
    model, _tokenizer = work.load_original(spec.model, io.device)
    facts = model_facts(spec.model, model, count_parameters(model), None)
    sizes = {"micro_batches": spec.micro_batches, "length": spec.length}
    made = make(model, seed=spec.cell.seed, **sizes, **options)
    figures = measure_step(made, io.device, rounds=spec.rounds)
    return {
        "model": facts,
        "step": {"status": "ok", **sizes, **work.ran_as(model), **figures},
        "provenance": provenance(plugin_sha256=spec.plugin_sha256),
    }


def main() -> None:
    """Run the job of the command line."""
    work.main(step, StepSpec, inputs="*")


if __name__ == "__main__":
    main()
