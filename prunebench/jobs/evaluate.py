"""Evaluate one cell: perplexities and zero-shot accuracy of its final model."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunebench.errors import PrunebenchError, Unsupported, describe_error
from prunebench.evaluation.perplexity import perplexity
from prunebench.evaluation.protocols import Protocol
from prunebench.jobs import work
from prunebench.pruning.architectures import relies_on_bos
from prunebench.record.provenance import provenance
from prunebench.text.source import text_digest

RANDOM = {"status": "skipped", "reason": "random weights"}


def evaluate(spec: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run an evaluation job. A part that cannot be had says so; the other parts are measured."""
    work.deterministic(spec["seed"])
    protocols = [Protocol(**entry) for entry in spec["perplexity"]]
    if spec["model"]["kind"] == "random":
        work.read_stage(arguments.inputs[0])
        skipped = dict.fromkeys((p.key for p in protocols), RANDOM)
        return {"perplexity": skipped, "zeroshot": RANDOM, "provenance": provenance()}
    model, tokenizer = work.load_stage(arguments.inputs[0], spec["model"], arguments.device)
    needs_bos = relies_on_bos(model.config.model_type)
    protocols = [protocol.for_family(relies_on_bos=needs_bos) for protocol in protocols]
    source = work.data_source(spec)
    ran = work.ran_as(model)

    def measure(protocol: Protocol) -> dict[str, Any]:
        rows = source.rows(protocol.corpus, protocol.split)
        figures = perplexity(model, tokenizer, rows, protocol)
        return {**figures, **ran, "data_sha256": text_digest(rows)}

    if spec["zeroshot"] is not None:
        from prunebench.evaluation.zeroshot import harness  # noqa: F401  an import is no work on the model

    start_s = time.perf_counter()
    figures = {p.key: part(lambda p=p: measure(p)) for p in protocols}
    accuracies = part(lambda: {**zeroshot(spec, model, tokenizer, source, arguments), **ran})
    return {
        "perplexity": figures,
        "zeroshot": accuracies,
        "notes": without_bos(protocols, accuracies) if needs_bos else [],
        "inputs": spec.get("inputs", {}),
        "timing": {"model_s": time.perf_counter() - start_s},
        "provenance": provenance(),
    }


def part(work_on_it: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part of the result, or its status and reason: no error in it takes the others along."""
    try:
        return work_on_it()
    except Unsupported as error:
        return {"status": "skipped", "reason": str(error)}
    except PrunebenchError as error:
        return {"status": "failed", "reason": str(error)}
    except Exception as error:  # of libraries, of memory: the log has where it comes from
        traceback.print_exc(file=sys.stderr)
        gc.collect()
        return {"status": "failed", "reason": describe_error(error)}


def without_bos(protocols: Sequence[Protocol], accuracies: Mapping[str, Any]) -> list[str]:
    """Warnings for a family that relies on BOS: what was measured without it in front."""
    keys = [protocol.key for protocol in protocols if protocol.bos != "window"]
    if accuracies.get("bos") is False:
        keys.append("zero-shot")
    return [f"{key}: without BOS in front, which this family relies on" for key in keys]


def zeroshot(
    spec: Mapping[str, Any], model: Any, tokenizer: Any, source: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The zero-shot suite through lm-eval, imported only here."""
    settings = spec["zeroshot"]
    if settings is None:
        raise Unsupported("the campaign asks for no zero-shot suite")
    from prunebench.evaluation import zeroshot as suite

    return suite.evaluate(
        model,
        tokenizer,
        suite=settings["suite"],
        source=source,
        device=arguments.device,
        batch_size=settings.get("batch_size", "auto"),
        limit=settings.get("limit"),
        workdir=arguments.out.parent,
    )


if __name__ == "__main__":
    work.main(evaluate, inputs=1)
