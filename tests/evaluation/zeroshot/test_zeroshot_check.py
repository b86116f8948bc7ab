"""Task files are checked document by document; an error names file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from zeroshot_documents import local_source, write_task

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot import item_texts, load_suite
from prunebench.evaluation.zeroshot.check import count_documents, read_documents

TASKS = {task.name: task for task in load_suite("zeroshot/pat14").tasks}
REAL = {
    "boolq": 3270,
    "piqa": 1838,
    "hellaswag": 10042,
    "winogrande": 1267,
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "openbookqa": 500,
}


def change(path: Path, line: int, field: str, value: Any) -> None:
    """Set (or, with None, drop) a dotted field of one line of a file."""
    lines = path.read_text().splitlines()
    document = json.loads(lines[line - 1])
    *parents, last = field.split(".")
    inner = document
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    lines[line - 1] = json.dumps(document)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("task", TASKS)
def test_right_files_pass(task: str, tmp_path: Path) -> None:
    assert count_documents(write_task(tmp_path, task, items=5), TASKS[task].fields) == 5


@pytest.mark.parametrize("task", REAL)
def test_the_real_files_pass_with_their_known_counts(task: str, shared_data: Path) -> None:
    path = shared_data / "zeroshot" / f"{task}.jsonl"
    assert count_documents(path, TASKS[task].fields) == REAL[task]


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        ("boolq", "passage", None),
        ("boolq", "passage", "  "),
        ("boolq", "question", 7),
        ("boolq", "label", 2),
        ("boolq", "label", "1"),
        ("boolq", "label", True),
        ("piqa", "sol2", None),
        ("hellaswag", "ctx_b", None),
        ("hellaswag", "ctx_b", 0),
        ("hellaswag", "endings", ["one"]),
        ("hellaswag", "endings", ["one", ""]),
        ("hellaswag", "label", "4"),
        ("hellaswag", "label", "-1"),
        ("hellaswag", "label", ""),
        ("hellaswag", "label", True),
        ("winogrande", "sentence", "no gap"),
        ("winogrande", "answer", "3"),
        ("winogrande", "answer", 1),
        ("arc_easy", "choices.text", None),
        ("arc_easy", "choices", "A"),
        ("arc_easy", "choices.label", ["A", "B"]),
        ("arc_easy", "choices.label", "ABCD"),
        ("arc_easy", "answerKey", "E"),
        ("openbookqa", "answerKey", None),
        ("copa", "question", "why"),
        ("wsc", "span2_index", -1),
        ("wic", "start1", "0"),
        ("mmlu", "answer", 4),
    ],
)
def test_a_wrong_document_is_named(task: str, field: str, value: Any, tmp_path: Path) -> None:
    path = write_task(tmp_path, task)
    change(path, 3, field, value)
    with pytest.raises(Invalid) as caught:
        count_documents(path, TASKS[task].fields)
    message = str(caught.value)
    # A field inside a value of the wrong type is missing.
    assert message.startswith(f"{path}: line 3: field {field!r}") or (
        field == "choices" and f"{path}: line 3: field 'choices.text'" in message
    )
    assert "\n" not in message and len(message) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"goal": "a", "sol1": "b", "so', "not a complete JSON object .*truncated"),
        (b"", "empty line"),
        (b"[1, 2]", r"expected a JSON object, got \[1, 2\]"),
        ('{"goal": "caf\xe9"}'.encode("latin-1"), "not UTF-8: byte 0xe9 at position 14"),
        ('{"goal": "a"}'.encode("utf-16"), "not UTF-8: byte 0xff at position 1"),
        (b'{"goal": "\\ud83d"}', "half of a surrogate pair"),
        (b"\xef\xbb\xbf{}", "not a complete JSON object"),
    ],
)
def test_an_unreadable_line_is_named(line: bytes, expected: str, tmp_path: Path) -> None:
    path = write_task(tmp_path, "piqa")
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[4:]]) + b"\n")
    with pytest.raises(Invalid, match=expected) as caught:
        count_documents(path, TASKS["piqa"].fields)
    assert f"{path}: line 4: " in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "piqa.jsonl"
    path.touch()
    with pytest.raises(Invalid, match="the file is empty"):
        list(read_documents(path, TASKS["piqa"].fields))


def test_item_texts_hold_what_a_model_reads_and_not_the_labels(tmp_path: Path) -> None:
    local = local_source(tmp_path)
    texts = {
        name: list(found) for name, found in item_texts(suite="zeroshot/7", source=local).items()
    }
    assert set(texts) == set(REAL)
    assert texts["openbookqa"][0] == "thing 0 is\nthing 0 a\nplace 0 bb\nnone ccc\nd"
    assert texts["winogrande"][1] == "thing 1 hit place 1 so _ broke.\nthing 1\nplace 1"
    (local.root / "zeroshot" / "piqa.jsonl").unlink()
    assert "piqa" not in item_texts(suite="zeroshot/7", source=local)
