"""Data: rows as the hub yields them, from every source, and clear errors for broken files."""

from __future__ import annotations

import json
import lzma

import pytest

from prunebench.errors import Invalid
from prunebench.text.source import PASSAGE, Source, open_source


def local(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Source("local", tmp_path)


def test_rows_are_cut_as_on_the_hub(tmp_path):
    source = local(
        tmp_path,
        {
            "wikitext2/test.txt": " \n = Title = \n \n A line . \n",
            "ptb/validation.txt": " a sentence \n another one \n",
            "tinystories/excerpt.txt": "\nOne.\n<|endoftext|>\n\n<|endoftext|>Two\nlines. ",
        },
    )
    assert source.rows("wikitext2", "test") == ["", " = Title = \n", "", " A line . \n"]
    assert source.rows("ptb", "validation") == ["a sentence", "another one"]
    assert source.rows("tinystories", "train") == ["One.", "Two\nlines."]


def test_books_are_unpacked_and_their_paragraphs_unwrapped(tmp_path):
    text = "CHAPTER I.\n\nA line\n  and its end.\n\n\nAnother."
    source = local(tmp_path, {"gutenberg/part-00.txt.xz": lzma.compress(text.encode())})
    assert source.rows("books", "train") == ["CHAPTER I.", "A line and its end.", "Another."]
    (tmp_path / "gutenberg" / "part-00.txt.xz").write_bytes(lzma.compress(text.encode())[:-9])
    with pytest.raises(Invalid, match="part-00.txt.xz: not a whole xz file"):
        source.rows("books", "train")


def test_passages_hold_every_row_once_and_are_long_enough(tmp_path):
    rows = [f"row {i} " + "x" * (i % 700) for i in range(200)]
    source = local(tmp_path, {"ptb/train.txt": "\n".join(rows)})
    passages = source.passages("ptb")
    assert [row for p in passages for row in p["output"].split("\n")] == [r.strip() for r in rows]
    assert {p["instruction"] for p in passages} == {""}
    assert all(len(p["output"]) >= PASSAGE - 700 for p in passages[:-1]) and len(passages) > 10


def test_the_real_files_have_the_known_sizes(shared_data):
    source = Source("local", shared_data)
    assert len(source.rows("wikitext2", "test")) == 4358
    assert len(source.rows("ptb", "validation")) == 3370
    assert len(source.rows("tinystories", "train")) == 1911
    assert len(source.instructions("alpaca")) == 9229
    assert sum(len(p["output"]) for p in source.passages("books")) > 11_000_000


@pytest.mark.parametrize(
    "ask, message",
    [
        (("c4", "test"), "unknown corpus 'c4'; known: wikitext2"),
        (("ptb", "dev"), "unknown split 'dev'; known: train"),
        (("ptb", "test"), "no such file: .*ptb/test.txt"),
        (("ptb", "train"), "ptb/train.txt: expected text, found none"),
        (("ptb", "validation"), "ptb/validation.txt: expected UTF-8: .* at byte 2"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, ask, message):
    source = local(tmp_path, {"ptb/train.txt": " \n", "ptb/validation.txt": b"ab\xff"})
    with pytest.raises(Invalid, match=message):
        source.rows(*ask)


RECORD = {"instruction": "Say it.", "input": "", "output": "It."}


def test_instructions_are_records_of_three_texts(tmp_path):
    lines = [json.dumps(RECORD), json.dumps({"instruction": "a", "response": "b"})]
    source = local(tmp_path, {"alpaca/train.jsonl": "\n".join(lines)})
    assert source.instructions("alpaca") == [
        RECORD,
        {"instruction": "a", "input": "", "output": "b"},
    ]


@pytest.mark.parametrize(
    "second, message",
    [
        ('{"instruction": "x"', r"train.jsonl:2: not valid JSON"),
        ('{"instruction": "x"}', r"train.jsonl:2: expected a text 'output', got None"),
        (
            '{"instruction": 3, "output": ""}',
            r"train.jsonl:2: expected a text 'instruction', got 3",
        ),
        ("[1]", r"train.jsonl:2: expected an object, got list"),
    ],
)
def test_a_wrong_line_is_named_by_number(tmp_path, second, message):
    text = json.dumps(RECORD) + "\n" + second + "\n"
    with pytest.raises(Invalid, match=message):
        local(tmp_path, {"alpaca/train.jsonl": text}).instructions("alpaca")


def test_hub_loads_the_same_rows_from_a_stand_in(tmp_path, monkeypatch):
    """The real loading code against a folder of the hub's form, through datasets itself."""
    import datasets

    rows = {"text": ["", " = Title = \n", " A line . \n"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "test.parquet")
    asked = []

    def stand_in(name, configuration=None, *, split, revision=None, original=datasets.load_dataset):
        asked.append((name, configuration, split, revision))
        files = {"test": str(tmp_path / "test.parquet")}
        return original("parquet", data_files=files, split=split, cache_dir=str(tmp_path / "c"))

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    assert Source("hub").rows("wikitext2", "test") == rows["text"]
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test", None)]
    assert Source("hub").task_file("boolq") is None


def test_hub_without_network_is_one_line_that_says_what_to_do(monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the hub\nafter 5 retries")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(Invalid, match="data set 'Salesforce/wikitext', split 'test'") as caught:
        Source("hub").rows("wikitext2", "test")
    assert "\n" not in str(caught.value) and "data.source: local" in str(caught.value)
    with pytest.raises(Invalid, match="'encyclopedia' is not on the hub"):
        Source("hub").rows("encyclopedia", "test")


def test_the_root_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNEBENCH_DATA", str(tmp_path))
    assert open_source("local", None, demo_root=tmp_path / "demo").root == tmp_path
    assert open_source("demo", None, demo_root=tmp_path / "demo").root == tmp_path / "demo"
    with pytest.raises(Invalid, match="no such folder"):
        open_source("local", str(tmp_path / "x"), demo_root=tmp_path)
