"""A decision and the dense checkpoint give the pruned weights again, or one line why not."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, make_tiny
from job_specs import attempt, changed, pruning, recovering

from prunebench.cli import main
from prunebench.decisions import applying, form
from prunebench.decisions.applying import apply
from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.jobs import decided, prune, recover, work
from prunebench.jobs.work import JobIO
from prunebench.models import folders
from prunebench.plugins.discovery import discover

TUNING = {
    "instructions": "alpaca", "tokens": 1000, "length": 256,
    "batch": 4, "micro_batch": 4, "rank": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory, tokenizer):
    """A saved tiny model, a corpus, instructions; and the spec that names them."""
    root = tmp_path_factory.mktemp("world")
    for folder, name in (("newswire", "train.txt"), ("newswire", "test.txt")):
        (root / folder).mkdir(exist_ok=True)
        lines = (f"item {i}: something happened somewhere" for i in range(60))
        (root / folder / name).write_text("\n".join(lines))
    (root / "alpaca").mkdir()
    told = ({"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(40))
    (root / "alpaca" / "train.jsonl").write_text("\n".join(map(json.dumps, told)))
    model = make_tiny(intermediate_size=96, hidden_size=64, num_hidden_layers=4)
    folders.save(model, tokenizer, root / "original", uniform=True)
    calibration = {"corpus": "newswire", "samples": 4, "length": 16}
    return pruning(root / "original", root, calibration=calibration)


def pruned(world, out, method="random", given=None, **changes):
    params = discover()[method].params(given or {}, where="test")
    spec = changed(world, method=method, params=params, **changes)
    result = attempt(prune.prune, spec, out / "prune.json")
    assert result["status"] == "ok", result["reason"]
    return result


@pytest.fixture(scope="module")
def cut(world, tmp_path_factory):
    """A pruned cell without changed weights."""
    folder = tmp_path_factory.mktemp("cut")
    return folder, pruned(world, folder)


@pytest.fixture(scope="module")
def tuned(world, tmp_path_factory):
    """A cell that FLAP gave biases and that was tuned then."""
    folder = tmp_path_factory.mktemp("tuned")
    before = pruned(world, folder / "a", "flap")
    spec = recovering(world, TUNING)
    result = attempt(recover.recover, spec, folder / "b" / "recover.json", folder / "a/prune.json")
    assert result["status"] == "ok", result["reason"]
    return folder / "b", before, result


def same(first: Path, second: Path) -> None:
    """Both folders hold the same files, byte by byte."""
    assert {p.name for p in first.iterdir()} == {p.name for p in second.iterdir()}
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


CASES = {
    "no weights": ("random", {}, False),
    "hidden width": ("random", {"kinds": ["hidden"]}, False),
    "layers": ("shortgpt", {}, False),
    "global": ("magnitude", {"scope": "global"}, False),
    "biases": ("flap", {}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_comes_again_byte_by_byte(world, tmp_path, case):
    method, given, has_delta = CASES[case]
    result = pruned(world, tmp_path / "cell", method, given, sparsity=0.3)
    part = result["decision_file"]
    assert part["status"] == "ok" and (part["delta"] is not None) == has_delta
    assert part["bytes"] < 4000 and set(result["written"]) >= {"decision.json.gz"}
    done = apply(tmp_path / "cell", tmp_path / "again", model=world.model.source)
    assert folders.weights_digest(tmp_path / "again") == result["model"]["weights_sha256"]
    assert done.file.parameters == result["model"]["parameters"]
    same(tmp_path / "cell" / "model", tmp_path / "again")


def test_a_merged_adapter_is_merged_again(tuned, tmp_path):
    """Decision, FLAP's biases and the adapter, in one delta."""
    folder, before, result = tuned
    delta = result["decision_file"]["delta"]
    assert delta["bytes"] > before["decision_file"]["delta"]["bytes"]
    assert delta["bytes"] < (folder / "model" / "model.safetensors").stat().st_size / 4
    apply(folder, tmp_path / "again")
    same(folder / "model", tmp_path / "again")


@pytest.mark.slow
def test_a_method_that_merges_an_adapter_is_its_adapter(world, tmp_path):
    """LoRAPrune merges before the cut; where that does not explain the weights, they are whole."""
    for shrink, explained in ((False, True), (True, False)):
        given = {"protect_first": 0, "protect_last": 0, "shrink": shrink}
        more = {**TUNING, "tokens": 6000}
        result = pruned(world, tmp_path / str(shrink), "loraprune", given, recovery=more)
        delta = result["decision_file"]["delta"]
        assert (delta["status"] == "ok") == explained
        if explained:
            assert form.read(tmp_path / str(shrink) / form.NAME).delta.adapter.before_cut
            apply(tmp_path / str(shrink), tmp_path / "again", model=world.model.source)
            same(tmp_path / str(shrink) / "model", tmp_path / "again")


@pytest.mark.slow
def test_a_tuned_dense_model_is_its_adapter(world, tmp_path):
    first = pruned(world, tmp_path / "a", "dense", sparsity=0.0)
    assert first["decision_file"]["reason"].startswith("nothing was changed")
    assert not (tmp_path / "a" / form.NAME).exists()
    spec = recovering(world, TUNING)
    out = tmp_path / "b" / "recover.json"
    result = attempt(recover.recover, spec, out, tmp_path / "a" / "prune.json")
    assert form.read(tmp_path / "b" / form.NAME).keep == {}
    apply(tmp_path / "b", tmp_path / "again", model=world.model.source)
    assert folders.weights_digest(tmp_path / "again") == result["model"]["weights_sha256"]


def test_weights_that_changed_all_over_are_not_kept_and_the_file_says_so(world, tmp_path):
    """Neither by the pruning job nor by the tuning one after it."""
    given = {"multiple_of": 8}
    result = pruned(world, tmp_path, "slicegpt", given, sparsity=0.3)
    assert not (tmp_path / form.DELTA).exists()
    why = result["decision_file"]["delta"]["reason"]
    assert "of the weights; a delta is kept up to 25%" in why
    with pytest.raises(Unsupported, match="cannot be made again from it: slicegpt changed"):
        apply(tmp_path, tmp_path / "again", model=world.model.source)
    assert form.read(tmp_path / form.NAME).keep
    io = JobIO(tmp_path / "b" / "recover.json", "cpu", (tmp_path / "prune.json",))
    io.cell.folder.mkdir()
    spec, facts = recovering(world, TUNING), {**result["model"], "weights_sha256": "0" * 64}
    after = decided.keep_tuned(spec, io, result, facts, make_tiny(), {})
    assert after["delta"]["reason"] == why


def test_random_weights_have_no_file(world, tmp_path):
    model = {"name": "t", "kind": "random", "source": "llama-tiny"}
    from prunebench.models.shapes import shapes

    model["source"] = next(iter(shapes()))
    small = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 300}
    result = pruned(world, tmp_path, model={**model, "overrides": small})
    assert result["decision_file"]["reason"].startswith("random weights")
    assert not (tmp_path / form.NAME).exists()


def refused(cut, out, error=Invalid, **given):
    """What `apply` says, in one line; nothing is left."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(error) as caught:
        apply(cut, out, **given)
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.iterdir()) == before
    return str(caught.value)


def test_another_checkpoint_is_refused(cut, tuned, tmp_path, tokenizer):
    other = make_tiny("qwen2", intermediate_size=96)
    folders.save(other, tokenizer, tmp_path / "other", uniform=True)
    (tmp_path / "in").mkdir()
    message = refused(cut[0], tmp_path / "in" / "again", model=str(tmp_path / "other"))
    assert "is another checkpoint than the one that was pruned" in message
    assert "no such folder" in refused(cut[0], tmp_path / "in" / "x", model=str(tmp_path / "none"))


def edited(folder: Path, to: Path, **values) -> Path:
    """A copy of a decision with other values, sealed as if it had been written so."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("model", "*.json"))
    file = form.read(to / form.NAME)
    form.write(to / form.NAME, file.model_copy(update=values))
    return to


def test_an_edited_decision_is_refused(cut, tmp_path):
    folder, _ = cut
    file = form.read(folder / form.NAME)
    name = next(n for n in file.keep if n.endswith("neurons"))
    units = file.keep[name]
    fewer = edited(folder, tmp_path / "a", keep={**file.keep, name: units[:-1]})
    assert "other weights come out" in refused(fewer, tmp_path / "x", Failure)
    beyond = edited(folder, tmp_path / "b", keep={**file.keep, name: [*units, 999]})
    assert "does not fit the model: decision: " in refused(beyond, tmp_path / "x")
    strange = edited(folder, tmp_path / "c", keep={"layers.77.heads": [0]})
    assert "unknown structure 'layers.77.heads'" in refused(strange, tmp_path / "x")
    import gzip

    raw = json.loads(gzip.decompress((folder / form.NAME).read_bytes()))
    raw["keep"][name] = units[:-1]
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(json.dumps(raw).encode()))
    assert "its checksum does not fit" in refused(tmp_path / "d.json.gz", tmp_path / "x")


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", b"\x1f\x8b\x08\x00", "cut", "list"], ids=lambda c: str(c)[:8]
)
def test_a_file_that_is_no_decision_is_refused(cut, tmp_path, content):
    import gzip

    whole = (cut[0] / form.NAME).read_bytes()
    named = {"cut": whole[: len(whole) // 2], "list": gzip.compress(b"[1]")}
    place = tmp_path / "decision.json.gz"
    place.write_bytes(named.get(content, content) if isinstance(content, str) else content)
    assert str(place) in refused(place, tmp_path / "x")


def test_a_delta_that_is_missing_cut_or_another_is_refused(tuned, tmp_path):
    folder = tuned[0]
    for name, what in {
        "missing": "is missing; decision.json.gz needs it",
        "cut": "expected ",
        "other": "is not the file that decision.json.gz was written with",
    }.items():
        copy = shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("model"))
        delta = copy / form.DELTA
        data = delta.read_bytes()
        delta.unlink()
        if name != "missing":
            flipped = data[:-1] + bytes([data[-1] ^ 1])
            delta.write_bytes(data[:-100] if name == "cut" else flipped)
        assert what in refused(copy, tmp_path / "x")


def test_a_full_disk_leaves_nothing(cut, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(applying.folders, "save", full)
    (tmp_path / "in").mkdir()
    message = refused(cut[0], tmp_path / "in" / "x")
    assert message.endswith("cannot be written: No space left on device; nothing is left of it")


def test_a_record_of_other_weights_beside_it_is_refused(cut, tmp_path):
    """Of a committed run, whose weights are not these."""
    record = next((REPOSITORY / "results/reference/stories").glob("cells/*/random/*/*/record.json"))
    copy = shutil.copytree(cut[0], tmp_path / "a", ignore=shutil.ignore_patterns("model"))
    shutil.copy(record, copy / "record.json")
    assert "is of other weights than" in refused(copy, tmp_path / "x")


def test_the_command_says_what_came_out(cut, tmp_path, capsys):
    assert main(["apply", str(cut[0]), str(tmp_path / "again")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("random at 0.2, seed 0: ") and "parameters from" in first
    assert second.startswith(f"weights {cut[1]['model']['weights_sha256']}, as recorded")
    assert main(["apply", str(cut[0]), str(tmp_path / "again")]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_removed_model_is_there_again_when_a_job_needs_it(world, cut, tmp_path):
    copy = shutil.copytree(cut[0], tmp_path / "cell")
    shutil.rmtree(copy / "model")
    model, _ = work.load_stage(copy / "prune.json", world.model, "cpu")
    same(cut[0] / "model", copy / "model")
    assert torch.isfinite(next(model.parameters())).all()


def test_a_removed_model_that_no_decision_holds_is_named(world, tmp_path):
    pruned(world, tmp_path, "slicegpt", {"multiple_of": 8}, sparsity=0.3)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(Invalid, match="model: is missing, and cannot be made again: "):
        work.load_stage(tmp_path / "prune.json", world.model, "cpu")
