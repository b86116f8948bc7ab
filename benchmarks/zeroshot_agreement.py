"""Do our zero-shot accuracies equal those of lm-eval's own command line, to the last digit?

    python benchmarks/zeroshot_agreement.py [--model FOLDER] [--data FOLDER] [--limit N]
        [--batch-size 16] [--threads 2] [--keep FOLDER]

Evaluates the seven tasks of zeroshot/7 on local files twice: through
`prunebench.evaluation.zeroshot`, and by `python -m lm_eval run` in a process of its own, with the
same redirecting task files and batch size. Prints both, with the number of items; exit status 1
when any accuracy or standard error differs. Without --limit all items are scored, which takes many
minutes on a few cores. --keep also keeps what both sides say, and in `agreement.json` the figures
of both with their provenance.
Defaults: $PRUNEBENCH_MODELS/wikibooks-llama-6m and $PRUNEBENCH_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from prunebench.evaluation.zeroshot import evaluate, load_suite
from prunebench.evaluation.zeroshot.tasks import prepare, write_definitions
from prunebench.models.folders import load, weights_digest
from prunebench.record.provenance import provenance
from prunebench.text.source import Source
from prunebench.whole import write_json

SUITE = "zeroshot/7"


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        ours = _ours(options, folder)
        middle = time.perf_counter()
        theirs = _theirs(options, folder)
        ended = time.perf_counter()
        write_json(folder / "agreement.json", _both(options, ours, theirs))
    rows, equal = [], True
    for name, task in ours["tasks"].items():
        for metric in ("acc", "acc_norm"):
            if task[metric] is None:
                continue
            reference = theirs["results"][name][f"{metric},none"]
            same = task[metric] == reference
            if metric == task["metric"]:
                same &= task["stderr"] == theirs["results"][name][f"{metric}_stderr,none"]
            equal &= same
            mark = "*" if metric == task["metric"] else ""
            rows.append([name, task["items"], metric + mark, task[metric], reference, same])
    headers = ["task", "items", "metric (* reported)", "prunebench", "lm-eval", "equal"]
    print(tabulate(rows, headers=headers, floatfmt=".16f"))
    print(f"mean {ours['mean']:.16f}, chance {ours['mean_chance']:.4f}, limit {ours['limit']}")
    print(f"prunebench {middle - began:.0f} s, lm-eval {ended - middle:.0f} s")
    return 0 if equal else 1


def _ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    model, tokenizer = load(options.model)
    result = evaluate(
        model,
        tokenizer,
        suite=SUITE,
        source=Source(kind="local", root=options.data),
        batch_size=options.batch_size,
        limit=options.limit,
        workdir=folder,
    )
    (folder / "prunebench.json").write_text(json.dumps(result, indent=1))
    return result


def _theirs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    definitions = folder / "definitions"
    definitions.mkdir(exist_ok=True)
    ready, _ = prepare(load_suite(SUITE), Source(kind="local", root=options.data))
    write_definitions(ready, definitions)
    names = ",".join(entry.task.name for entry in ready)
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", names]
    command += ["--model_args", f"pretrained={options.model},dtype=float32", "--device", "cpu"]
    command += ["--batch_size", str(options.batch_size), "--include_path", str(definitions)]
    command += ["--output_path", str(folder / "lm_eval.json")]
    command += ["--limit", str(options.limit)] if options.limit else []
    threads = {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env={**os.environ, **threads}, check=True, stdout=subprocess.DEVNULL)
    newest = max(folder.glob("lm_eval*.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())


def _both(
    options: argparse.Namespace, ours: dict[str, Any], theirs: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model": options.model.name,
        "weights_sha256": weights_digest(options.model),
        "batch_size": options.batch_size,
        "prunebench": ours,
        "lm_eval": {name: theirs["results"][name] for name in ours["tasks"]},
        "provenance": provenance(),
    }


def _options() -> argparse.Namespace:
    models, data = os.environ.get("PRUNEBENCH_MODELS"), os.environ.get("PRUNEBENCH_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(models) / "wikibooks-llama-6m" if models else None
    parser.add_argument("--model", type=Path, default=default, required=default is None)
    parser.add_argument("--data", type=Path, default=data, required=data is None)
    parser.add_argument("--limit", type=int, help="items per task; default: all")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--keep", type=Path, help="folder to keep both results in")
    options = parser.parse_args()
    options.data = Path(options.data)
    return options


if __name__ == "__main__":
    sys.exit(main())
