"""The demo world: deterministic, in the stock schemas, consistent with its facts, no leaks."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from prunebench.demo import phrases, questions, tasks, text, write_world
from prunebench.demo.facts import ATTRIBUTES, HABITS, make_world
from prunebench.demo.world import NGRAM, ngrams
from prunebench.errors import Invalid

CORPORA = ("encyclopedia", "newswire")
VALUES = {value for values in ATTRIBUTES.values() for value in values}
ONE_FACT = ("demo_piqa", "demo_hellaswag", "demo_arc_easy", "demo_openbookqa")
STR, INT = str, int
CHOICE = {"id": STR, "choices": dict, "answerKey": STR}
SCHEMAS = {
    "demo_boolq": {"question": STR, "passage": STR, "label": INT, "idx": INT},
    "demo_piqa": {"goal": STR, "sol1": STR, "sol2": STR, "label": INT},
    "demo_hellaswag": {
        **{"ind": INT, "activity_label": STR, "ctx_a": STR, "ctx_b": STR, "ctx": STR},
        **{"endings": list, "label": STR},
    },
    "demo_winogrande": {"sentence": STR, "option1": STR, "option2": STR, "answer": STR},
    "demo_arc_easy": CHOICE | {"question": STR},
    "demo_arc_challenge": CHOICE | {"question": STR},
    "demo_openbookqa": CHOICE | {"question_stem": STR},
}
FOUR = ("answerKey", ("A", "B", "C", "D"))
LABEL = {
    "demo_boolq": ("label", (0, 1)),
    "demo_piqa": ("label", (0, 1)),
    "demo_hellaswag": ("label", ("0", "1", "2", "3")),
    "demo_winogrande": ("answer", ("1", "2")),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "world"
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def world():
    return make_world(0)


def rows(root: Path, corpus: str, split: str) -> list[str]:
    return (root / corpus / f"{split}.txt").read_text(encoding="utf-8").splitlines()


def jsonl(root: Path, path: str) -> list[dict]:
    return [json.loads(line) for line in (root / path).read_text(encoding="utf-8").splitlines()]


def items(root: Path, task: str) -> list[dict]:
    return jsonl(root, f"zeroshot/{task}.jsonl")


def training_texts(root: Path) -> list[str]:
    lines = [row for corpus in CORPORA for row in rows(root, corpus, "train")]
    lines += [v for row in jsonl(root, "instructions/train.jsonl") for v in row.values()]
    return lines


def gold_text(task: str, item: dict) -> str:
    """The true choice of an item, as the harness would pick it."""
    if task == "demo_boolq":
        return ("no", "yes")[item["label"]]
    if task == "demo_piqa":
        return item[f"sol{item['label'] + 1}"]
    if task == "demo_hellaswag":
        return item["endings"][int(item["label"])]
    if task == "demo_winogrande":
        return item[f"option{item['answer']}"]
    return item["choices"]["text"]["ABCD".index(item["answerKey"])]


def test_same_seed_same_bytes_other_seed_other_bytes(root, tmp_path):
    again = write_world(tmp_path / "again")
    other = write_world(tmp_path / "other", seed=1)
    files = {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    assert again.keys() == files.keys() == other.keys()
    for path, content in files.items():
        assert (tmp_path / "again" / path).read_bytes() == content, path
        assert (tmp_path / "other" / path).read_bytes() != content, path
        assert again[path] != other[path], path


def test_nothing_is_named_after_a_corpus_that_it_is_not(root):
    paths = [str(path.relative_to(root)).lower() for path in root.rglob("*")]
    assert not [p for p in paths if "wikitext" in p or "ptb" in p or "penn" in p]
    assert {p.stem for p in (root / "zeroshot").iterdir()} == set(SCHEMAS) == set(tasks.TASKS)


@pytest.mark.parametrize("task", SCHEMAS)
def test_every_item_has_the_stock_schema(root, task):
    found = items(root, task)
    assert 100 <= len(found) <= 200
    for item in found:
        assert set(item) == set(SCHEMAS[task])
        for field, kind in SCHEMAS[task].items():
            assert type(item[field]) is kind, (field, item)
            assert item[field] not in ("", [], {})
        if "choices" in item:
            assert item["choices"]["label"] == ["A", "B", "C", "D"]
            assert len(set(item["choices"]["text"])) == 4
        if "endings" in item:
            assert len(set(item["endings"])) == 4
            assert item["ctx"] == f"{item['ctx_a']} {item['ctx_b']}"
        if "sentence" in item:
            assert item["sentence"].count("_") == 1
            assert item["option1"] != item["option2"]
        if "sol1" in item:
            assert item["sol1"] != item["sol2"]


@pytest.mark.parametrize("task", SCHEMAS)
def test_labels_are_balanced_and_items_differ(root, task):
    found = items(root, task)
    field, values = LABEL.get(task, FOUR)
    counts = Counter(item[field] for item in found)
    assert set(counts) == set(values)
    assert max(counts.values()) - min(counts.values()) <= 1
    names = {"id", "idx", "ind"}
    texts = {json.dumps({k: v for k, v in i.items() if k not in names}) for i in found}
    assert len(texts) == len(found)


@pytest.mark.parametrize("task", ONE_FACT)
def test_the_true_choice_alone_agrees_with_the_facts(root, world, task):
    for item in items(root, task):
        joined = " ".join(tasks.strings(item))
        (animal,) = (a for a in world.animals if f" {a}" in joined)
        true = set(world.facts[animal].values())
        if task == "demo_piqa":
            choices = [item["sol1"], item["sol2"]]
        else:
            choices = item["endings"] if task == "demo_hellaswag" else item["choices"]["text"]
        told = [choice for choice in choices if true & set(ngrams(choice, 1))]
        assert told == [gold_text(task, item)], item


def test_passages_answer_their_questions(root, world):
    for item in items(root, "demo_boolq"):
        (animal,) = (a for a in world.animals if a in ngrams(item["passage"], 1))
        (habit,) = (
            habit
            for habit, forms in questions.CHECKS.items()
            if item["question"] in [form.format(n=animal) for form in forms]
        )
        truth = bool(item["label"])
        assert world.habits[animal][habit] is truth
        told, denied = (
            {
                phrase.format(A=subject, n=animal)
                for phrase in phrases.HABITS[habit][side]
                for subject in ("It", f"The {animal}")
            }
            for side in (truth, not truth)
        )
        said = {f"{sentence.strip('.')}." for sentence in item["passage"].split(". ")}
        assert said & told and not said & denied, item


def test_gaps_fit_only_the_true_animal(root, world):
    for item in items(root, "demo_winogrande"):
        (value,) = ngrams(item["sentence"], 1) & VALUES
        options = (item["option1"], item["option2"])
        fits = [o for o in options if value in world.facts[o].values()]
        assert fits == [gold_text("demo_winogrande", item)], item


def test_double_questions_have_one_choice_with_both_facts(root, world):
    for item in items(root, "demo_arc_challenge"):
        (animal,) = (a for a in world.animals if a in ngrams(item["question"], 1))
        true = set(world.facts[animal].values())
        right = [len(true & ngrams(choice, 1)) for choice in item["choices"]["text"]]
        assert sorted(right) == [0, 1, 1, 2], item
        assert right["ABCD".index(item["answerKey"])] == 2


def test_training_text_states_every_fact_in_many_ways(root, world):
    articles = rows(root, "encyclopedia", "train")
    stated = Counter()
    for animal, own in world.facts.items():
        for attribute, value in own.items():
            for phrase in phrases.ENCYCLOPEDIA[attribute]:
                sentence = phrase.format(A=f"The {animal}", n=animal, v=value)
                stated[animal, attribute] += any(sentence in row for row in articles)
    assert len(stated) == len(world.animals) * len(ATTRIBUTES)
    # One of the six phrasings of a fact is kept for evaluation text.
    assert set(stated.values()) == {5}


def test_training_text_states_every_habit(root, world):
    articles = rows(root, "encyclopedia", "train")
    for animal, habit in product(world.animals, HABITS):
        counts = {
            side: sum(
                any(p.format(A=f"The {animal}", n=animal) in row for row in articles)
                for p in phrases.HABITS[habit][side]
            )
            for side in (True, False)
        }
        truth = world.habits[animal][habit]
        # Of three phrasings one is kept for evaluation text; the opposite is never said.
        assert counts == {truth: 2, not truth: 0}


def test_training_text_never_contradicts_the_facts(root, world):
    for row in rows(root, "encyclopedia", "train"):
        names = [a for a in world.animals if a in ngrams(row, 1)]
        values = ngrams(row, 1) & VALUES
        assert any(values <= set(world.facts[name].values()) for name in names), row


def test_evaluation_text_shares_no_long_run_of_words_with_training(root):
    seen = {gram for line in training_texts(root) for gram in ngrams(line)}
    lines = set(training_texts(root))
    for corpus in CORPORA:
        for split in ("validation", "test"):
            fresh = rows(root, corpus, split)
            assert not lines & set(fresh)
            assert [row for row in fresh if seen & ngrams(row)] == []
    for task in SCHEMAS:
        for item in items(root, task):
            assert all(not seen & ngrams(value) for value in tasks.strings(item)), item
    # The check can fail: training text is found in itself.
    assert seen & ngrams(next(line for line in lines if len(line.split()) > NGRAM))


def test_evaluation_questions_are_not_asked_in_training(root):
    asked = {row["instruction"] for row in jsonl(root, "instructions/train.jsonl")}
    for task, field in (
        ("demo_piqa", "goal"),
        ("demo_arc_easy", "question"),
        ("demo_arc_challenge", "question"),
    ):
        assert not asked & {item[field] for item in items(root, task)}
    sentences = "\n".join(training_texts(root))
    for item in items(root, "demo_winogrande"):
        assert item["sentence"].replace("_", gold_text("demo_winogrande", item)) not in sentences
    for item in items(root, "demo_openbookqa"):
        assert f"{item['question_stem']} {gold_text('demo_openbookqa', item)}." not in sentences
    for item in items(root, "demo_hellaswag"):
        assert f"{item['ctx_a']} {item['ctx_b'].capitalize()}" not in sentences


def test_instructions_are_distinct_and_complete(root):
    found = jsonl(root, "instructions/train.jsonl")
    assert len(found) > 1500
    assert len({json.dumps(row) for row in found}) == len(found)
    for row in found:
        assert list(row) == ["instruction", "input", "output"]
        assert row["instruction"] and row["output"]
    answers = Counter(row["output"] for row in found if row["input"])
    assert set(answers) == {"yes", "no"}
    assert abs(answers["yes"] - answers["no"]) < 0.1 * answers.total()


def test_rows_are_single_lines(root, world):
    rng = random.Random(0)
    made = [text.article(world, rng, held_out=False) for _ in range(50)]
    made += [text.news(world, rng, held_out=True) for _ in range(50)]
    assert all(row == row.strip() and len(row.splitlines()) == 1 for row in made)
    assert len(rows(root, "encyclopedia", "test")) == len(rows(root, "newswire", "test")) == 200


def test_an_older_world_is_replaced_and_other_files_are_not(tmp_path):
    target = tmp_path / "world"
    first = write_world(target)
    (target / "stray.txt").write_text("left behind")
    assert write_world(target) == first
    assert not (target / "stray.txt").exists()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(Invalid, match="world.json"):
        write_world(precious)
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "world"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "demo_boolq", lambda world, rng, fresh: [{"label": {1, 2}}])
    with pytest.raises(TypeError):
        write_world(tmp_path / "world")
    assert list(tmp_path.iterdir()) == []
