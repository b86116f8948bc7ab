"""Suites are data: what the package's own hold, and how a malformed one is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot import load_suite, suite_names

SEVEN = ["boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"]
ENTRY = "  - {name: a, display: A, stock: piqa/piqa.yaml, split: validation, metric: acc}\n"


def test_the_seven_tasks_use_the_metrics_of_the_papers() -> None:
    metrics = {task.name: task.metric for task in load_suite("zeroshot/7").tasks}
    assert list(metrics) == SEVEN
    assert [name for name in SEVEN if metrics[name] == "acc_norm"] == [
        "hellaswag",
        "arc_challenge",
        "openbookqa",
    ]


def test_pat14_is_the_seven_and_seven_more() -> None:
    names = [task.name for task in load_suite("zeroshot/pat14").tasks]
    assert names == [*SEVEN, "copa", "mmlu", "multirc", "rte", "siqa", "wic", "wsc"]


def test_the_demo_suite_mirrors_the_seven_under_its_own_names() -> None:
    pairs = zip(load_suite("zeroshot/demo7").tasks, load_suite("zeroshot/7").tasks, strict=True)
    for demo, real in pairs:
        assert (demo.name, demo.file) == (f"demo_{real.name}", f"demo_{real.name}")
        assert (demo.stock, demo.metric, demo.fields) == (real.stock, real.metric, real.fields)
        assert real.hub and not demo.hub


def test_every_stock_definition_exists_in_the_installed_harness() -> None:
    from prunebench.evaluation.zeroshot import stock

    for name in suite_names():
        for task in load_suite(name).tasks:
            found = stock.find(task)
            assert found and all(member.path.is_file() for member in found.members)
            stock.check(task, found)


def test_a_suite_of_the_users_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nsummary: two tasks\ninclude: []\ntasks:\n"
        + ENTRY
        + "  - {name: b, like: a, display: B, file: other}\n"
    )
    suite = load_suite(path)
    assert [(task.name, task.file, task.stock) for task in suite.tasks] == [
        ("a", "a", "piqa/piqa.yaml"),
        ("b", "other", "piqa/piqa.yaml"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nsummary: s\ntasks:\n" + ENTRY + ENTRY, r"tasks\[1\].name: .*listed twice"),
        ("name: x\nsummary: s\ntaks: []\n", "unknown key 'taks'"),
        ("name: x\nsummary: s\ntasks: 7\n", "tasks: expected a list, got 7"),
        ("name: x\ntasks: []\n", "summary: expected a str"),
        ("- a\n", "expected a mapping"),
        ("name: [\n", "not valid YAML"),
        ("name: x\nsummary: s\ntasks: [piqa]\n", r"tasks\[0\]: expected a mapping"),
        ("name: x\nsummary: s\ntasks: [{name: a, prompt: b}]\n", "unknown key 'prompt'"),
        ("name: x\nsummary: s\ntasks: [{name: a, display: A}]\n", "stock: expected a string"),
        ("name: x\nsummary: s\ntasks: [{name: a, like: b}]\n", r"like: no entry 'b'"),
        ("name: x\nsummary: s\ntasks:\n" + ENTRY.replace("acc", "7"), "metric: expected a string"),
        ("name: x\nsummary: s\ntasks: [{stock: a.yaml, metric: b}]\n", "split: expected a string"),
        ("name: x\nsummary: s\ntasks: [{stock: a, metric: b, shots: -1}]\n", "shots: expected a"),
        ("name: x\nsummary: s\ntasks: [{stock: a, metric: b, fewshot: 3}]\n", "fewshot: expected"),
        ("name: x\nsummary: s\ntasks: [{stock: a, metric: b, chance: 25}]\n", "chance: expected a"),
        ("name: x\nsummary: s\ntasks: [{stock: a, metric: b, chat: 1}]\n", "chat: expected true"),
        ("name: x\nsummary: s\ntasks: [{stock: a, metric: b, stop: x}]\n", "stop: expected a list"),
        (
            "name: x\nsummary: s\ntasks:\n" + ENTRY.replace("}", ", fields: {goal: string}}"),
            "fields.goal: unknown rule 'string'",
        ),
    ],
)
def test_a_malformed_suite_names_file_and_key(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=expected) as caught:
        load_suite(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["zeroshot/8", "seven", "../zeroshot/7", "absent.yaml"])
def test_an_unknown_suite_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="unknown suite|does not exist"):
        load_suite(name)
