"""Recover one pruned cell by LoRA tuning on the campaign's data and token budget."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from prunebench import recovery
from prunebench.campaign.settings import tuning_records, tuning_settings
from prunebench.jobs import work
from prunebench.models import folders
from prunebench.profiling.cost import meter
from prunebench.record.provenance import provenance


def recover(spec: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a recovery job: tune the model of the pruning job, merge, save."""
    work.deterministic(spec["seed"])
    pruned = work.read_stage(arguments.inputs[0])
    model, tokenizer = work.load_stage(arguments.inputs[0], spec["model"], arguments.device)
    cell = arguments.out.parent
    with meter(arguments.device) as cost:
        model, report = recovery.recover(
            model,
            tokenizer,
            tuning_records(spec["recovery"], work.data_source(spec)),
            tuning_settings(spec["recovery"]),
            workdir=cell / "recover.work",
            seed=spec["seed"],
            device=arguments.device,
        )
        cost.forward(report["tuning_tokens"])
        cost.backward(report["tuning_tokens"])
    exported, digest = pruned["export"], None
    if spec["model"]["kind"] != "random":
        uniform = exported["loadable_by"] == "transformers"
        loader = folders.save(model, tokenizer, cell / "model", uniform=uniform)
        exported = {**exported, "loadable_by": loader, "path": "model"}
        digest = folders.weights_digest(cell / "model")
    return {
        "model": {**pruned["model"], "weights_sha256": digest},
        "export": exported,
        "cost": {**cost.report(), **work.ran_as(model)},
        "tuning": report,
        "inputs": spec.get("inputs", {}),
        "timing": {"model_s": cost.report()["wall_s"]},
        "provenance": provenance(),
    }


if __name__ == "__main__":
    work.main(recover, inputs=1)
