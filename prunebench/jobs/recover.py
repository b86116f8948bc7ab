"""Recover one pruned cell by LoRA tuning on the campaign's data and token budget."""

from __future__ import annotations

from torch import Tensor

from prunebench import recovery
from prunebench.campaign.specs import RecoverSpec
from prunebench.jobs import decided, determinism, work
from prunebench.jobs.work import JobIO
from prunebench.models import folders
from prunebench.profiling.cost import meter
from prunebench.record.provenance import provenance
from prunebench.untyped import Json


def recover(spec: RecoverSpec, io: JobIO) -> Json:
    """Run a recovery job: tune the model of the pruning job `io.inputs[0]`, merge, save."""
    determinism.ask(spec.seed, io.device)
    pruned = work.read_stage(io.inputs[0])
    model, tokenizer = work.load_stage(io.inputs[0], spec.model, io.device)
    adapter: dict[str, Tensor] = {}
    with meter(io.device) as cost:
        model, report = recovery.recover(
            model,
            tokenizer,
            spec.recovery.records(spec.data.open()),
            spec.recovery.settings(),
            workdir=io.cell.work("recover"),
            seed=spec.seed,
            device=io.device,
            adapter=adapter.update,
        )
        cost.forward(report["tuning_tokens"])
        cost.backward(report["tuning_tokens"])
    exported, digest = pruned["export"], None
    if spec.model.kind != "random":
        uniform = exported["loadable_by"] == "transformers"
        loader = folders.save(model, tokenizer, io.cell.model, uniform=uniform)
        exported = {**exported, "loadable_by": loader, "path": io.cell.model.name}
        digest = folders.weights_digest(io.cell.model)
    facts = {**pruned["model"], "weights_sha256": digest}
    return {
        "model": facts,
        "export": exported,
        "decision_file": decided.keep_tuned(spec, io, pruned, facts, model, adapter),
        "cost": {**cost.report(), **work.ran_as(model)},
        "tuning": report,
        "timing": {"model_s": cost.report()["wall_s"]},
        "provenance": provenance(),
    }


def main() -> None:
    """Run the job of the command line."""
    work.main(recover, RecoverSpec, inputs=1)


if __name__ == "__main__":
    main()
