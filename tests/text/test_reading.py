"""One reader for all text: lines end at line feeds only, and a byte order mark is no text."""

from __future__ import annotations

import json
import lzma

import pytest

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot.check import read_documents
from prunebench.files import json_lines, numbered_lines, read_text, read_yaml
from prunebench.text.source import Source

ODD = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
ROWS = [{"instruction": ODD, "input": "", "output": "one"}, {"instruction": "x", "output": "two"}]
MARK = b"\xef\xbb\xbf"


def lines_of(rows, *, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_instructions_and_tasks_are_read_alike(tmp_path, end, mark):
    file = tmp_path / "alpaca" / "train.jsonl"
    file.parent.mkdir()
    # JSON itself forbids raw control characters in strings, so they are escaped there.
    file.write_bytes(mark + lines_of(ROWS, end=end))
    found = Source("local", tmp_path).instructions("alpaca")
    assert [row["instruction"] for row in found] == [ODD, "x"]
    assert [number for number, _ in json_lines(file)] == [1, 2]
    documents = list(read_documents(file, {"instruction": "text", "output": "text"}))
    assert [d["instruction"] for d in documents] == [ODD, "x"]


def test_the_harness_reads_the_same_items_from_such_a_file(tmp_path):
    import datasets

    file = tmp_path / "t.jsonl"
    file.write_bytes(MARK + lines_of(ROWS, end="\r\n"))
    theirs = datasets.load_dataset("json", data_files={"t": str(file)}, split="t")
    assert [row["instruction"] for row in theirs] == [row["instruction"] for row in ROWS]


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_text_of_a_corpus(tmp_path, packed):
    content = MARK + "first\u2028line\r\nsecond\n".encode()
    path = tmp_path / ("t.txt.xz" if packed else "t.txt")
    path.write_bytes(lzma.compress(content) if packed else content)
    assert read_text(path) == "first\u2028line\nsecond\n"


def test_corpora_are_cut_at_line_feeds_alone(tmp_path):
    file = tmp_path / "ptb" / "test.txt"
    file.parent.mkdir()
    file.write_bytes(MARK + " one \u2028 more \r\n two \n".encode())
    assert Source("local", tmp_path).rows("ptb", "test") == ["one \u2028 more", "two"]


def test_yaml_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(MARK + b"name: x\n")
    assert read_yaml(path) == {"name": "x"}


def test_the_line_that_is_wrong_is_named_in_spite_of_odd_characters(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines_of(ROWS) + b"\n{broken\n")
    with pytest.raises(Invalid, match=r"t.jsonl:3: not valid JSON"):
        json_lines(path)
    path.write_bytes(lines_of(ROWS) + b'\n{"a": "\xff"}\n')
    with pytest.raises(Invalid, match=r"t.jsonl:3: expected UTF-8"):
        json_lines(path)


def test_half_an_xz_file_is_refused(tmp_path):
    path = tmp_path / "t.txt.xz"
    path.write_bytes(lzma.compress(b"text " * 100)[:-20])
    with pytest.raises(Invalid, match="not a whole xz file"):
        read_text(path)


def test_lines_are_numbered_from_one_and_lose_their_ends(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"a\r\n\nb")
    assert list(numbered_lines(path)) == [(1, b"a"), (2, b""), (3, b"b")]
