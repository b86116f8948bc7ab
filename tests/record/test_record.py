"""Records: whole or absent, checked when read, and honest about where they come from."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leaderboard import factory

from prunebench.devices import cpu_name
from prunebench.errors import Invalid
from prunebench.record import provenance as provenance_module
from prunebench.record import store
from prunebench.record.form import Record
from prunebench.record.provenance import provenance
from prunebench.whole import write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells" / "record.json"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def refused(path: Path) -> str:
    with pytest.raises(Invalid) as error:
        store.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- write and read ------------------------------------------------------------------------------


def test_what_was_written_is_read(path: Path) -> None:
    made = factory.record()
    store.write(path, made)
    assert store.as_mapping(store.read(path)) == made


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(params=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_parameters_survive(path: Path, params: dict[str, Any]) -> None:
    made = factory.record()
    made["cell"]["params"] = params
    store.write(path, made)
    assert store.read(path).cell.params == params


def test_form_of_the_file(path: Path) -> None:
    store.write(path, factory.record())
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n") and text.startswith('{\n "cell": {\n  "campaign"')
    keys = list(json.loads(text))
    assert keys == sorted(keys) and "checksum" in keys
    assert list(path.parent.iterdir()) == [path]


def test_equal_records_give_equal_bytes(path: Path) -> None:
    made = factory.record()
    store.write(path, made)
    first = path.read_bytes()
    store.write(path, dict(reversed(list(made.items()))) | {"checksum": "0" * 64})
    assert path.read_bytes() == first


def test_schema_version_is_set_when_absent(path: Path) -> None:
    made = factory.record()
    del made["schema_version"]
    store.write(path, made)
    assert store.read(path).schema_version == store.SCHEMA_VERSION


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_not_written(path: Path, value: float) -> None:
    made = factory.record()
    made["profile"]["points"][0]["kv_cache_mib"] = value
    with pytest.raises(
        Invalid, match=r"record.json: profile.points\[0\].kv_cache_mib: -?(nan|inf)"
    ):
        store.write(path, made)
    assert not path.exists()


def test_a_value_that_json_lacks_is_named(path: Path) -> None:
    with pytest.raises(Invalid, match=r"a\.b\[1\]: PosixPath has no form in JSON"):
        write_json(path, {"a": {"b": [0, Path("x")]}})
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_an_invalid_record_is_not_written_over_a_good_one(path: Path) -> None:
    store.write(path, factory.record())
    before = path.read_bytes()
    with pytest.raises(Invalid, match="status"):
        store.write(path, factory.record() | {"status": "done"})
    assert path.read_bytes() == before


def test_a_lone_surrogate_does_not_stop_a_record(path: Path) -> None:
    made = factory.lost(reason="cannot read '\udc80.txt' of é")
    store.write(path, made)
    assert store.read(path).reason == "cannot read '\\udc80.txt' of é"


# --- atomic --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_an_error_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store.write(path, factory.record())
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space"):
        store.write(path, factory.record(seed=1))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_killed_writer_leaves_the_old_record(path: Path, step: str) -> None:
    store.write(path, factory.record())
    before = path.read_bytes()
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from prunebench.whole import write_json\n"
        f"os.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_json(Path(sys.argv[1]), {'half': 'written'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.json")) == [path]


# --- what is not a record ------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_record_is_refused(path: Path, share: float) -> None:
    store.write(path, factory.record())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated or not JSON at line" in refused(path)


def test_an_edited_number_is_noticed(path: Path) -> None:
    store.write(path, factory.record(perplexity=12.5))
    edit(path, '"value": 12.5', '"value": 11.5')
    assert "checksum: does not fit the content" in refused(path)


def test_an_edited_digit_far_behind_the_point_is_noticed(path: Path) -> None:
    store.write(path, factory.record(perplexity=12.1234567890123))
    edit(path, "12.1234567890123", "12.1234567890124")
    assert "checksum" in refused(path)


def test_another_layout_is_no_edit(path: Path) -> None:
    made = factory.record()
    store.write(path, made)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
    assert store.as_mapping(store.read(path)) == made


def test_a_record_without_checksum_is_refused(path: Path) -> None:
    write_json(path, factory.record())
    assert "checksum: missing" in refused(path)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_is_refused(path: Path, constant: str) -> None:
    store.write(path, factory.record(perplexity=12.5))
    edit(path, '"value": 12.5', f'"value": {constant}')
    message = refused(path)
    assert "no number in JSON" in message or "not a number in JSON" in message


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (0, "run the cell again"),
        (2, "update this one"),
        (None, "run the cell again"),
        ("1", "run the cell again"),
        (True, "run the cell again"),
    ],
)
def test_another_schema_version_is_refused(path: Path, version: Any, advice: str) -> None:
    write_json(path, factory.record() | {"schema_version": version})
    message = refused(path)
    assert f"schema_version: expected 1, got {version!r}" in message and advice in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1, 2]", "expected a JSON object, got [1, 2]"),
        (b'{"schema_version": 1, "\xff": 0}', "byte 23 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"null", "expected a JSON object"),
    ],
)
def test_other_files_are_refused(path: Path, content: bytes, said: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert said in refused(path)


def test_an_absent_file_is_refused(path: Path) -> None:
    assert "cannot be read: No such file" in refused(path)


def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert "cannot be read" in refused(path)


# --- the schema ----------------------------------------------------------------------------------


def changed(key: str, value: Any) -> dict[str, Any]:
    """A good record with one value replaced (value ... deletes it)."""
    made = copy.deepcopy(factory.record())
    *path, last = key.split(".")
    place: Any = made
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("status", "done", "status: expected enum ['ok', 'failed', 'skipped'], got 'done'"),
        ("cell", ..., "cell: missing"),
        ("cell.sparsity", 1.0, "cell.sparsity: expected exclusiveMaximum 1, got 1.0"),
        ("cell.seed", 0.5, "cell.seed: expected type 'integer', got 0.5"),
        ("cell.sede", 1, "cell.sede: unknown key; known: campaign, label"),
        ("colour", "red", "colour: unknown key"),
        ("model.parameters", "many", "model.parameters: expected type 'integer', got 'many'"),
        ("sparsity.achieved", 1.2, "sparsity.achieved: expected maximum 1"),
        ("verify.passed", None, "verify.passed: expected type 'boolean', got None"),
        ("export.loadable_by", "vllm", "export.loadable_by: expected enum"),
        ("perplexity.ppl/ptb-128.value", -1.0, "perplexity.ppl/ptb-128.value: expected exclusiveM"),
        ("perplexity.ppl/ptb-128.limits", 5, "perplexity.ppl/ptb-128.limits: unknown key"),
        ("zeroshot.tasks.boolq.value", 54.0, "zeroshot.tasks.boolq.value: expected maximum 1"),
        ("zeroshot.mean", None, None),
        (
            "profile.points.0.prefill_ms.median",
            "fast",
            "profile.points[0].prefill_ms.median: expected",
        ),
        ("profile.points.0.prefill_ms", None, None),
        ("cost.prune.wall_s", -1, "cost.prune.wall_s: expected minimum 0, got -1"),
        ("cost.recover", {"status": "failed", "reason": "x"}, None),
        ("cost.recover", {"status": "failed"}, "cost.recover.reason: missing"),
        ("profile", {"status": "skipped", "reason": "no device"}, None),
        ("profile", {"status": "skipped", "reason": ""}, "profile.reason: expected minLength 1"),
        ("profile", None, "profile: expected type 'object', got None"),
        ("perplexity", {}, None),
        ("perplexity", {"key": None}, "perplexity.key: expected type 'object'"),
        ("provenance.created", "yesterday", "provenance.created: expected pattern"),
        ("provenance.packages.torch", None, None),
        ("provenance.packages.torch", 2.13, "provenance.packages.torch: expected type"),
        ("reason", "it is fine", "reason: expected type 'null', got 'it is fine'"),
    ],
)
def test_the_key_that_is_wrong_is_named(key: str, value: Any, said: str | None) -> None:
    made = changed(key, value)
    if said is None:
        store.record_of(made, "here")
        return
    with pytest.raises(Invalid) as error:
        store.record_of(made, "here")
    assert str(error.value).startswith(f"here: {said}")


def test_several_errors_are_counted() -> None:
    made = changed("cell.seed", "zero") | {"status": "ok", "notes": "none"}
    with pytest.raises(Invalid, match=r"cell.seed.*\(and 1 more\)"):
        store.record_of(made, "here")


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_cell_without_results_needs_a_reason_and_no_more(status: str) -> None:
    store.record_of(factory.lost(status=status), "here")
    for reason in (None, ""):
        with pytest.raises(Invalid, match="here: reason"):
            store.record_of(factory.lost(status=status) | {"reason": reason}, "here")


@pytest.mark.parametrize("part", ["model", "sparsity", "verify", "perplexity", "profile", "cost"])
def test_an_ok_cell_has_every_part(part: str) -> None:
    with pytest.raises(Invalid, match=f"here: {part}: missing"):
        store.record_of(changed(part, ...), "here")


def test_the_schema_is_valid_and_describes_every_key() -> None:
    import jsonschema

    schema = Record.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    forms = {"Record": schema, **schema["$defs"]}
    bare = [
        f"{form}.{key}"
        for form, entry in forms.items()
        for key, described in entry.get("properties", {}).items()
        if "description" not in described
    ]
    assert not bare
    assert sum(len(entry.get("properties", ())) for entry in forms.values()) > 100
    check = jsonschema.Draft202012Validator(schema)
    assert not list(check.iter_errors(factory.record()))
    assert list(check.iter_errors(factory.record() | {"colour": "red"}))


# --- provenance ----------------------------------------------------------------------------------


def test_provenance_is_part_of_a_valid_record() -> None:
    made = provenance(device="cpu", plugin_sha256="ab", data_sha256={"text": None})
    store.record_of(factory.record() | {"provenance": made}, "here")
    assert made["packages"]["torch"] and made["packages"]["numpy"]
    assert made["device"] == "cpu" and made["data_sha256"] == {"text": None}


def test_a_package_that_is_not_installed_is_null() -> None:
    made = provenance(packages=("no-such-package",))
    assert made["packages"] == {"no-such-package": None}


def test_the_device_is_the_gpu_only_if_this_process_used_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for used, name in ((True, "NVIDIA Test"), (False, cpu_name())):
        cuda = SimpleNamespace(
            is_initialized=lambda used=used: used, get_device_name=lambda: "NVIDIA Test"
        )
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        assert provenance()["device"] == name


def test_import_and_provenance_load_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from prunebench import leaderboard\n"
        "from prunebench.record import provenance, store\n"
        "heavy = {'jsonschema', 'yaml', 'pandas', 'numpy', 'scipy', 'tabulate', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "provenance.provenance()\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with the module's file in it, not yet added."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    file = tmp_path / "prunebench" / "record.py"
    file.parent.mkdir()
    file.write_text("# a copy\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(provenance_module, "__file__", str(file))
    provenance_module._git_state.cache_clear()
    yield tmp_path
    provenance_module._git_state.cache_clear()


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_commit_and_uncommitted_changes(checkout: Path) -> None:
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "x")
    made = provenance()
    assert len(made["git_commit"]) == 40 and made["git_dirty"] is False
    (checkout / "prunebench" / "record.py").write_text("# changed\n", encoding="utf-8")
    provenance_module._git_state.cache_clear()
    assert provenance()["git_dirty"] is True


def test_a_copy_inside_another_projects_checkout_has_no_commit(checkout: Path) -> None:
    (checkout / "other.txt").write_text("x", encoding="utf-8")
    git(checkout, "add", "other.txt")
    git(checkout, "commit", "-qm", "x")
    made = provenance()
    assert made["git_commit"] is None and made["git_dirty"] is None


def test_a_copy_outside_a_checkout_has_no_commit(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert provenance()["git_commit"] is None
