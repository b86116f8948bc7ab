"""The conformance kit: each check fails on its bad methods and on no other; good methods pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY

from prunebench.cli import main
from prunebench.plugins.discovery import discover
from prunebench.testing import check_method, method_tests, trials
from prunebench.testing.report import CHECKS, report
from prunebench.testing.trials import MODELS, warmed

BAD = sorted(path for path in (Path(__file__).parent / "bad").iterdir() if path.is_dir())
QUICK = ("dense", "random", "llm_pruner")


@pytest.fixture(scope="module")
def bench():
    with warmed() as ready:
        yield ready


def test_every_check_has_a_bad_method():
    assert {path.name.partition("_")[0] for path in BAD} == set(CHECKS)


@pytest.mark.parametrize("folder", BAD, ids=lambda path: path.name)
def test_a_bad_method_is_caught_by_its_check_and_by_no_other(folder, bench, monkeypatch):
    check = folder.name.partition("_")[0]
    if folder.name == "limits_of_patience":  # it never ends
        monkeypatch.setattr(trials, "GRACE_S", 5.0)
    models = ("gqa", "layer_norm") if check == "refusal" else ("gqa",)
    found = check_method(folder, models=models, shares=(0.3,), repeat=check == "seeds", bench=bench)
    assert found.failed == (check,), found.text()
    told = found.text().splitlines()
    assert CHECKS[check] in told[1] and len(told) <= 5
    assert all(len(line) < 400 for line in told)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(discover()) - {"dense"}))
def test_every_shipped_method_passes_the_whole_kit(name, bench):
    found = check_method(discover()[name].folder, bench=bench)
    assert found.passed, found.text()


@pytest.mark.parametrize("name", QUICK)
def test_shipped_methods_pass(name, bench):
    found = check_method(
        discover()[name].folder, models=("gqa", "layer_norm"), shares=(0.3,), bench=bench
    )
    assert found.passed, found.text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", discover())
def test_shipped_methods_pass_on_every_model_at_every_share(name, bench):
    found = check_method(discover()[name].folder, bench=bench)
    assert found.passed and found.trials >= len(MODELS), found.text()


def test_a_new_method_passes(tmp_path, bench):
    assert main(["new", "mine", "--in", str(tmp_path)]) == 0
    found = check_method(tmp_path / "mine", models=("gqa", "tied"), shares=(0.3,), bench=bench)
    assert found.passed and found.trials == 4, found.text()
    assert found.text() == f"mine: {len(CHECKS)} of {len(CHECKS)} checks passed, 4 trials"


def test_the_command_says_what_is_wrong(capsys):
    bad = Path(__file__).parent / "bad" / "description_odd"
    assert main(["check-method", str(bad)]) == 1
    shown = capsys.readouterr().out
    assert "✗ description" in shown and "unknown key 'speed'" in shown
    assert main(["check-method", str(REPOSITORY / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_name_that_another_method_has_is_told(tmp_path):
    (tmp_path / "random").mkdir()
    text = "name: random\nsummary: A method made by a test.\nkind: method\n"
    (tmp_path / "random" / "method.yaml").write_text(text)
    (tmp_path / "random" / "method.py").write_text("def prune(model, ctx): pass\n")
    (problem,) = check_method(tmp_path / "random").problems["description"]
    assert "'random' is already taken by" in problem


def test_a_test_of_pytest_has_a_case_for_each_check(monkeypatch):
    bad = Path(__file__).parent / "bad" / "description_odd"
    test = method_tests(str(bad / "test_description_odd.py"))
    (mark,) = test.pytestmark
    assert list(mark.args[1]) == list(CHECKS)
    test("runs")
    with pytest.raises(AssertionError, match="unknown key 'speed'"):
        test("description")


def test_a_report_is_short():
    found = report("mine", 9, [("files", f"problem {i}") for i in (1, 1, 2, 3, 4, 5)])
    assert found.text().splitlines()[-1] == "      and 2 more"
    assert found.failed == ("files",) and not found.passed
