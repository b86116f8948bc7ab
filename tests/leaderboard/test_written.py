"""What models wrote, on the page: beside each other, dense first, and never as markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import factory
from .factory_written import PROMPTS, QUESTIONS, with_written
from .test_page import HOSTILE, Tags, data_of, page, rich


def campaign(*methods: str, **more: Any) -> list[dict[str, Any]]:
    grid = {"methods": methods or ("pat", "random"), "sparsities": (0.2, 0.5)} | more
    return [with_written(record) for record in factory.campaign(**grid)]


def written(records: list[dict[str, Any]], out: Path) -> list[dict[str, Any] | None]:
    return data_of(page(records, out))["written"]


def test_questions_stand_once_with_every_rows_answer_dense_first(tmp_path: Path) -> None:
    (section,) = written(campaign(), tmp_path)
    assert section is not None
    rows = [(row["name"], row["sparsity"]) for row in section["rows"]]
    assert rows[0] == ("dense", "0 %") and [sparsity for _, sparsity in rows[1:]] == [
        *["20 %"] * 2,
        *["50 %"] * 2,
    ]
    task = section["tasks"][0]
    assert [each["name"] for each in section["tasks"]] == ["gsm8k", "triviaqa"]
    assert task["how"] == "5-shot, at most 64 new tokens, scored by exact_match"
    assert [(q["prompt"], q["target"]) for q in task["questions"]] == list(QUESTIONS[:3])
    answers = task["questions"][0]["answers"]
    assert answers[0] == " Paris, says dense 0 seed 0"
    assert answers[1:] == [
        f" Paris, says {name} {float(sparsity.rstrip(' %')) / 100:g} seed 0"
        for name, sparsity in rows[1:]
    ]


def test_prompts_stand_once_with_every_rows_text(tmp_path: Path) -> None:
    (section,) = written(campaign(), tmp_path)
    assert section is not None
    texts = section["texts"]
    assert texts["tokens"] == "48" and [p["prompt"] for p in texts["prompts"]] == list(PROMPTS)
    dense, pruned = texts["prompts"][0]["texts"][:2]
    assert dense == [" and dense 0 goes on", True, False] and pruned[1:] == [False, True]


def test_a_row_without_an_answer_has_none_and_the_next_seed_speaks_for_it(tmp_path: Path) -> None:
    lost = {"status": "failed", "reason": "out of memory"}
    records = campaign("pat", sparsities=(0.5,))
    for record in records:
        if record["cell"]["seed"] == 0 and record["cell"]["label"] == "pat":
            record["generation"]["tasks"]["gsm8k"] = lost
        if record["cell"]["label"] == "pat":
            record["generation"]["tasks"]["triviaqa"] = lost
    (section,) = written(records, tmp_path)
    assert section is not None
    gsm8k, triviaqa = (task["questions"][0]["answers"] for task in section["tasks"])
    assert gsm8k[1].endswith("seed 1") and triviaqa == [" Paris, says dense 0 seed 0", None]


def test_of_many_rows_dense_and_the_best_of_each_sparsity_are_shown_at_first(
    tmp_path: Path,
) -> None:
    (few,) = written(campaign(), tmp_path / "few")
    (many,) = written(campaign(*factory.METHODS), tmp_path / "many")
    assert few is not None and all(row["shown"] for row in few["rows"])
    assert many is not None and len(many["rows"]) == 15
    shown = [(row["sparsity"], row["name"]) for row in many["rows"] if row["shown"]]
    assert [sparsity for sparsity, _ in shown] == ["0 %", *["20 %"] * 2, *["50 %"] * 2]
    assert shown[1][1] == "pat"


def test_long_texts_are_cut_where_the_record_has_them_whole(tmp_path: Path) -> None:
    records = campaign("pat", sparsities=(0.5,), seeds=1)
    for record in records:
        sample = record["generation"]["tasks"]["gsm8k"]["generated"]["samples"][0]
        sample |= {"prompt": "x" * 5000 + "the end", "answer": "the beginning" + "x" * 5000}
    (section,) = written(records, tmp_path)
    assert section is not None
    question = section["tasks"][0]["questions"][0]
    assert question["prompt"].endswith("the end") and len(question["prompt"]) == 700
    assert question["answers"][0].startswith("the beginning")
    assert len(question["answers"][0]) == 1500


def test_sections_are_only_where_something_was_written(tmp_path: Path) -> None:
    text = page(rich(), tmp_path / "none")
    assert data_of(text)["written"] == [None]
    body = text.split("<main>")[1].split("<script")[0]
    assert "<h3>Answers</h3>" not in body and "<h3>Text</h3>" not in body
    assert 'href="#answers' not in text and 'href="#texts' not in text
    records = [*rich("m1"), *campaign(models=("m2",))]
    for record in records:
        record.pop("texts", None)
    text = page(records, tmp_path / "one")
    body = text.split("<main>")[1].split("<script")[0]
    assert body.count("<h3>Answers</h3>") == 1 and "<h3>Text</h3>" not in body
    assert 'href="#answers-1"' in text and 'id="answers-1"' in text


def test_no_text_of_a_model_brings_in_markup(tmp_path: Path) -> None:
    records = hostile()
    text = page(records, tmp_path)
    tags, plain = Tags(text), Tags(page(campaign(), tmp_path / "plain"))
    for kind in ("script", "img", "style", "iframe", "meta", "link"):
        count = [sum(t == kind for t, _ in found.found) for found in (plain, tags)]
        assert count[0] == count[1], kind
    assert not [a for _, a in tags.found if any(name.startswith("on") for name in a)]
    (section,) = data_of(text)["written"]
    assert section["tasks"][0]["questions"][0]["answers"][0] == HOSTILE
    assert section["texts"]["prompts"][0]["texts"][0][0] == HOSTILE


def hostile() -> list[dict[str, Any]]:
    """Records of which every text that a model was given or wrote is markup."""
    records = campaign()
    for record in records:
        tasks = record["generation"]["tasks"]
        tasks[HOSTILE] = tasks.pop("gsm8k")
        for task in tasks.values():
            task["metric"] = HOSTILE
            for sample in task["generated"]["samples"]:
                sample |= {"prompt": sample["prompt"] + HOSTILE, "target": HOSTILE}
                sample["answer"] = HOSTILE
            task["generated"]["stop"] = [HOSTILE]
        for entry in record["texts"]["texts"]:
            entry |= {"prompt": entry["prompt"] + HOSTILE, "text": HOSTILE}
    return records
