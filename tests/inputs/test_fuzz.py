"""Whatever becomes of a file: it is read with the same meaning, or refused in one line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged, mutated

from prunebench.campaign import config
from prunebench.campaign.reading import portable
from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot import outcomes
from prunebench.files import json_lines, read_yaml
from prunebench.plugins.discovery import discover
from prunebench.record import stage_forms, stages, store

REFERENCE = REPOSITORY / "results" / "reference" / "demo"
CAMPAIGNS = [
    yaml.safe_load((REPOSITORY / "config" / name).read_text())
    for name in ("demo.yaml", "smollm2-short.yaml")
]
RECORDS = [
    REFERENCE / "cells/demo-llama" / place / "record.json"
    for place in ("dense/0/seed0", "random+lora/0.5/seed1", "pat/0.5/seed0")
]
FEW = settings(
    max_examples=12, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
MANY = settings(FEW, max_examples=4000, derandomize=False)
SOON = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True, scope="module")
def _plugins_once() -> Any:
    """The project's plugins are read once, not for every campaign."""
    known = cache(discover)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "discover", lambda places: known(tuple(places)))
        yield


def refused_or(read: Callable[[], Any]) -> Any:
    """What is read; None where it is refused in one line. Anything else is a fault."""
    try:
        return read()
    except Invalid as error:
        assert "\n" not in str(error) and "Error(" not in str(error), error
        return None


def text_of(value: Any) -> bytes:
    """JSON with whatever Python lets pass."""
    return json.dumps(value).encode()


def tried(cases: st.SearchStrategy[Any], how_many: settings, check: Callable[[Any], None]) -> None:
    """Run a check on drawn cases."""
    how_many(given(cases)(check))()


@pytest.mark.parametrize("how_many", SOON)
def test_campaigns(how_many: settings, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        raw = refused_or(lambda: read_yaml(file))
        if not isinstance(raw, dict):
            return
        found = refused_or(lambda: config.build(raw, file="c.yaml", check_files=False))
        if found is not None:  # what is kept of it means the same
            kept = yaml.safe_load(yaml.safe_dump(portable(raw, tmp_path)))
            again = config.build(kept, file="c.yaml", check_files=False)
            assert (again.cells, again.rows) == (found.cells, found.rows)
            assert again.models == found.models and len(found.cells) == len(set(found.cells))

    as_text = [yaml.safe_dump(campaign, sort_keys=False).encode() for campaign in CAMPAIGNS]
    values = st.sampled_from(CAMPAIGNS).flatmap(mutated)
    tried(st.sampled_from(as_text).flatmap(damaged), how_many, check)
    tried(values.filter(yaml_can_say).map(lambda v: yaml.safe_dump(v).encode()), how_many, check)


def yaml_can_say(value: Any) -> bool:
    """Half a character cannot be written to a file of YAML."""
    try:
        return bool(yaml.safe_dump(value).encode())
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize("how_many", SOON)
def test_records(how_many: settings, tmp_path: Path) -> None:
    file = tmp_path / "record.json"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        found = refused_or(lambda: store.read(file))
        if found is not None:
            own = store.as_mapping(found)
            assert any(own == store.as_mapping(store.read(path)) for path in RECORDS)

    def check_form(value: Any) -> None:
        if not isinstance(value, dict):
            return check(text_of(value))
        found = refused_or(lambda: store.write(file, value))
        if found is not None:
            assert store.as_mapping(store.read(file)) == store.as_mapping(found)
        return None

    whole = [path.read_bytes() for path in RECORDS]
    tried(st.sampled_from(whole).flatmap(damaged), how_many, check)
    tried(st.sampled_from([*map(json.loads, whole)]).flatmap(mutated), how_many, check_form)


def results() -> dict[str, Any]:
    """One result of each kind of job."""
    from fuzz_results import RESULTS

    return {**RESULTS, "leak.json": json.loads((REFERENCE / "leak.json").read_text())}


@pytest.mark.parametrize("how_many", SOON)
@pytest.mark.parametrize("name", ["prune.json", "recover.json", "evaluate.json", "leak.json"])
def test_results_of_jobs(name: str, how_many: settings, tmp_path: Path) -> None:
    file, value = tmp_path / name, results()[name]
    stages.write(file, value)
    whole, product = file.read_bytes(), stages.product(stages.read(file))
    assert stage_forms.read(file)["status"] == "ok"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        found = refused_or(lambda: stage_forms.read(file))
        assert found is None or stages.product(found) == product or not stages.is_sealed(found)

    def check_form(value: Any) -> None:
        if not isinstance(value, dict):
            return check(text_of(value))
        if refused_or(lambda: stages.write(file, value) or True):
            found = refused_or(lambda: stage_forms.read(file))
            assert found is None or found["status"] in stages.STATUSES
        return None

    tried(damaged(whole), how_many, check)
    tried(mutated(value), how_many, check_form)


@pytest.mark.parametrize("how_many", SOON)
def test_items(how_many: settings, tmp_path: Path) -> None:
    from fuzz_results import ITEMS

    right, file = tmp_path / "right.json.gz", tmp_path / "items.json.gz"
    outcomes.write(ITEMS, right)

    def check(content: bytes) -> None:
        file.write_bytes(content)
        if refused_or(lambda: outcomes.read(file)) is None:
            return
        versus = refused_or(lambda: outcomes.paired(right, file))
        for part in versus["tasks"].values() if versus else ():
            assert all(math.isfinite(number) for number in part.values())

    plain = gzip.decompress(right.read_bytes())
    tried(damaged(right.read_bytes()), how_many, check)
    tried(damaged(plain).map(gzip.compress), how_many, check)
    tried(mutated(ITEMS).map(text_of).map(gzip.compress), how_many, check)


@pytest.mark.parametrize("how_many", SOON)
def test_lines(how_many: settings, tmp_path: Path) -> None:
    file = tmp_path / "task.jsonl"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        refused_or(lambda: json_lines(file))

    tried(damaged(b'{"question": "a\\u00e9", "answer": 1}\n{"question": "b"}\n'), how_many, check)


def test_a_bomb_of_items_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MOST_BYTES", 2**20)
    file = tmp_path / "items.json.gz"
    file.write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(Invalid, match="more than 1 MiB"):
        outcomes.read(file)
