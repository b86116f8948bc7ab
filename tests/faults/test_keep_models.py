"""What `keep_models` leaves on disk; a removed model costs no finished cell its numbers."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace as replace_
from pathlib import Path
from typing import Any

import fault_campaign
import pytest
from faults import CELLS, RANDOM, ROOT, TOY, TUNED, flip, gone, replace, unevaluated

from prunebench.campaign.config import build
from prunebench.decisions.applying import apply
from prunebench.record import stages
from prunebench.results.tidy import tidy, tidy_after
from prunebench.whole import remove_folder, write_text

HERE = Path.cwd()


@pytest.fixture(scope="module", params=["none", "last", "all"])
def kept(request: Any, tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Any:
    """A finished campaign that keeps so much, and where it lies."""
    place = tmp_path_factory.mktemp("kept") / "base"
    profile = {"points": [{"batch": 1, "prompt": 4, "new": 1}], "repeats": 2, "warmup": 0}
    methods = [{"name": "random", "recovery": "after"}, {"name": "toy", "recovery": "none"}]
    given = {"keep_models": request.param, "methods": methods, "profile": profile}
    fault_campaign.prepare(place, tokenizer, **given)
    os.chdir(place)
    assert fault_campaign.call().failed == []
    yield request.param, place, fault_campaign.numbers()
    os.chdir(HERE)


@pytest.fixture
def copy(kept: Any, tmp_path: Path) -> Any:
    """A copy of it to work in: what it keeps, and its numbers."""
    how, place, numbers = kept
    shutil.copytree(place, tmp_path / "copy")
    os.chdir(tmp_path / "copy")
    yield how, numbers
    os.chdir(place)


def models() -> set[Path]:
    return {path.parent for path in CELLS.glob("*/*/*/model")}


LEFT = {"none": set(), "last": {TUNED, TOY}, "all": {RANDOM, TUNED, TOY}}


@pytest.mark.slow
def test_models_decisions_and_resuming(copy: Any) -> None:
    """What stays; nothing is planned; what is measured again needs no pruning; the same digits."""
    how, numbers = copy
    assert models() == LEFT[how]
    assert {path.parent for path in CELLS.glob("*/*/*/decision.json.gz")} == {RANDOM, TUNED, TOY}
    assert fault_campaign.planned() == {} and fault_campaign.retry(all_corrupt=True) == []
    unevaluated(TUNED)
    unevaluated(TOY)
    again = fault_campaign.call()
    assert again.failed == [] and set(again.ran) == {"evaluate", "leaderboard"}
    assert fault_campaign.numbers() == numbers and models() == LEFT[how]
    gone(TUNED / "recover.json")  # and so its model, if it was there
    unevaluated(TUNED)
    again = fault_campaign.call()
    assert set(again.ran) == {"recover", "evaluate", "leaderboard"}
    assert fault_campaign.numbers() == numbers and models() == LEFT[how]


@pytest.mark.slow
def test_a_model_stays_while_a_job_that_reads_it_has_failed(copy: Any) -> None:
    how, numbers = copy
    if how != "none":
        pytest.skip("the others keep it anyway")
    replace(TOY / "evaluate.json", status="failed", reason="disk full")
    apply(TOY, TOY / "model", model="tiny")
    campaign = fault_campaign.load()
    assert tidy(campaign) == [] and models() == {TOY}
    assert fault_campaign.retry() == ["cells/tiny/toy/0.3/seed0/evaluate.json"]
    assert set(fault_campaign.call().ran) == {"evaluate", "leaderboard"}
    assert fault_campaign.numbers() == numbers and models() == set()


@pytest.mark.slow
def test_a_removed_model_of_an_edited_decision_is_refused_and_retry_mends_it(copy: Any) -> None:
    how, numbers = copy
    if how != "none":
        pytest.skip("the others have the model")
    unevaluated(TOY)
    flip(TOY / "decision.json.gz")
    (line,) = fault_campaign.call().failed
    assert "not a whole decision.json.gz" in line
    assert set(fault_campaign.retry()) == {
        "cells/tiny/toy/0.3/seed0/evaluate.json", "cells/tiny/toy/0.3/seed0/prune.json",
    }  # fmt: skip
    assert fault_campaign.call().failed == [] and fault_campaign.numbers() == numbers


@pytest.mark.slow
def test_the_command_line_tidies_after_its_job(copy: Any) -> None:
    """By the campaign beside the results; without one, or with a broken one, models stay."""
    how, _ = copy
    if how != "none":
        pytest.skip("nothing goes")
    apply(TOY, TOY / "model", model="tiny")
    tidy_after(TUNED / "evaluate.json")
    assert models() == {TOY}, "another cell's job"
    text = (ROOT / "campaign.yaml").read_text()
    write_text(ROOT / "campaign.yaml", text.replace("keep_models: none", "keep_models: some"))
    tidy_after(TOY / "evaluate.json")
    assert models() == {TOY}
    write_text(ROOT / "campaign.yaml", text)
    tidy_after(TOY / "evaluate.json")
    assert models() == set()
    tidy_after(Path("evaluate.json"))


def test_each_model_goes_when_its_last_reader_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of results that say no more than how a job ended."""
    monkeypatch.chdir(tmp_path)
    profiled = {"profile": {"points": [{"batch": 1, "prompt": 4, "new": 1}]}}
    given = {**fault_campaign.CAMPAIGN, **profiled, "keep_models": "last", "plugins": []}
    rows = [{"name": "random", "recovery": "after"}, {"name": "magnitude", "recovery": "none"}]
    campaign = build({**given, "methods": rows}, file="x", check_files=False)
    out = campaign.out.root

    def model(folder: Path) -> Path:
        (out / folder / "model").mkdir(parents=True)
        return out / folder / "model"

    def end(name: str, status: str = "ok") -> list[Path]:
        stages.write(out / name, {"status": status, "reason": None if status == "ok" else "x"})
        return tidy(campaign, after=out / name)

    cells = Path("cells/tiny")
    pruned = model(cells / "random/0.3/seed0")
    tuned, alone = model(cells / "random+lora/0.3/seed0"), model(cells / "magnitude/0.3/seed0")
    assert end("cells/tiny/random+lora/0.3/seed0/recover.json") == []  # the profile reads it, too
    assert end("profiles/tiny.json", "failed") == []
    assert end("profiles/tiny.json") == [pruned]
    assert end("cells/tiny/random+lora/0.3/seed0/evaluate.json") == []
    assert end("cells/tiny/magnitude/0.3/seed0/evaluate.json", "skipped") == []
    assert tuned.exists() and alone.exists()
    assert tidy(replace_(campaign, keep_models="all")) == []
    assert set(tidy(replace_(campaign, keep_models="none"))) == {tuned, alone}


def test_the_default_is_all() -> None:
    given = {**fault_campaign.CAMPAIGN, "plugins": [], "methods": ["random"]}
    assert build(given, file="x", check_files=False).keep_models == "all"


def test_a_folder_goes_at_once(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("x")
    remove_folder(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
