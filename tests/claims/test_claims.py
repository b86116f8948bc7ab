"""The claims command on a CPU at a tiny shape: parts, records, the table, and every bad end."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import REPOSITORY

from prunebench import claims
from prunebench.campaign.config import build
from prunebench.campaign.parts import ClaimEntry
from prunebench.claims import parts
from prunebench.claims.table import Figure, check_claims, verdict
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
    "max_position_embeddings": 64,
}
POINTS = [{"batch": 1, "prompt": 8, "new": 0}, {"batch": 2, "prompt": 8, "new": 2}]


def small() -> dict:
    """The campaign of the 7B shape with every size cut down, its claims pointing to those."""
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
    raw["claims"] = [_shrunk(c) for c in raw["claims"] if _stays(c, kept)]
    return raw


def _stays(claim: dict, kept: tuple[str, ...]) -> bool:
    names = {claim["of"], claim.get("to", claim["of"])}
    return names <= {*kept, "hidden-width", "llm_pruner"}


def _shrunk(claim: dict) -> dict:
    if "point" not in claim:
        return claim
    decode = claim["figure"].startswith("decode")
    return {**claim, "sparsity": 0.25, "point": "b2-p8-n2" if decode else "b1-p8-n0"}


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
    paths = sorted(out.glob("cells/*/*/*/*/record.json"))
    assert [p.parts[-4] for p in paths] == ["dense", "hidden-width", "llm_pruner"]
    for path in paths:
        found = store.as_mapping(store.read(path))
        assert found["status"] == "ok", found["reason"]
        assert found["zeroshot"] == {"status": "skipped", "reason": "random weights"}
        prefill, both = found["profile"]["points"]
        limit = prefill["prefill_speedup"]["limit"]
        assert limit == 1.0 if found["cell"]["method"] == "dense" else 1.15 < limit < 1.5
        assert both["decode_ms_per_token"]["n"] == 6
        assert found["verify"]["passed"] and found["export"]["status"] == "skipped"
    assert not list(out.rglob("*.safetensors"))


def test_steps_have_memory_throughput_and_what_must_be_kept(done):
    out, _ = done
    steps = {p.stem: json.loads(p.read_text()) for p in (out / "steps").glob("*.json")}
    lora, vanilla = steps["lora"], steps["vanilla-fp32"]
    assert lora["floor_mib"] == lora["held_mib"] < lora["peak_allocated_mib"]
    weights = 10 * (4 * 64 * 64 + 3 * 64 * 176) * 4 / 2**20
    assert vanilla["floor_mib"] - vanilla["held_mib"] == pytest.approx(weights)
    assert vanilla["peak_allocated_mib"] > vanilla["floor_mib"]
    assert vanilla["macs"] > lora["macs"] > 0 and lora["tokens"] == 2 * 16
    assert lora["provenance"]["plugin_sha256"] and lora["model"]["source"] == "llama-7b"
    streamed, kept = steps["scoring-streamed"], steps["scoring-kept"]
    assert streamed["peak_allocated_mib"] < kept["peak_allocated_mib"]
    assert steps["lora-8bit"]["status"] == "skipped"


def test_the_table_has_a_line_per_claim_with_limit_and_verdict(done):
    out, ended = done
    lines = json.loads((out / "claims.json").read_text())["claims"]
    assert len(lines) == len(small()["claims"]) >= 10
    by_name = {line["claim"]: line for line in lines}
    eight = next(line for line in lines if line["of"] == "lora-8bit")
    assert eight["verdict"].startswith("not measured: loraprune: bits: 8 needs a CUDA device")
    width = by_name["25 % narrower, time to first token, batch 64"]
    assert width["low"] <= width["value"] <= width["high"] and 1.2 < width["limit"] < 1.4
    assert {"reached", "not reached", "measured"} >= {
        line["verdict"].partition(";")[0] for line in lines if line["value"] is not None
    }
    assert (out / "claims.md").read_text() in ended.stdout
    assert "| Claim" in ended.stdout and "cpu: " in ended.stdout


def test_a_second_run_keeps_what_is_done_and_repeats_what_failed(done, tmp_path, monkeypatch):
    out, _ = done
    file = out.parent / "small.yaml"
    step = out / "steps" / "lora.json"
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.json") if p.name != "record.json"}
    step.write_text(json.dumps({"status": "failed", "reason": "planted"}))
    made = []
    attempt = parts._attempt
    monkeypatch.setattr(
        parts, "_attempt", lambda j, s, p, *r: made.append(p) or attempt(j, s, p, *r)
    )
    claims.run(file, out, device="cpu")
    assert [io.out for io in made] == [step] and json.loads(step.read_text())["status"] == "ok"
    changed = {p for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed == {step, out / "claims.json"}


def test_results_of_another_campaign_are_not_mixed_in(done):
    out, _ = done
    other = out.parent / "other.yaml"
    other.write_text(yaml.safe_dump({**small(), "seeds": [1]}))
    with pytest.raises(Invalid, match="holds results of another campaign file"):
        claims.run(other, out, device="cpu")


def test_out_of_memory_in_one_part_is_its_reason_and_the_others_run(tmp_path, monkeypatch, capsys):
    raw = small()
    raw["methods"], raw["profile"] = ["random"], None
    raw["claims"] = [c for c in raw["claims"] if c.get("to") == "scoring-kept"]
    raw["steps"]["rows"] = [r for r in raw["steps"]["rows"] if r["label"].startswith("scoring")]
    raw["sparsities"] = [0.25]
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(raw))

    def exhausted(step, device, *, rounds):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("prunebench.profiling.steps.measure_step", exhausted)
    arguments = ["claims", "--config", str(file), "--out", str(tmp_path / "o"), "--device", "cpu"]
    assert main(arguments) == 0
    step = json.loads((tmp_path / "o" / "steps" / "scoring-kept.json").read_text())
    assert step["status"] == "failed" and step["reason"].startswith("out of memory: CUDA out of")
    found = store.as_mapping(
        store.read(tmp_path / "o/cells/llama-7b/random/0.25/seed0/record.json")
    )
    assert found["status"] == "ok"
    assert "not measured: out of memory" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_part_is_measured(tmp_path):
    raw = small()
    raw["models"][0]["dtype"] = "bfloat16"
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(raw))
    claims.run(file, tmp_path / "o", device="cuda")
    for path in (tmp_path / "o").glob("cells/*/*/*/*/record.json"):
        found = store.as_mapping(store.read(path))
        assert found["status"] == "ok", found["reason"]
        assert found["profile"]["decode"] == "CUDA graph"
        assert {p.get("reason") for p in found["profile"]["points"]} == {None}
        assert found["cost"]["prune"]["peak_device_mib"] > 0
    lines = json.loads((tmp_path / "o" / "claims.json").read_text())["claims"]
    missing = [line["reason"] for line in lines if line["reason"]]
    assert all("bitsandbytes" in reason for reason in missing)


BAD = {
    "two models": (
        lambda raw: raw["models"].append({"name": "b", "kind": "random", "shape": "llama-7b"}),
        "steps and claims are for one model",
    ),
    "unknown method": (
        lambda raw: raw["steps"]["rows"][0].update(method="magic"),
        r"steps.rows\[0\].method: unknown method 'magic'",
    ),
    "unknown step": (lambda raw: raw["claims"][0].update(to="nothing"), r"claims\[0\].to: names"),
    "unknown row": (
        lambda raw: raw["claims"][-1].update(sparsity=0.9),
        r"claims\[\d+\].of, sparsity: names",
    ),
    "unknown point": (lambda raw: raw["claims"][-1].update(point="b9"), r"\.point: names nothing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_claim_that_names_nothing_is_refused(name):
    change, message = BAD[name]
    raw = small()
    change(raw)
    with pytest.raises(Invalid, match=message):
        check_claims(build(raw, file="small.yaml"))


def test_the_campaign_of_the_7b_shape_is_consistent():
    check_claims(build(read_yaml(FILE), file=str(FILE)))


SPEEDUP = {"figure": "prefill_speedup", "published": 1.33, "at_least": 1.3}
MEMORY = {"figure": "memory_ratio", "published": 0.474, "at_most": 0.474}


@pytest.mark.parametrize(
    ("claim", "figure", "expected"),
    [
        (SPEEDUP, Figure(1.31, limit=1.332), "reached"),
        (SPEEDUP, Figure(1.29, limit=1.332), "not reached"),
        (
            SPEEDUP,
            Figure(1.24, limit=1.25),
            "not reached; the published figure is beyond the limit",
        ),
        (MEMORY, Figure(0.44, limit=0.33), "reached"),
        (MEMORY, Figure(0.52, limit=0.5), "not reached; the published figure is beyond the limit"),
        ({**SPEEDUP, "published": None}, Figure(1.4, limit=1.332), "reached"),
        ({"figure": "decode_speedup", "published": None}, Figure(1.1), "measured"),
        (SPEEDUP, Figure(reason="no GPU"), "not measured: no GPU"),
    ],
)
def test_verdicts(claim, figure, expected):
    entry = ClaimEntry.model_validate({"claim": "c", "source": "s", "of": "a", **claim})
    assert verdict(entry, figure) == expected


def test_what_measuring_needs_is_all_that_it_imports(tmp_path):
    """A machine that only measures has no scheduler, no harness and no data sets."""
    file = tmp_path / "small.yaml"
    raw = small()
    raw["methods"], raw["profile"], raw["steps"], raw["claims"] = [], None, None, []
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
    found = store.as_mapping(
        store.read(tmp_path / "o/cells/llama-7b/random/0.25/seed0/record.json")
    )
    assert found["status"] == "ok", found["reason"]
