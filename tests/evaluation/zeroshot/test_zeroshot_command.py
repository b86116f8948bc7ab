"""Our accuracies equal those of lm-eval's own command line, to the last digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunebench.evaluation.zeroshot import evaluate, load_suite
from prunebench.evaluation.zeroshot.suites import Suite
from prunebench.evaluation.zeroshot.tasks import prepare, write_definitions
from prunebench.models import folders
from prunebench.text.source import Source

LIMIT, BATCH_SIZE = 50, 16


@pytest.mark.timeout(900)
def test_openbookqa_equals_the_command_line(
    shared_data: Path, shared_models: Path, tmp_path: Path
) -> None:
    path = shared_models / "stories260k"
    root = tmp_path / "data" / "zeroshot"
    root.mkdir(parents=True)
    (root / "openbookqa.jsonl").symlink_to(shared_data / "zeroshot" / "openbookqa.jsonl")
    source = Source(kind="local", root=root.parent)

    task = next(task for task in load_suite("zeroshot/7").tasks if task.name == "openbookqa")
    ready, _ = prepare(Suite("one", "", (task,)), source)
    definitions = tmp_path / "definitions"
    definitions.mkdir()
    write_definitions(ready, definitions)
    subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", "openbookqa"]
        + ["--model_args", f"pretrained={path},dtype=float32", "--device", "cpu"]
        + ["--batch_size", str(BATCH_SIZE), "--limit", str(LIMIT)]
        + ["--include_path", str(definitions), "--output_path", str(tmp_path / "theirs.json")],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
    )
    (written,) = tmp_path.glob("theirs*.json")
    theirs = json.loads(written.read_text())["results"]["openbookqa"]

    model, tokenizer = folders.load(path)
    ours = evaluate(
        model,
        tokenizer,
        suite="zeroshot/7",
        source=source,
        batch_size=BATCH_SIZE,
        limit=LIMIT,
        workdir=tmp_path,
    )["tasks"]["openbookqa"]
    assert ours["items"] == LIMIT
    assert ours["acc"] == theirs["acc,none"]
    assert ours["acc_norm"] == theirs["acc_norm,none"] == ours["value"]
    assert ours["stderr"] == theirs["acc_norm_stderr,none"]
    assert 0 < ours["acc_norm"] < 1
