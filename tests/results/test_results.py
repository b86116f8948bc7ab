"""Results: jobs' files become records; what is missing says why; failed jobs can be cleared."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from prunebench.campaign import config
from prunebench.campaign.config import Cell
from prunebench.campaign.specs import cell_facts, evaluate_spec, prune_spec, recover_spec
from prunebench.cli import main
from prunebench.evaluation.zeroshot import outcomes
from prunebench.record import store
from prunebench.record.provenance import provenance
from prunebench.record.store import as_mapping
from prunebench.results import assemble, tables
from prunebench.results.gather import gather
from prunebench.results.partners import partners
from prunebench.results.repair import repair

CAMPAIGN = {
    "name": "toy",
    "models": [{"name": "m", "kind": "demo"}],
    "data": {"source": "demo"},
    "methods": ["random"],
    "sparsities": [0.5],
    "calibration": {"corpus": "newswire"},
    "perplexity": [{"name": "ppl/t", "corpora": [{"corpus": "newswire"}], "length": 8}],
    "zeroshot": {"suite": "zeroshot/demo7"},
}
KEY = "ppl/t:newswire-test@8"
PRUNED = {
    "status": "ok",
    "reason": None,
    "model": {
        "family": "llama",
        "kind": "demo",
        "source": "x",
        "revision": None,
        "parameters_dense": 100,
        "parameters": 50,
        "weights_sha256": None,
    },
    "sparsity": {"target": 0.5, "achieved": 0.5, "within_tolerance": True, "note": None},
    "verify": {
        "max_abs_logit_difference": 0.0,
        "masked_minus_dense": 1.0,
        "tolerance": 1e-4,
        "passed": True,
    },
    "export": {"status": "ok", "loadable_by": "transformers", "path": "model"},
    "cost": {"wall_s": 1.0},
    "calibration": [
        {
            "corpus": ["newswire"],
            "split": "train",
            "samples": 2,
            "length": 8,
            "seed": 0,
            "bos": "text",
            "data_sha256": None,
            "warning": None,
        }
    ],  # fmt: skip
    "provenance": provenance(plugin_sha256="ab"),
}
TASK = {"status": "ok", "reason": None, "metric": "acc", "value": 0.5, "items": 4}
EVALUATED = {
    "status": "ok",
    "reason": None,
    "perplexity": {
        KEY: {
            "status": "ok",
            "reason": None,
            "value": 9.0,
            "nll": 2.2,
            "tokens": 70,
            "corpus": "newswire",
            "split": "test",
            "length": 8,
            "limit": None,
            "data_sha256": "cd",
        }
    },
    "zeroshot": {
        "status": "ok",
        "reason": None,
        "suite": "zeroshot/demo7",
        "limit": None,
        "mean": 0.5,
        "harness": {"name": "lm-eval", "version": "0"},
        "tasks": {"demo_boolq": TASK},
    },
    "provenance": provenance(),
}
PATHS = {"dense": "m/dense/0/seed0", "random": "m/random/0.5/seed0"}


def items(answers):
    task = {
        "version": 1,
        "metric": "acc",
        "items": len(answers),
        "chance": 0.5,
        "hashes": {"documents": "d", "prompts": "p", "targets": "t"},
        "acc": answers,
        "acc_norm": None,
    }
    return {
        "schema_version": outcomes.SCHEMA_VERSION,
        "suite": "zeroshot/demo7",
        "limit": None,
        "harness": {"name": "lm-eval", "version": "0"},
        "tasks": {"demo_boolq": task},
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results of two cells that went well, below the working folder."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "results" / "toy"
    for place in PATHS.values():
        (out / "cells" / place).mkdir(parents=True)
        put(out, f"cells/{place}/prune.json", PRUNED)
        put(out, f"cells/{place}/evaluate.json", EVALUATED)
    (out / "campaign.yaml").write_text(yaml.safe_dump(CAMPAIGN))
    share = {"items": 10, "checked": 10, "short": 0, "contaminated": 1, "share": 0.1}
    put(out, "leak.json", {"status": "ok", "calibration": {"sets": {"newswire-test": share}}})
    return out


@pytest.fixture(autouse=True)
def _without_plots(monkeypatch):
    """Static plots take seconds and are tested with the report."""
    monkeypatch.setattr("prunebench.leaderboard.views.plots.plot_files", lambda fronts: iter(()))


def put(out, name, content):
    (out / name).write_text(json.dumps(content))


def build(**changes):
    return config.build({**copy.deepcopy(CAMPAIGN), **changes}, file="toy.yaml")


def assembled(label="random", sparsity=0.5, campaign=None):
    campaign = campaign or build()
    cell = Cell("m", label, sparsity, 0)
    compared = partners(campaign, cell)
    profiled = campaign.profile is not None
    found = gather(campaign.out, cell_facts(campaign, cell), compared, profiled=profiled)
    return assemble.record_from(found, compared)


def spec(make, campaign, cell):
    """A job's spec as its result repeats it."""
    return {"spec": make(campaign, cell).model_dump(mode="json")}


def test_a_record_has_every_part_and_is_valid(folder):
    tables.make_tables(folder)
    found = as_mapping(store.read(folder / "cells" / PATHS["random"] / "record.json"))
    assert found["status"] == "ok"
    assert found["perplexity"][KEY]["value"] == 9.0
    assert found["profile"] == {"status": "skipped", "reason": "the campaign asks for no profile"}
    assert found["provenance"]["plugin_sha256"] == "ab"
    assert found["provenance"]["data_sha256"] == {KEY: "cd"}
    assert tables.failures(folder) == []


def test_a_record_tells_of_decision_notes_and_tuning(folder):
    kept = {"layers.0.heads": {"kind": "heads", "layer": 0, "units": 4, "kept": 2}}
    note = {"plot": "line", "title": "t", "x_label": "x", "y_label": "y", "series": {"a": [[0, 1]]}}
    noted = {**PRUNED, "decision": kept, "method_notes": {"curve": note}}
    put(folder, f"cells/{PATHS['random']}/prune.json", noted)
    tables.make_tables(folder)
    found = as_mapping(store.read(folder / "cells" / PATHS["random"] / "record.json"))
    assert found["decision"] == kept and found["method_notes"] == {"curve": note}
    assert found["tuning"] is None and found["cell"]["matched"] is None


def test_what_it_was_tuned_on_is_in_the_record(folder):
    recovery = {"instructions": "demo", "tokens": 1000}
    built = build(recovery=recovery)
    (folder / "cells/m/random+lora/0.5/seed0").mkdir(parents=True)
    cell = Cell("m", "random+lora", 0.5, 0)
    tuned = {**PRUNED, "tuning": {"steps": 2, "tuning_tokens": 990, "loss": [[1, 2.5], [2, 2.25]]}}
    put(folder, f"cells/{cell.path}/recover.json", tuned | spec(recover_spec, built, cell))
    put(folder, "cells/m/random+lora/0.5/seed0/evaluate.json", EVALUATED)
    found = assembled("random+lora", campaign=built)
    assert found["tuning"] == {"instructions": "demo", "by": "suite", **tuned["tuning"]}
    store.write(folder / "tuned.json", found)
    assert assembled("dense", 0.0, built)["tuning"] is None


def test_leaks_count_only_for_text_that_the_method_was_given(folder):
    found = assembled()["leak"]["sets"]["newswire-test"]
    assert found["share"] == 0.1 and found["same_corpus"]
    blind = {**PRUNED, "calibration": []}
    put(folder, f"cells/{PATHS['random']}/prune.json", blind)
    assert assembled()["leak"] is None


def test_tuning_on_the_text_of_a_corpus_is_a_leak_of_that_corpus(folder):
    share = {"items": 10, "checked": 10, "short": 0, "contaminated": 0, "share": 0.0}
    put(folder, "leak.json", {"status": "ok", "tuning": {"sets": {"newswire-test": share}}})
    built = build(recovery={"text": "newswire", "tokens": 9})
    cell = Cell("m", "random+lora", 0.5, 0)
    (folder / "cells" / cell.path).mkdir(parents=True)
    tuned = PRUNED | spec(recover_spec, built, cell)
    put(folder, f"cells/{cell.path}/recover.json", tuned)
    found = assembled("random+lora", campaign=built)["leak"]["sets"]
    assert found["newswire-test"]["text"] == "tuning" and found["newswire-test"]["same_corpus"]


def test_what_was_tuned_on_is_named_in_the_record_for_plain_text_too(folder):
    built = build(recovery={"text": ["newswire", "encyclopedia"], "tokens": 9})
    cell = Cell("m", "random+lora", 0.5, 0)
    place = folder / "cells" / cell.path
    place.mkdir(parents=True)
    tuned = {**PRUNED, "tuning": {"steps": 2}}
    put(folder, f"cells/{cell.path}/recover.json", tuned | spec(recover_spec, built, cell))
    put(folder, f"cells/{cell.path}/evaluate.json", EVALUATED)
    assert assembled("random+lora", campaign=built)["tuning"] == {
        "instructions": "newswire + encyclopedia",
        "by": "suite",
        "steps": 2,
    }


def test_accuracies_are_paired_with_dense(folder):
    for label, answers in (("dense", "1100"), ("random", "1010")):
        outcomes.write(items(answers), folder / "cells" / PATHS[label] / "items.json.gz")
    versus = assembled()["zeroshot"]["tasks"]["demo_boolq"]["versus_dense"]
    assert versus["difference"] == 0 and versus["low"] < 0 < versus["high"]
    assert "versus_dense" not in assembled("dense", 0.0)["zeroshot"]["tasks"]["demo_boolq"]


def test_items_of_another_harness_are_not_paired_and_the_record_says_why(folder):
    for label, version in (("dense", "0"), ("random", "1")):
        scored = items("1100") | {"harness": {"name": "lm-eval", "version": version}}
        outcomes.write(scored, folder / "cells" / PATHS[label] / "items.json.gz")
    versus = assembled()["zeroshot"]["versus_dense"]
    assert versus["status"] == "skipped" and "with the same harness" in versus["reason"]
    tables.make_tables(folder)
    assert tables.failures(folder) == []


@pytest.mark.parametrize("file", ["prune.json", "evaluate.json"])
def test_a_failed_or_missing_job_fails_the_record(folder, file):
    path = folder / "cells" / PATHS["random"] / file
    path.write_text('{"status": "failed", "reason": "out of memory"}')
    assert (assembled()["status"], assembled()["reason"]) == ("failed", "out of memory")
    path.write_text('{"status": "ok", "re')
    assert "not valid JSON" in assembled()["reason"]
    path.unlink()
    assert "is missing" in assembled()["reason"]
    tables.make_tables(folder)
    assert len(tables.failures(folder)) == 1
    assert "1 failed" in (folder / "leaderboard.md").read_text()


def test_a_failed_part_fails_the_record_and_a_skipped_one_does_not(folder):
    part = {"status": "skipped", "reason": "no such task here"}
    for status in ("skipped", "failed"):
        changed = copy.deepcopy(EVALUATED)
        changed["zeroshot"]["tasks"]["demo_boolq"] = {**part, "status": status}
        put(folder, f"cells/{PATHS['random']}/evaluate.json", changed)
        expected = "failed" if status == "failed" else "ok"
        assert assembled()["status"] == expected


def test_numbers_that_are_none_make_a_failed_record(folder):
    odd = copy.deepcopy(PRUNED)
    odd["sparsity"]["achieved"] = 7.0
    put(folder, f"cells/{PATHS['random']}/prune.json", odd)
    tables.make_tables(folder)
    found = as_mapping(store.read(folder / "cells" / PATHS["random"] / "record.json"))
    assert found["status"] == "failed" and "sparsity.achieved" in found["reason"]


def test_a_record_changed_by_hand_is_named(folder):
    tables.make_tables(folder)
    path = folder / "cells" / PATHS["random"] / "record.json"
    path.write_text(path.read_text().replace("9.0", "8.0"))
    (line,) = tables.failures(folder)
    assert "record.json" in line and "changed" in line


def test_retry_clears_failed_jobs_only(folder):
    failed = folder / "cells" / PATHS["random"] / "evaluate.json"
    failed.write_text('{"status": "failed", "reason": "x"}')
    assert [cleared.path for cleared in repair(folder)] == [failed]
    assert not failed.exists() and failed.with_name("prune.json").exists()


def test_a_report_with_a_broken_record_is_made_and_says_so(folder, capsys):
    tables.make_tables(folder)
    assert main(["report", str(folder)]) == 0
    path = folder / "cells" / PATHS["random"] / "record.json"
    whole = path.read_text()
    old = json.loads(whole) | {"schema_version": 0}
    cases = {
        whole[: len(whole) // 2]: "truncated or not JSON",
        whole.replace("9.0", "8.0"): "changed after it was written",
        json.dumps(old): "schema_version: expected 1, got 0; run the cell again",
    }
    for content, reason in cases.items():
        path.write_text(content)
        assert main(["report", str(folder)]) == 1
        assert main(["failures", str(folder)]) == 1
        for view in ("failures.md", "index.html"):
            text = (folder / view).read_text()
            assert "m/random/0.5/seed0/record.json" in text and reason in text, view
        assert "1 record left out" in (folder / "leaderboard.md").read_text()
        assert "dense" in (folder / "leaderboard.md").read_text()
    capsys.readouterr()


def test_compare_and_show_leave_the_folders_as_they_are(folder, capsys):
    tables.make_tables(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["compare", str(folder), str(folder)]) == 0
    assert "0 of them beyond error" in capsys.readouterr().out
    assert main(["show", str(folder / "cells" / PATHS["random"])]) == 0
    assert "m / random / 0.5 / seed 0: ok" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert main(["show", str(folder / "cells")]) == 1
    assert "record.json: cannot be read" in capsys.readouterr().err


def test_accuracies_are_paired_with_the_reference_row_too(folder):
    built = build(methods=["random", "magnitude"], reference="random")
    place = "m/magnitude/0.5/seed0"
    (folder / "cells" / place).mkdir(parents=True)
    put(folder, f"cells/{place}/prune.json", PRUNED)
    put(folder, f"cells/{place}/evaluate.json", EVALUATED)
    for path, answers in ((PATHS["random"], "1100"), (place, "1110")):
        outcomes.write(items(answers), folder / "cells" / path / "items.json.gz")
    zeroshot = assembled("magnitude", campaign=built)["zeroshot"]
    assert zeroshot["versus_reference"]["difference"] == 0.25
    assert zeroshot["tasks"]["demo_boolq"]["versus_reference"]["difference"] == 0.25
    itself = assembled(campaign=built)["zeroshot"]
    assert "versus_reference" not in itself


DESCRIPTION = "name: mine\nsummary: A method made by a test.\nkind: method\n"


def test_an_edit_of_a_plugin_after_the_run_changes_no_record(folder):
    """What the plugin says of itself was taken down when its job was planned."""
    plugin = folder.parent.parent / "plugins" / "mine"
    plugin.mkdir(parents=True)
    (plugin / "method.yaml").write_text(DESCRIPTION + "tunes_itself: true\n")
    (plugin / "method.py").write_text("def prune(model, ctx): ...\n")
    raw = {**copy.deepcopy(CAMPAIGN), "methods": ["mine"], "plugins": [str(plugin.parent)]}
    raw["recovery"] = {"instructions": "demo", "tokens": 1000}
    (folder / "campaign.yaml").write_text(yaml.safe_dump(raw))
    built = config.build(raw, file="toy.yaml")
    cell = Cell("m", "mine", 0.5, 0)
    (folder / "cells" / cell.path).mkdir(parents=True)
    put(folder, f"cells/{cell.path}/prune.json", PRUNED | spec(prune_spec, built, cell))
    put(folder, f"cells/{cell.path}/evaluate.json", EVALUATED | spec(evaluate_spec, built, cell))
    tables.make_tables(folder)
    path = folder / "cells" / cell.path / "record.json"
    before = path.read_bytes()
    assert store.read(path).tuning.by == "method"
    (plugin / "method.yaml").write_text(DESCRIPTION + "params: {a: {description: x, default: 1}}\n")
    assert main(["leaderboard", str(folder)]) == 0
    assert path.read_bytes() == before


def test_generated_answers_are_paired_with_dense_and_kept_with_the_texts(folder):
    """A second suite: its own items, its own differences; nothing of it where none was asked."""
    generated = {
        "max_new_tokens": 8, "stop": ["."], "tokens": 3.0, "empty": 0.25, "repeating": 0.0,
        "at_limit": 0.5, "samples": [{"prompt": "p", "target": "t", "answer": ""}],
    }  # fmt: skip
    task = {**TASK, "metric": "exact_match", "majority": 0.25, "shots": 2, "generated": generated}
    texts = {
        "status": "ok", "tokens": 5,
        "texts": [{"prompt": "p", "text": "x", "ended": False, "repeating": False}],
    }  # fmt: skip
    part = {**EVALUATED["zeroshot"], "suite": "generation/5", "tasks": {"q": task}}
    for label, score in (("dense", "1100"), ("random", "1001")):
        place = folder / "cells" / PATHS[label]
        found = {**EVALUATED, "generation": part, "texts": texts}
        put(folder, f"cells/{PATHS[label]}/evaluate.json", found)
        asked = {
            "metric": "exact_match", "items": 4, "score": score,
            "hashes": dict.fromkeys(("documents", "prompts", "targets"), "0"),
        }  # fmt: skip
        outcomes.write(items("1100") | {"tasks": {"q": asked}}, place / "generation-items.json.gz")
    record = assembled()
    assert record["generation"]["tasks"]["q"]["versus_dense"]["difference"] == 0.0
    assert record["generation"]["tasks"]["q"]["generated"]["empty"] == 0.25
    assert record["texts"] == texts
    tables.make_tables(folder)
    kept = as_mapping(store.read(folder / "cells" / PATHS["random"] / "record.json"))
    assert kept["status"] == "ok" and kept["texts"]["texts"][0]["text"] == "x"
