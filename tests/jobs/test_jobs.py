"""Jobs: a cell's way through prune and evaluate, and every way in which one can end badly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import make_tiny
from job_specs import attempt, changed, evaluating, pruning, recovering

from prunebench import jobs
from prunebench.campaign.specs import ProfileSpec
from prunebench.identity import model_identity
from prunebench.jobs import evaluate, profile, prune, recover
from prunebench.jobs.sampling import Sampler
from prunebench.models import folders
from prunebench.plugins.discovery import discover
from prunebench.pruning.surgery import count_parameters

CALIBRATION = {"corpus": "newswire", "samples": 4, "length": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A saved tiny model and a corpus, and the spec that names them."""
    root = tmp_path_factory.mktemp("world")
    (root / "newswire").mkdir()
    text = "\n".join(f"item {i}: something happened somewhere" for i in range(60))
    for split in ("train", "test"):
        (root / "newswire" / f"{split}.txt").write_text(text)
    (root / "alpaca").mkdir()
    records = [
        {"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(40)
    ]
    text = "\n".join(json.dumps(entry) for entry in records)
    (root / "alpaca" / "train.jsonl").write_text(text)
    model = make_tiny(intermediate_size=96)
    folders.save(model, tokenizer, root / "original", uniform=True)
    return pruning(root / "original", root, calibration=CALIBRATION)


PROTOCOL = {"name": "ppl/t", "corpus": "newswire", "split": "test", "length": 32}


def test_calibration_follows_the_cells_seed_unless_the_campaign_fixes_it(world, tokenizer):
    def drawn(cell, **changes):
        spec = changed(world, seed=cell, calibration={**CALIBRATION, **changes})
        return Sampler(spec, make_tiny(), tokenizer)(None, None).tolist()

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0, seed=3) == drawn(1, seed=3) == drawn(3)


def plugin(folder, code, name="toy"):
    place = folder / "plugins" / name
    place.mkdir(parents=True)
    (place / "method.yaml").write_text(f"name: {name}\nsummary: Made by a test.\nkind: method\n")
    (place / "method.py").write_text(code)
    return {"plugins": [str(folder / "plugins")], "method": name, "params": {}}


def test_a_cell_from_model_to_perplexity(world, tmp_path):
    pruned = attempt(prune.prune, world, tmp_path / "prune.json")
    assert pruned["status"] == "ok", pruned["reason"]
    assert pruned["sparsity"]["within_tolerance"] and pruned["verify"]["passed"]
    assert pruned["verify"]["masked_minus_dense"] > 0
    model, _ = folders.load(tmp_path / "model")
    assert count_parameters(model) == pruned["model"]["parameters"]
    assert pruned["model"]["weights_sha256"] == folders.weights_digest(tmp_path / "model")
    figures = attempt(
        evaluate.evaluate, evaluating(world, PROTOCOL), tmp_path / "e.json", tmp_path / "prune.json"
    )
    assert figures["perplexity"]["ppl/t:newswire-test@32"]["value"] > 1
    assert figures["zeroshot"]["status"] == "skipped"
    assert {p.name for p in tmp_path.iterdir()} == {
        "prune.json", "e.json", "model", "decision.json.gz",
    }  # fmt: skip


TUNING = {"instructions": "alpaca", "tokens": 6000, "batch": 8, "micro_batch": 8, "length": 256}


def test_a_cell_from_gradients_to_recovery_and_profile(world, tmp_path):
    """Scored on calibration text, tuned on the budget, measured beside the dense model."""
    params = discover()["llm_pruner"].params({"protect_last": 1}, where="test")
    spec = changed(world, method="llm_pruner", params=params)
    pruned = attempt(prune.prune, spec, tmp_path / "pruned" / "prune.json")
    assert pruned["status"] == "ok", pruned["reason"]
    assert pruned["calibration"][0]["bos"] == "text" and pruned["cost"]["backward_tokens"] == 4 * 16
    before = folders.weights_digest(tmp_path / "pruned" / "model")
    spec = recovering(world, TUNING)
    stage = tmp_path / "pruned" / "prune.json"
    tuned = attempt(recover.recover, spec, tmp_path / "tuned" / "recover.json", stage)
    assert tuned["status"] == "ok", tuned["reason"]
    assert 5000 < tuned["tuning"]["tuning_tokens"] == tuned["cost"]["backward_tokens"] <= 6000
    assert tuned["tuning"]["merge_max_abs_logit_difference"] < 1e-4
    assert tuned["model"]["parameters"] == pruned["model"]["parameters"]
    assert tuned["model"]["weights_sha256"] != before
    assert (
        count_parameters(folders.load(tmp_path / "tuned" / "model")[0])
        < pruned["model"]["parameters_dense"]
    )
    points = {"points": [{"batch": 1, "prompt": 8, "new": 2}], "repeats": 6}
    spec = ProfileSpec.model_validate({"model": world.model, "profile": points})
    measured = attempt(profile.profile, spec, tmp_path / "profile.json", stage)
    (found,) = measured["models"].values()
    (point,) = found["points"]
    assert point["prefill_ms"]["n"] >= 6 and point["prefill_speedup"]["ratio"] > 0


def test_the_same_seed_gives_the_same_decision_and_another_one_another(world, tmp_path):
    kept = []
    for run, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(run) / "prune.json"
        assert attempt(prune.prune, changed(world, seed=seed), out)["status"] == "ok"
        kept.append(folders.describe(out.parent / "model")["decision"]["keep"])
    assert kept[0] == kept[1] != kept[2]


def test_a_matched_control_keeps_as_many_units_of_each_structure(world, tmp_path):
    """Ranked globally by norm, then the same counts at random: another choice, the same profile."""
    from prunebench.plugins.discovery import discover

    params = discover()["magnitude"].params({"scope": "global", "protect_last": 1}, where="test")
    spec = changed(world, method="magnitude", params=params)
    target = attempt(prune.prune, spec, tmp_path / "target" / "prune.json")
    assert target["status"] == "ok", target["reason"]
    stage = tmp_path / "target" / "prune.json"
    result = attempt(prune.prune, world, tmp_path / "control" / "prune.json", stage)
    assert result["status"] == "ok", result["reason"]
    assert result["decision"] == target["decision"]
    assert len({s["kept"] for s in result["decision"].values() if s["kind"] == "neurons"}) > 1
    assert result["sparsity"]["achieved"] == target["sparsity"]["achieved"]
    kept = [
        folders.describe(tmp_path / name / "model")["decision"]["keep"]
        for name in ("target", "control")
    ]
    assert kept[0] != kept[1] and kept[0].keys() == kept[1].keys()
    alone = attempt(prune.prune, world, tmp_path / "alone" / "prune.json")
    assert alone["decision"] != target["decision"]


def test_a_matched_control_of_a_failed_row_says_why(world, tmp_path):
    (tmp_path / "target.json").write_text('{"status": "failed", "reason": "out of memory"}')
    result = attempt(prune.prune, world, tmp_path / "p.json", tmp_path / "target.json")
    assert result["status"] == "failed"
    assert result["reason"] == "the row that it is matched to has no decision: out of memory"


def test_a_method_that_scores_other_structures_cannot_be_matched(world, tmp_path):
    code = "import torch\ndef prune(m, c): return c.select({'layers.1.neurons': torch.rand(96)})"
    attempt(prune.prune, changed(world, sparsity=0.1), tmp_path / "target" / "prune.json")
    spec = changed(world, **plugin(tmp_path, code))
    stage = tmp_path / "target" / "prune.json"
    result = attempt(prune.prune, spec, tmp_path / "control" / "prune.json", stage)
    assert (
        result["status"] == "failed"
        and "loses units in the row that this one is matched to" in result["reason"]
    )


BAD_METHODS = {
    "raises": ("def prune(m, c): raise KeyError('lost')", "failed", "KeyError: 'lost'"),
    "returns nothing": ("def prune(m, c): pass", "failed", "returned NoneType, not a Decision"),
    "empties a structure": (
        "from prunebench.pruning.structure import Decision\n"
        "def prune(m, c): return Decision({'layers.0.heads': ()})",
        "failed",
        "the last unit of a structure must stay",
    ),
    "breaks weights": (
        "from prunebench.pruning.structure import Decision\n"
        "def prune(m, c):\n    m.lm_head.weight.data[0, 0] = float('inf')\n    return Decision({})",
        "failed",
        "not finite in lm_head.weight",
    ),
    "is out of memory": (
        "import torch\ndef prune(m, c): raise torch.OutOfMemoryError('tried to allocate 9 GiB')",
        "failed",
        "out of memory: tried to allocate 9 GiB",
    ),
    "says no": (
        "from prunebench.errors import Unsupported\n"
        "def prune(m, c): raise Unsupported('needs a GPU')",
        "skipped",
        "needs a GPU",
    ),
    "wants too much text": (
        "def prune(m, c): c.calibration(999, 999)",
        "failed",
        "windows of 999 tokens, but the model has only",
    ),
    "wants tuning data": (
        "def prune(m, c): c.recovery()",
        "failed",
        "add `recovery` to the campaign",
    ),
}


@pytest.mark.parametrize("name", BAD_METHODS)
def test_a_bad_method_is_a_row_with_its_reason(world, tmp_path, name):
    code, status, reason = BAD_METHODS[name]
    result = attempt(
        prune.prune, changed(world, **plugin(tmp_path, code)), tmp_path / "c" / "p.json"
    )
    assert result["status"] == status and reason in result["reason"]
    assert "\n" not in result["reason"]
    assert not (tmp_path / "c" / "model").exists()


def test_surgery_that_is_not_exact_fails_the_cell(world, tmp_path, monkeypatch):
    monkeypatch.setattr("prunebench.pruning.surgery._shrink", lambda *_: None)
    monkeypatch.setattr("prunebench.pruning.surgery.refresh", lambda _: True)
    result = attempt(prune.prune, world, tmp_path / "prune.json")
    assert result["status"] == "failed"
    assert "the sliced model differs from the masked one by" in result["reason"]


def test_an_earlier_failure_is_passed_on(world, tmp_path):
    (tmp_path / "prune.json").write_text('{"status": "skipped", "reason": "too wide"}')
    spec = evaluating(world)
    result = attempt(evaluate.evaluate, spec, tmp_path / "e.json", tmp_path / "prune.json")
    assert (result["status"], result["reason"]) == ("skipped", "too wide")
    assert result["spec"] == spec.model_dump(mode="json")


def test_one_part_that_cannot_be_had_does_not_hide_the_others(world, tmp_path):
    attempt(prune.prune, world, tmp_path / "prune.json")
    spec = evaluating(world, PROTOCOL, {**PROTOCOL, "length": 999})
    result = attempt(evaluate.evaluate, spec, tmp_path / "e.json", tmp_path / "prune.json")
    short, long = result["perplexity"].values()
    assert short["status"] == "ok" and long["status"] == "failed"
    assert "the model has only 256 positions" in long["reason"]


def run_prune(world, out, **options):
    jobs.run("prune", world.model_dump_json(), [], out, device="cpu", threads=1, **options)
    return json.loads(out.read_text())


def test_a_killed_job_is_a_failed_row(world, tmp_path):
    code = "import os, signal\ndef prune(m, c): os.kill(os.getpid(), signal.SIGKILL)"
    result = run_prune(changed(world, **plugin(tmp_path, code)), tmp_path / "prune.json")
    assert result["status"] == "failed" and "killed by SIGKILL" in result["reason"]


def test_a_job_whose_work_is_terminated_leaves_no_result(world, tmp_path):
    code = "import os, signal\ndef prune(m, c): os.kill(os.getpid(), signal.SIGTERM)"
    spec = changed(world, **plugin(tmp_path, code))
    with pytest.raises(SystemExit) as caught:
        run_prune(spec, tmp_path / "p.json")
    assert caught.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "p.json").exists()


def test_a_job_that_takes_too_long_is_a_failed_row(world, tmp_path):
    code = "import time\ndef prune(m, c): time.sleep(600)"
    spec = changed(world, **plugin(tmp_path, code))
    result = run_prune(spec, tmp_path / "prune.json", timeout_s=1)
    assert result["status"] == "failed"
    assert result["reason"].startswith("time limit of 1 s exceeded")
    assert result["spec"] == spec.model_dump(mode="json")


def test_a_gpu_that_is_missing_is_a_failed_row(world, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spec = world.model_dump_json()
    jobs.run("prune", spec, [], tmp_path / "p.json", device="cuda", threads=1)
    assert "no GPU is visible" in (tmp_path / "p.json").read_text()


def test_a_job_that_is_stopped_from_outside_leaves_no_result(world, tmp_path):
    code = "import pathlib, time\ndef prune(m, c):\n"
    code += "    (c.workdir / 'started').touch()\n    time.sleep(600)\n"
    spec = changed(world, **plugin(tmp_path, code))
    out = tmp_path / "cell" / "prune.json"
    command = [sys.executable, "-m", "prunebench", "prune", "--spec", spec.model_dump_json()]
    job = subprocess.Popen([*command, "--out", str(out)], env={**os.environ})
    started = out.parent / "prune.work" / "started"
    deadline = time.monotonic() + 120
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert started.exists()
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 128 + signal.SIGTERM
    assert not out.exists()


@pytest.mark.parametrize(
    "error", [TypeError("int is None"), MemoryError("no more"), RuntimeError("out of memory")]
)
def test_an_error_from_elsewhere_in_one_part_keeps_what_was_measured(
    world, tmp_path, monkeypatch, error
):
    """As lm-eval's TypeError for a tokenizer that it did not expect, or a lack of memory."""
    attempt(prune.prune, world, tmp_path / "prune.json")

    def broken(*_, **__):
        raise error

    monkeypatch.setattr("prunebench.evaluation.zeroshot.evaluate", broken)
    spec = evaluating(world, PROTOCOL, zeroshot={"suite": "zeroshot/demo7"})
    figures = attempt(evaluate.evaluate, spec, tmp_path / "e.json", tmp_path / "prune.json")
    assert figures["status"] == "ok"
    assert figures["perplexity"]["ppl/t:newswire-test@32"]["value"] > 1
    assert figures["zeroshot"]["status"] == "failed" and str(error) in figures["zeroshot"]["reason"]


def test_one_perplexity_that_fails_keeps_the_other(world, tmp_path, monkeypatch):
    attempt(prune.prune, world, tmp_path / "prune.json")
    real = evaluate.perplexity

    def broken(model, tokenizer, rows, protocol):
        if protocol.length == 16:
            raise KeyError("gone")
        return real(model, tokenizer, rows, protocol)

    monkeypatch.setattr(evaluate, "perplexity", broken)
    spec = evaluating(world, PROTOCOL, {**PROTOCOL, "length": 16})
    figures = attempt(evaluate.evaluate, spec, tmp_path / "e.json", tmp_path / "prune.json")
    parts = figures["perplexity"]
    assert parts["ppl/t:newswire-test@32"]["status"] == "ok"
    assert parts["ppl/t:newswire-test@16"] == {"status": "failed", "reason": "KeyError: 'gone'"}


def test_an_evaluation_says_how_the_model_ran(world, tmp_path):
    attempt(prune.prune, world, tmp_path / "prune.json")
    spec = evaluating(world, PROTOCOL)
    figures = attempt(evaluate.evaluate, spec, tmp_path / "e.json", tmp_path / "prune.json")
    (part,) = figures["perplexity"].values()
    assert (part["dtype"], part["attention"], part["batch_size"]) == ("float32", "sdpa", 128)


def test_gemma_is_measured_with_bos_and_warned_of_without(world, tmp_path, tokenizer):
    model = make_tiny("gemma")
    folders.save(model, tokenizer, tmp_path / "gemma", uniform=True)
    entry = {"name": "t", "kind": "local", "source": str(tmp_path / "gemma")}
    llm_pruner = discover()["llm_pruner"]
    params = {"method": "llm_pruner", "params": llm_pruner.params({"protect_last": 1}, where="t")}
    for bos in ("auto", "text"):
        calibration = {**CALIBRATION, "bos": bos}
        spec = changed(world, model=entry, calibration=calibration, **params)
        out = tmp_path / bos
        pruned = attempt(prune.prune, spec, out / "prune.json")
        assert pruned["status"] == "ok", pruned["reason"]
        evaluation = evaluating(spec, {**PROTOCOL, "bos": bos})
        figures = attempt(evaluate.evaluate, evaluation, out / "e.json", out / "prune.json")
        (key,) = figures["perplexity"]
        drawn = pruned["calibration"][0]
        if bos == "auto":
            assert key.endswith("@32+bos") and drawn["bos"] == "window"
            assert figures["notes"] == [] and drawn["warning"] is None
        else:
            assert key.endswith("@32") and "relies on" in figures["notes"][0]
            assert "relies on" in drawn["warning"]


def test_a_model_that_was_changed_after_planning_is_not_pruned(world, tmp_path, tokenizer):
    folders.save(make_tiny(), tokenizer, tmp_path / "m", uniform=True)
    identity = model_identity(tmp_path / "m")
    entry = {"name": "t", "kind": "local", "source": str(tmp_path / "m"), "identity": identity}
    spec = changed(world, model=entry)
    pruned = attempt(prune.prune, spec, tmp_path / "a" / "prune.json")
    assert pruned["status"] == "ok", pruned["reason"]
    assert pruned["model"]["original_weights_sha256"] == identity["weights_sha256"]
    folders.save(make_tiny(seed=1), tokenizer, tmp_path / "m", uniform=True)
    later = attempt(prune.prune, spec, tmp_path / "b" / "prune.json")
    assert later["status"] == "failed"
    assert "was changed after the campaign was planned (weights_sha256)" in later["reason"]


def test_a_checkpoint_with_nan_is_not_blamed_on_the_method(world, tmp_path, tokenizer):
    model = make_tiny()
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    entry = {"name": "t", "kind": "local", "source": str(tmp_path / "m")}
    pruned = attempt(prune.prune, changed(world, model=entry), tmp_path / "a" / "prune.json")
    assert pruned["status"] == "failed" and "dense" not in pruned["reason"]
    assert "the checkpoint is not finite: model.norm.weight" in pruned["reason"]


def test_a_jobs_time_counts_from_when_it_was_asked_for(world, tmp_path, monkeypatch):
    """On the clock that processes share: a process's start is known to the second only."""
    out = tmp_path / "prune.json"
    monkeypatch.setenv(jobs.STARTED, repr(time.monotonic() - 1000))
    given = ["prune", "--spec", world.model_dump_json(), "--out", str(out), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", given)
    prune.main()
    found = json.loads(out.read_text())
    assert found["status"] == "ok", found["reason"]
    assert 1000 <= found["timing"]["job_s"] < 2000


def test_generated_answers_and_continued_prompts_are_parts_of_their_own(world, tmp_path):
    """With examples from a file beside the questions; items go to a file of their own."""
    root = tmp_path / "data"
    (root / "zeroshot").mkdir(parents=True)
    for file, count in (("triviaqa", 5), ("triviaqa.train", 6)):
        lines = [
            json.dumps({"question": f"Who is {i}", "answer": {"aliases": [f"number {i}"]}})
            for i in range(count)
        ]
        (root / "zeroshot" / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "name: mine\nsummary: one task\ntasks:\n"
        "  - {stock: triviaqa, metric: exact_match, shots: 2, max_new_tokens: 6}\n"
    )
    there = changed(world, data={"source": "local", "root": str(root)})
    attempt(prune.prune, world, tmp_path / "prune.json")
    spec = evaluating(
        there,
        generation={"suite": str(suite), "limit": 4},
        texts={"prompts": ["item 3:", "so"], "tokens": 5},
    )
    found = attempt(evaluate.evaluate, spec, tmp_path / "e.json", tmp_path / "prune.json")
    task = found["generation"]["tasks"]["triviaqa"]
    assert (task["items"], task["shots"]) == (4, 2)
    assert task["prompt"].count("Question: Who is") == 3
    assert len(task["generated"]["samples"]) == 3
    assert found["generation"]["items_file"] == "generation-items.json.gz"
    assert (tmp_path / "generation-items.json.gz").is_file()
    assert [text["prompt"] for text in found["texts"]["texts"]] == ["item 3:", "so"]
    too_long = evaluating(there, texts={"prompts": ["a"], "tokens": 10_000})
    found = attempt(evaluate.evaluate, too_long, tmp_path / "f.json", tmp_path / "prune.json")
    assert found["texts"]["status"] == "skipped" and "positions" in found["texts"]["reason"]
