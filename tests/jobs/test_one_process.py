"""The claims command on a CPU at a tiny shape: parts, records, the table, and every bad end."""

from __future__ import annotations

import copy
import csv
import json
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import REPOSITORY

from prunebench import one_process
from prunebench.campaign.config import build
from prunebench.cli import main
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.record import store

FILE = REPOSITORY / "config" / "h100.yaml"
SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 256,
}
POINTS = [{"batch": 8, "prompt": 128, "new": 0}, {"batch": 2, "prompt": 8, "new": 2}]


def small() -> dict:
    """The campaign of the 7B shape with every size cut down."""
    raw = copy.deepcopy(read_yaml(FILE))
    raw["models"][0] |= {"overrides": SMALL, "dtype": "float32"}
    raw["calibration"] |= {"samples": 2, "length": 16}
    raw["profile"] |= {"points": POINTS, "repeats": 6}
    raw["methods"] = [m for m in raw["methods"] if m.get("label") != "loraprune-layers"]
    for entry in raw["methods"]:
        entry.pop("multiple_of")
        entry["sparsities"] = [0.25]
    raw["steps"] |= {"micro_batches": 2, "length": 16, "rounds": 1}
    kept = ("lora", "lora-8bit", "vanilla-fp32", "scoring-streamed", "scoring-kept")
    raw["steps"]["rows"] = [r for r in raw["steps"]["rows"] if r["label"] in kept]
    for row in raw["steps"]["rows"]:
        row.pop("length", None)
        if row["method"] == "llm_pruner":  # so few that gradients outweigh activations
            row |= {"length": 4, "micro_batches": 1}
    return raw


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The command's folder after a whole run, and what it printed."""
    place = tmp_path_factory.mktemp("claims")
    file = place / "small.yaml"
    file.write_text(yaml.safe_dump(small()))
    command = [sys.executable, "-m", "prunebench.cli", "claims", "--config", str(file)]
    command += ["--out", str(place / "out"), "--device", "cpu"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    return place / "out", ended


def test_every_cell_is_a_valid_record_with_its_speedups(done):
    out, _ = done
    paths = sorted(out.glob("cells/*/*/*/*/profile.json")) + sorted(
        out.glob("cells/*/*/*/*/prune.json")
    )
    assert [p.parts[-4] for p in paths] == ["dense", "hidden-width", "llm_pruner"]
    for path in paths:
        found = store.as_mapping(store.read(path.with_name("record.json")))
        assert found["status"] == "ok", found["reason"]
        assert found["zeroshot"] == {"status": "skipped", "reason": "random weights"}
        prefill, both = found["profile"]["points"]
        limit = prefill["prefill_speedup"]["limit"]
        assert limit == 1.0 if found["cell"]["method"] == "dense" else 1.15 < limit < 1.5
        assert both["decode_ms_per_token"]["n"] == 6
        assert found["verify"]["passed"] and found["export"]["status"] == "skipped"
    assert not list(out.rglob("*.safetensors"))


def step_of(out, label):
    return store.read(out / "cells" / "llama-7b" / label / "0" / "seed0" / "record.json")


def test_steps_are_records_with_memory_throughput_and_what_must_be_kept(done):
    out, _ = done
    lora, vanilla = step_of(out, "lora").step, step_of(out, "vanilla-fp32").step
    assert lora.floor_mib == lora.held_mib < lora.peak_allocated_mib
    weights = 10 * (4 * 64 * 64 + 3 * 64 * 176) * 4 / 2**20
    assert vanilla.floor_mib - vanilla.held_mib == pytest.approx(weights)
    assert vanilla.peak_allocated_mib > vanilla.floor_mib
    assert vanilla.macs > lora.macs > 0 and lora.tokens == 2 * 16
    record = step_of(out, "lora")
    assert record.cell.step and record.cell.params == {"criterion": "lora", "bits": 16}
    assert record.provenance.plugin_sha256 and record.model.source == "llama-7b"
    assert record.perplexity.reason == "a single step was measured"
    streamed, kept = step_of(out, "scoring-streamed").step, step_of(out, "scoring-kept").step
    assert streamed.peak_allocated_mib < kept.peak_allocated_mib
    missing = step_of(out, "lora-8bit")
    assert missing.status == "skipped" and "bits: 8 needs a CUDA device" in missing.reason


def judged(out):
    lines = csv.DictReader((out / "paper_vs_measured.csv").open(encoding="utf-8"))
    return [line for line in lines if line["what"] == "claim"]


def test_claims_are_judged_where_all_claims_are(done):
    out, ended = done
    memory = [c for c in judged(out) if "memory" in c["note"]]
    (lora,) = [c for c in memory if c["row"] == "lora"]
    assert lora["against"] == "vanilla-fp32" and lora["verdict"] == "holds"
    first, other = step_of(out, "lora").step, step_of(out, "vanilla-fp32").step
    ratio = first.peak_allocated_mib / other.peak_allocated_mib
    assert float(lora["size"]) == pytest.approx((ratio - 1) / (0.474 - 1))
    limit = first.floor_mib / other.floor_mib
    assert f"no more than {limit:.3f} x is possible here" in lora["reason"]
    (eight,) = [c for c in memory if "8-bit" in c["note"]]
    assert eight["verdict"] == "not comparable" and "no row of loraprune" in eight["reason"]
    (width,) = [c for c in judged(out) if c["row"] == "hidden-width" and c["sparsity"] == "0.25"]
    point = store.read(record_of(out, "hidden-width")).profile.points[0]
    assert float(width["measured"]) == pytest.approx(point.prefill_speedup.ratio)
    page = (out / "paper_vs_measured.md").read_text()
    assert page in ended.stdout and "hidden-width" in page
    assert "### Single steps of 2 x 16" in (out / "leaderboard.md").read_text()


def record_of(out, label, sparsity="0.25"):
    return out / "cells" / "llama-7b" / label / sparsity / "seed0" / "record.json"


def test_a_second_run_keeps_what_is_done_and_repeats_what_failed(done, tmp_path, monkeypatch):
    out, _ = done
    file = out.parent / "small.yaml"
    step = out / "cells" / "llama-7b" / "lora" / "0" / "seed0" / "step.json"
    names = ("step.json", "prune.json", "evaluate.json")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.json") if p.name in names}
    step.write_text(json.dumps({"status": "failed", "reason": "planted"}))
    made = []
    attempt = one_process._attempt
    monkeypatch.setattr(
        one_process, "_attempt", lambda j, s, p, *r: made.append(p) or attempt(j, s, p, *r)
    )
    one_process.run(file, out, device="cpu")
    assert [io.out for io in made] == [step] and json.loads(step.read_text())["status"] == "ok"
    changed = {p for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {step}


def test_results_of_another_campaign_are_not_mixed_in(done):
    out, _ = done
    other = out.parent / "other.yaml"
    other.write_text(yaml.safe_dump({**small(), "seeds": [1]}))
    with pytest.raises(Invalid, match="holds results of another campaign file"):
        one_process.run(other, out, device="cpu")


def test_out_of_memory_in_one_part_is_its_reason_and_the_others_run(tmp_path, monkeypatch, capsys):
    raw = small()
    raw["methods"], raw["profile"] = ["random"], None
    raw["steps"]["rows"] = [r for r in raw["steps"]["rows"] if r["label"].startswith("scoring")]
    raw["sparsities"] = [0.25]
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(raw))

    def exhausted(step, device, *, rounds):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("prunebench.jobs.step.measure_step", exhausted)
    arguments = ["claims", "--config", str(file), "--out", str(tmp_path / "o"), "--device", "cpu"]
    assert main(arguments) == 0
    found = step_of(tmp_path / "o", "scoring-kept")
    assert found.status == "failed" and found.reason.startswith("out of memory: CUDA out of")
    found = store.as_mapping(
        store.read(tmp_path / "o/cells/llama-7b/random/0.25/seed0/record.json")
    )
    assert found["status"] == "ok"
    assert "out of memory" in (tmp_path / "o" / "failures.md").read_text()
    assert "# Paper against measured" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_part_is_measured(tmp_path):
    raw = small()
    raw["models"][0]["dtype"] = "bfloat16"
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(raw))
    one_process.run(file, tmp_path / "o", device="cuda")
    for path in (tmp_path / "o").glob("cells/*/*/*/*/record.json"):
        found = store.as_mapping(store.read(path))
        assert found["status"] == "ok", found["reason"]
        assert found["profile"]["decode"] == "CUDA graph"
        assert {p.get("reason") for p in found["profile"]["points"]} == {None}
        assert found["cost"]["prune"]["peak_device_mib"] > 0


BAD = {
    "unknown method": (
        lambda raw: raw["steps"]["rows"][0].update(method="magic"),
        r"steps.rows\[0\].method: unknown method 'magic'",
    ),
    "label taken": (
        lambda raw: raw["steps"]["rows"][0].update(label="llm_pruner"),
        r"steps.rows\[0\].label: 'llm_pruner' is already taken",
    ),
    "unknown paper": (
        lambda raw: raw.update(papers=["pta"]),
        r"papers\[0\]: unknown method 'pta'; known: ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_step_or_a_paper_that_nobody_knows_is_refused(name):
    change, message = BAD[name]
    raw = small()
    change(raw)
    with pytest.raises(Invalid, match=message):
        build(raw, file="small.yaml")


def test_an_option_that_a_step_has_not_is_its_reason(tmp_path):
    raw = small() | {"methods": ["random"], "profile": None, "sparsities": [0.25]}
    raw["steps"]["rows"] = [{"label": "lora", "method": "loraprune", "params": {"crit": "lora"}}]
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(raw))
    one_process.run(file, tmp_path / "o", device="cpu")
    assert "loraprune has no option 'crit'" in step_of(tmp_path / "o", "lora").reason


def test_what_measuring_needs_is_all_that_it_imports(tmp_path):
    """A machine that only measures has no scheduler, no harness and no data sets."""
    file = tmp_path / "small.yaml"
    raw = small()
    raw["profile"], raw["steps"], raw["papers"] = None, None, []
    raw["methods"] = [{"name": "random", "sparsities": [0.25]}]
    file.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))
    code = (
        "import sys\n"
        "for name in ('snakemake', 'lm_eval', 'datasets', 'scipy', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from prunebench.cli import main\n"
        f"sys.exit(main(['claims', '--config', {str(file)!r}, '--out', "
        f"{str(tmp_path / 'o')!r}, '--device', 'cpu']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Tables need the package scipy: `prunebench leaderboard" in ended.stdout
    found = store.as_mapping(
        store.read(tmp_path / "o/cells/llama-7b/random/0.25/seed0/record.json")
    )
    assert found["status"] == "ok", found["reason"]
