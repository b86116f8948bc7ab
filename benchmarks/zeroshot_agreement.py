"""Do our zero-shot figures equal those of lm-eval's own command line, and how much faster are they?

    python benchmarks/zeroshot_agreement.py [--model FOLDER] [--data FOLDER] [--limit N]
        [--tasks NAME ...] [--sides lm_eval plain shared] [--batch-size 16] [--threads 1]
        [--keep FOLDER] [--reference FILE]

Asks the tasks of zeroshot/7 on local files three times, in turns: by `python -m lm_eval run`, by
this suite with `scoring: plain` (lm-eval's passes) and with `scoring: shared` (common beginnings
once), with the same redirecting task files and batch size, each in a process of its own. Prints per
task the seconds from before the model is loaded to the last figure (as lm-eval counts them), the
peak of host memory, the largest difference of a log-likelihood from the command line's, and how
many items got another outcome. An item may differ only where its two best choices are closer than
1e-4; each such item is named. Exit status 1 when another one differs, a log-likelihood by more than
1e-4 (of long answers: a millionth) or, with --reference, an accuracy from that file's. The first of
--sides is what the others are compared with. Without --limit all items are scored.
--keep keeps the figures of all three in `agreement.json`, with their provenance.
Defaults: $PRUNEBENCH_MODELS/wikibooks-llama-6m and $PRUNEBENCH_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from prunebench.evaluation.zeroshot import load_suite
from prunebench.evaluation.zeroshot.tasks import load_tasks, prepare, write_definitions
from prunebench.models.folders import load, weights_digest
from prunebench.record.provenance import provenance
from prunebench.text.source import Source
from prunebench.whole import write_json

SUITE = "zeroshot/7"
SIDES = ("lm_eval", "plain", "shared")
TOLERANCE = 1e-4
RELATIVE = 1e-6
"""Of a long answer's log-likelihood: float32 itself is off by more (a sum of 50 tokens near -185 by
4e-4, against float64)."""
METRICS = ("acc", "acc_norm")


def main() -> int:
    options = _options()
    if options.one:
        return _one(options, *options.one)
    names = options.tasks or [task.name for task in load_suite(SUITE).tasks]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            found[name] = {side: _measure(options, folder, side, name) for side in options.sides}
            times = [f"{side} {one['seconds']:.1f} s" for side, one in found[name].items()]
            print(f"{name}: {', '.join(times)}", flush=True)
        write_json(folder / "agreement.json", _kept(options, found))
    faults = _report(found)
    if options.reference:
        faults += _against(json.loads(options.reference.read_text()), found)
    print(*faults, sep="\n")
    return 1 if faults else 0


def _report(found: dict[str, dict[str, Any]]) -> list[str]:
    """Print the table; returns what is wrong. The first side is what others are compared with."""
    rows, faults, ties = [], [], []
    for name, sides in found.items():
        first, *others = sides
        row = [name, len(sides[first]["items"])]
        row += [sides[side]["seconds"] for side in sides]
        row += [sides[side]["peak_mib"] for side in sides]
        for side in others:
            worst, beyond, odd, near = _compare(sides[first], sides[side])
            row += [sides[first]["seconds"] / sides[side]["seconds"], worst, len(near)]
            faults += [f"{name}: {side}: item {i} of {metric} differs" for i, metric in odd]
            faults += [f"{name}: {side}: {beyond} log-likelihoods differ"] * bool(beyond)
            ties += [
                f"{name}: {side}: item {i} of {m}: best two {gap:.0e} apart" for i, m, gap in near
            ]
        rows.append(row)
    names = list(next(iter(found.values())))
    rows.append(_total(rows, len(names)))
    headers = ["task", "items", *(f"{side} s" for side in names), *(f"{s} MiB" for s in names)]
    formats = ["", "", *[".1f"] * len(names), *[".0f"] * len(names)]
    for side in names[1:]:
        headers += [f"{side} times faster", "worst", "near ties"]
        formats += [".2f", ".1e", ""]
    print(tabulate(rows, headers=headers, floatfmt=formats))
    print(*ties, sep="\n")
    return faults


def _total(rows: list[list[Any]], sides: int) -> list[Any]:
    """The last line: sums of items, seconds and ties; the most memory and the worst difference."""
    columns = list(zip(*rows, strict=True))
    seconds = [sum(column) for column in columns[2 : 2 + sides]]
    total = ["all", sum(columns[1]), *seconds, *map(max, columns[2 + sides : 2 + 2 * sides])]
    for k in range(1, sides):
        _, worst, near = columns[2 + 2 * sides + 3 * (k - 1) :][:3]
        total += [seconds[0] / seconds[k], max(worst), sum(near)]
    return total


def _compare(
    theirs: dict[str, Any], ours: dict[str, Any]
) -> tuple[float, int, list[tuple[int, str]], list[tuple[int, str, float]]]:
    """Largest difference of a log-likelihood, how many are beyond the tolerance, items that differ,
    and those that may."""
    worst, beyond, odd, near = 0.0, 0, [], []
    for i, (one, two) in enumerate(zip(theirs["items"], ours["items"], strict=True)):
        assert one["document"] == two["document"], "the two sides saw different documents"
        pairs = list(zip(one["log_likelihoods"], two["log_likelihoods"], strict=True))
        worst = max(worst, *(abs(a - b) for a, b in pairs))
        beyond += sum(abs(a - b) > max(TOLERANCE, RELATIVE * abs(a)) for a, b in pairs)
        for metric in METRICS:
            if metric not in one or one[metric] == two[metric]:
                continue
            scale = one["lengths"] if metric == "acc_norm" else [1] * len(pairs)
            best = sorted((a / s for (a, _), s in zip(pairs, scale, strict=True)), reverse=True)
            if best[0] - best[1] < TOLERANCE:
                near.append((i, metric, best[0] - best[1]))
            else:
                odd.append((i, metric))
    return worst, beyond, odd, near


def _against(reference: dict[str, Any], found: dict[str, dict[str, Any]]) -> list[str]:
    """Where accuracies differ from those of an earlier run of lm-eval's command line."""
    faults = []
    for name, sides in found.items():
        for metric in METRICS:
            wanted = reference["lm_eval"][name].get(f"{metric},none")
            given = list(sides.values())[-1]["figures"].get(metric)
            if wanted != given:
                faults.append(f"{name}: {metric} is {given}, in the reference {wanted}")
    print("equal to the reference" if not faults else "not equal to the reference")
    return faults


def _measure(options: argparse.Namespace, folder: Path, side: str, name: str) -> dict[str, Any]:
    """Run one side on one task in a process of its own."""
    where = folder / f"{side}-{name}"
    where.mkdir(exist_ok=True)
    if side == "lm_eval":
        command = _command_line(options, where, name)
    else:
        command = [sys.executable, __file__, "--model", options.model, "--data", options.data]
        command += ["--batch-size", options.batch_size, "--threads", options.threads]
        command += ["--limit", options.limit] if options.limit else []
        command += ["--one", side, name, where / "found.json"]
    threads = {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    peak = _run([str(part) for part in command], {**os.environ, **threads}, where / "log.txt")
    if side == "lm_eval":
        found = _of_command_line(where, name)
    else:
        found = json.loads((where / "found.json").read_text())
    return {**found, "peak_mib": peak}


def _run(command: list[str], environment: dict[str, str], log: Path) -> float:
    """Run a command to its end; returns the peak of its host memory in MiB."""
    pid = os.fork()
    if pid == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.execve(command[0], command, environment)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"failed; see {log}: {' '.join(command)}")
    return usage.ru_maxrss / 1024


def _command_line(options: argparse.Namespace, where: Path, name: str) -> list[Any]:
    ready, _ = prepare(load_suite(SUITE), Source(kind="local", root=options.data))
    definitions = where / "definitions"
    definitions.mkdir(exist_ok=True)
    write_definitions([entry for entry in ready if entry.task.name == name], definitions)
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", name]
    command += ["--model_args", f"pretrained={options.model},dtype=float32", "--device", "cpu"]
    command += ["--batch_size", options.batch_size, "--include_path", definitions]
    command += ["--output_path", where, "--log_samples"]
    return command + (["--limit", options.limit] if options.limit else [])


def _of_command_line(where: Path, name: str) -> dict[str, Any]:
    newest = max(where.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    results = json.loads(newest.read_text())
    samples = max(where.rglob(f"samples_{name}_*.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    figures = results["results"][name]
    return {
        "seconds": float(results["total_evaluation_time_seconds"]),
        "figures": {m: figures[f"{m},none"] for m in METRICS if f"{m},none" in figures},
        "items": [_item(line) for line in sorted(lines, key=lambda line: line["doc_id"])],
    }


def _item(sample: dict[str, Any]) -> dict[str, Any]:
    arguments = sample["arguments"]
    if isinstance(arguments, dict):  # as the command line writes them
        texts = [one["arg_1"] for one in arguments.values()]
    else:
        texts = [continuation for _, continuation in arguments]
    kept = {metric: sample[metric] for metric in METRICS if metric in sample}
    return {
        **kept,
        "document": sample["doc_hash"],
        "log_likelihoods": [float(one[0][0]) for one in sample["resps"]],
        "lengths": [len(text.removeprefix(" ")) for text in texts],
    }


def _one(options: argparse.Namespace, side: str, name: str, out: str) -> int:
    """Ask one task in this process, and write what was found."""
    from prunebench.evaluation.zeroshot import harness

    began = time.perf_counter()
    model, tokenizer = load(options.model)
    ready, skipped = prepare(load_suite(SUITE), Source(kind="local", root=options.data))
    ready = [entry for entry in ready if entry.task.name == name]
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": Path(folder), "skipped": skipped, "limit": options.limit}
        _, loaded = load_tasks(ready, **given)
        results, _ = harness.run(
            model,
            tokenizer,
            list(loaded.values()),
            device="cpu",
            batch_size=options.batch_size,
            limit=options.limit,
            scoring=side,
        )
    seconds = time.perf_counter() - began
    figures = results["results"][name]
    found = {
        "seconds": seconds,
        "figures": {m: figures[f"{m},none"] for m in METRICS if f"{m},none" in figures},
        "items": [_item(sample) for sample in results["samples"][name]],
    }
    Path(out).write_text(json.dumps(found))
    return 0


def _kept(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    keys = ("seconds", "peak_mib", "figures")
    return {
        "model": options.model.name,
        "weights_sha256": weights_digest(options.model),
        "batch_size": options.batch_size,
        "threads": options.threads,
        "limit": options.limit,
        "tasks": {
            name: {side: {key: one[key] for key in keys} for side, one in sides.items()}
            for name, sides in found.items()
        },
        "provenance": provenance(),
    }


def _options() -> argparse.Namespace:
    models, data = os.environ.get("PRUNEBENCH_MODELS"), os.environ.get("PRUNEBENCH_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(models) / "wikibooks-llama-6m" if models else None
    parser.add_argument("--model", type=Path, default=default, required=default is None)
    parser.add_argument("--data", type=Path, default=data, required=data is None)
    parser.add_argument("--limit", type=int, help="items per task; default: all")
    parser.add_argument("--tasks", nargs="+", help="default: all seven")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder to keep what all sides say in")
    parser.add_argument("--reference", type=Path, help="agreement.json of an earlier run")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data = Path(options.data)
    return options


if __name__ == "__main__":
    sys.exit(main())
