"""Evaluate one cell: perplexities and zero-shot accuracy of its final model."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunebench.campaign.parts import SuiteRun
from prunebench.campaign.specs import EvaluateSpec
from prunebench.errors import PrunebenchError, Unsupported, describe_error
from prunebench.evaluation.perplexity import perplexity
from prunebench.evaluation.protocols import Protocol
from prunebench.evaluation.written import continue_prompts
from prunebench.jobs import determinism, work
from prunebench.jobs.work import JobIO
from prunebench.pruning.architectures import relies_on_bos
from prunebench.record.provenance import provenance
from prunebench.text.source import Source, text_digest
from prunebench.untyped import Json, JsonMap

RANDOM = {"status": "skipped", "reason": "random weights"}


def evaluate(spec: EvaluateSpec, io: JobIO) -> Json:
    """Run an evaluation job on the model of the earlier job `io.inputs[0]`.

    A part that cannot be computed records why; the others are measured.
    """
    determinism.ask(spec.cell.seed, io.device)
    if spec.model.kind == "random":
        work.read_stage(io.inputs[0])
        skipped = dict.fromkeys((p.key for p in spec.perplexity), RANDOM)
        return {"perplexity": skipped, "zeroshot": RANDOM, "provenance": provenance()}
    model, tokenizer = work.load_stage(io.inputs[0], spec.model, io.device)
    needs_bos = relies_on_bos(model.config.model_type)
    protocols = [protocol.for_family(relies_on_bos=needs_bos) for protocol in spec.perplexity]
    source = spec.data.open()
    ran = work.ran_as(model)

    def measure(protocol: Protocol) -> Json:
        rows = source.rows(protocol.corpus, protocol.split)
        figures = perplexity(model, tokenizer, rows, protocol)
        return {**figures, **ran, "data_sha256": text_digest(rows)}

    def ask(settings: SuiteRun | None, items: Path) -> Json:
        return {**run_suite(settings, model, tokenizer, source, io, items), **ran}

    if spec.zeroshot is not None or spec.generation is not None:
        from prunebench.evaluation.zeroshot import harness  # noqa: F401  an import is no model work

    start_s = time.perf_counter()
    figures = {p.key: part(partial(measure, p)) for p in protocols}
    accuracies = part(partial(ask, spec.zeroshot, io.cell.items))
    further = {}
    if spec.generation is not None:
        further["generation"] = part(partial(ask, spec.generation, io.cell.generation_items))
    if spec.texts is not None:
        given = (spec.texts.prompts, spec.texts.tokens)
        further["texts"] = part(partial(continue_prompts, model, tokenizer, *given))
    return {
        "perplexity": figures,
        "zeroshot": accuracies,
        **further,
        "notes": without_bos(protocols, accuracies) if needs_bos else [],
        "timing": {"model_s": time.perf_counter() - start_s},
        "provenance": provenance(),
    }


def part(work_on_it: Callable[[], Json]) -> Json:
    """A part of the result, or its status and reason: no error in it takes the others along."""
    try:
        return work_on_it()
    except Unsupported as error:
        return {"status": "skipped", "reason": str(error)}
    except PrunebenchError as error:
        return {"status": "failed", "reason": str(error)}
    except Exception as error:  # of libraries, of memory: the log has where it comes from
        if determinism.without_kernel(error):
            raise  # the whole job runs again
        traceback.print_exc(file=sys.stderr)
        gc.collect()
        return {"status": "failed", "reason": describe_error(error)}


def without_bos(protocols: Sequence[Protocol], accuracies: JsonMap) -> list[str]:
    """Warnings for a family that relies on BOS: what was measured without it in front."""
    keys = [protocol.key for protocol in protocols if protocol.bos != "window"]
    if accuracies.get("bos") is False:
        keys.append("zero-shot")
    return [f"{key}: without BOS in front, which this family relies on" for key in keys]


def run_suite(
    settings: SuiteRun | None,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: Source,
    io: JobIO,
    items: Path,
) -> Json:
    """A suite of tasks through lm-eval, imported only here; item outcomes go to `items`."""
    if settings is None:
        raise Unsupported("the campaign asks for no zero-shot suite")
    from prunebench.evaluation import zeroshot as suite

    return suite.evaluate(
        model,
        tokenizer,
        suite=settings.suite,
        source=source,
        device=io.device,
        batch_size=settings.batch_size,
        limit=settings.limit,
        scoring=settings.scoring,
        workdir=items.parent,
        items_file=items.name,
    )


def main() -> None:
    """Run the job of the command line."""
    work.main(evaluate, EvaluateSpec, inputs=1)


if __name__ == "__main__":
    main()
