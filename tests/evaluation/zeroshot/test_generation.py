"""Answers that a model writes: where they end, what is said of them, and how they are asked."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from zeroshot_documents import local_source, run, write_task

from prunebench.errors import Invalid
from prunebench.evaluation.written import Written
from prunebench.evaluation.zeroshot import load_suite, outcomes, stock
from prunebench.evaluation.zeroshot.harness import Harness
from prunebench.text.source import Source

HOW = {"until": ["\n"], "do_sample": False, "max_gen_toks": 6}
SUITE = """
name: mine
summary: questions
tasks:
"""
GSM8K = (
    "  - {stock: gsm8k, metric: exact_match, filter: strict-match, shots: 2, max_new_tokens: 12,"
    " fewshot: {split: train, seed: %d}}\n"
)
TRIVIA = "  - {stock: triviaqa, metric: exact_match, max_new_tokens: 8}\n"


@pytest.fixture
def local(tmp_path: Path) -> Source:
    for task in ("gsm8k", "triviaqa"):
        write_task(tmp_path, task)
        write_task(tmp_path, task, file=f"{task}.train", items=9)
    return Source(kind="local", root=tmp_path)


@pytest.fixture
def model(tiny: Callable[..., Any]) -> Any:
    return tiny(max_position_embeddings=1024)


def suite_of(tmp_path: Path, *entries: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE + "".join(entries))
    return str(path)


def harness_of(model: Any, tokenizer: Any, *, batch_size: int = 2) -> Harness:
    return Harness(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)


def instances(prompts: list[str], how: dict[str, Any] = HOW) -> list[Instance]:
    return [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(how)), idx=0)
        for prompt in prompts
    ]


def says(text: str, tokenizer: Any) -> Callable[..., torch.Tensor]:
    """A stand-in for generation: the same text after every prompt, then the end of the text."""
    ids = tokenizer(text, add_special_tokens=False).input_ids

    def generate(context: torch.Tensor, max_length: int, **_: Any) -> torch.Tensor:
        row = (ids + [tokenizer.eos_token_id])[: max_length - context.shape[1]]
        return torch.cat([context, torch.tensor([row] * len(context))], dim=1)

    return generate


def test_answers_are_those_of_lm_evals_own_loop(model: Any, tokenizer: Any) -> None:
    prompts = ["Where is it?", "Q", "A much longer question than the others: who was it?", "Who?"]
    requests = instances(prompts, {**HOW, "until": ["q", "e"], "max_gen_toks": 24})
    plain = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=1)
    expected = plain.generate_until(requests)
    assert harness_of(model, tokenizer, batch_size=1).generate_until(requests) == expected
    assert harness_of(model, tokenizer, batch_size=3).generate_until(requests) == expected


def test_a_generation_that_never_stops_is_cut_and_said_to_repeat_itself(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    letter = tokenizer("z", add_special_tokens=False).input_ids[0]

    def always(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(logits).index_fill_(-1, torch.tensor([letter]), 1.0)

    model.lm_head.register_forward_hook(always)
    result = run(model, tokenizer, local, tmp_path, suite=suite_of(tmp_path, GSM8K % 1, TRIVIA))
    answers = result["tasks"]["gsm8k"]["generated"]
    assert (answers["at_limit"], answers["repeating"], answers["empty"]) == (1, 1, 0)
    assert answers["tokens"] == answers["max_new_tokens"] == 12
    assert [sample["answer"] for sample in answers["samples"]] == ["z" * 12] * 3
    assert result["tasks"]["gsm8k"]["value"] == 0 == result["tasks"]["triviaqa"]["value"]


def test_an_empty_answer_is_counted(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = says("", tokenizer)
    monkeypatch.setattr(Harness, "_model_generate", lambda self, **how: end(**how))
    result = run(model, tokenizer, local, tmp_path, suite=suite_of(tmp_path, TRIVIA))
    answers = result["tasks"]["triviaqa"]["generated"]
    assert (answers["empty"], answers["at_limit"], answers["tokens"]) == (1, 0, 0)
    assert answers["samples"][0] == {
        "prompt": "Question: Where is thing 0?\nAnswer:",
        "target": "place 0",
        "answer": "",
    }


def test_a_stop_string_inside_a_token_ends_the_answer_there(model: Any, tokenizer: Any) -> None:
    harness = harness_of(model, tokenizer)
    harness.tokenizer.add_tokens(["end.\nMore"])
    harness._model_generate = says("the end.\nMore of it", harness.tokenizer)
    assert harness.generate_until(instances(["Go on"])) == ["the end."]
    (answer,) = harness.answers.values()
    assert answer.ended and answer.text == "the end."
    harness._model_generate = says("no stop here", harness.tokenizer)
    harness.generate_until(instances(["Go on"]))
    (answer,) = harness.answers.values()
    assert (answer.ended, answer.text) == (False, "no sto")


def test_a_right_answer_is_found_by_the_filter(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = says("#### 3", tokenizer)
    monkeypatch.setattr(Harness, "_model_generate", lambda self, **how: three(**how))
    result = run(model, tokenizer, local, tmp_path, suite=suite_of(tmp_path, GSM8K % 1))
    task = result["tasks"]["gsm8k"]
    assert task["value"] == pytest.approx(1 / 6) and task["filter"] == "strict-match"
    assert (task["chance"], task["majority"]) == (0.0, pytest.approx(1 / 6))


def test_examples_come_from_the_named_split_and_seed_and_are_recorded(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    found = {}
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        found[name] = run(
            model, tokenizer, local, tmp_path / name, suite=suite_of(tmp_path, GSM8K % seed)
        )["tasks"]["gsm8k"]
    first = found["one"]
    assert first["shots"] == 2 and first["fewshot"] == {"split": "train", "seed": 1}
    assert first["prompt"].count("Question: Ana has") == 3
    assert first["prompt"].endswith(
        "Question: Ana has 0 apples and buys 2. How many has she?\nAnswer:"
    )
    assert first == found["again"]
    assert first["prompt"] != found["two"]["prompt"] and first["hash"] != found["two"]["hash"]


def test_examples_that_are_not_there_are_the_reason(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    (tmp_path / "zeroshot" / "gsm8k.train.jsonl").unlink()
    result = run(model, tokenizer, local, tmp_path, suite=suite_of(tmp_path, GSM8K % 1, TRIVIA))
    assert result["tasks"]["gsm8k"]["reason"].endswith("zeroshot/gsm8k.train.jsonl")
    assert result["tasks"]["triviaqa"]["status"] == "ok"


def test_a_model_without_a_chat_template_is_told_so_and_one_with_is_asked_through_it(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    chat = TRIVIA.replace("}", ", chat: true, shots: 1, fewshot: {split: train}}")
    suite = suite_of(tmp_path, chat, GSM8K % 1)
    result = run(model, tokenizer, local, tmp_path, suite=suite)
    assert result["tasks"]["triviaqa"]["reason"] == "the model's tokenizer has no chat template"
    assert result["tasks"]["gsm8k"]["status"] == "ok"
    able = copy.deepcopy(tokenizer)
    able.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
    )
    task = run(model, able, local, tmp_path, suite=suite)["tasks"]["triviaqa"]
    assert task["status"] == "ok" and task["chat"]
    roles = [line.partition("]")[0] for line in task["prompt"].splitlines() if line[:1] == "["]
    assert roles == ["[user", "[assistant", "[user", "[assistant"]


def test_a_question_that_cannot_fit_is_no_zero(
    tiny: Callable[..., Any], tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    small = tiny(max_position_embeddings=8)
    result = run(small, tokenizer, local, tmp_path, suite=suite_of(tmp_path, TRIVIA))
    assert "8 new tokens leave no room" in result["tasks"]["triviaqa"]["reason"]


def test_questions_that_were_cut_are_counted(
    tiny: Callable[..., Any], tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    small = tiny(max_position_embeddings=112)  # room for one example of two
    result = run(small, tokenizer, local, tmp_path, suite=suite_of(tmp_path, GSM8K % 1, TRIVIA))
    assert result["tasks"]["triviaqa"]["truncated"] == 0
    assert result["tasks"]["gsm8k"]["status"] == "skipped"
    assert "longer than the model's 112 positions" in result["tasks"]["gsm8k"]["reason"]


def test_a_tag_pools_the_items_of_its_tasks(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    local = local_source(tmp_path)
    write_task(tmp_path, "arc_easy", items=4)
    entry = "  - {stock: ai2_arc, metric: acc, display: ARC}\n"
    result = run(model, tokenizer, local, tmp_path, suite=suite_of(tmp_path, entry))
    task = result["tasks"]["ai2_arc"]
    apart = run(model, tokenizer, local, tmp_path)["tasks"]
    assert task["items"] == 10
    pooled = 4 * apart["arc_easy"]["acc"] + 6 * apart["arc_challenge"]["acc"]
    assert task["value"] == pytest.approx(pooled / 10)


def test_code_that_a_model_wrote_runs_only_where_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    suite = suite_of(tmp_path, "  - {stock: humaneval, metric: pass@1}\n")
    result = run(model, tokenizer, local, tmp_path, suite=suite)
    assert "set HF_ALLOW_CODE_EVAL=1 to allow it" in result["tasks"]["humaneval"]["reason"]


def test_a_task_that_lm_eval_does_not_have_is_skipped(
    model: Any, tokenizer: Any, local: Source, tmp_path: Path
) -> None:
    suite = suite_of(tmp_path, "  - {stock: gsm9k, metric: acc}\n", TRIVIA)
    result = run(model, tokenizer, local, tmp_path, suite=suite)
    assert "has no definition gsm9k" in result["tasks"]["gsm9k"]["reason"]
    assert result["tasks"]["triviaqa"]["status"] == "ok"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{stock: gsm8k, metric: acc}", "metric 'acc' is not one of gsm8k's: exact_match"),
        ("{stock: gsm8k, metric: exact_match}", "choose one by filter: strict-match, flexible"),
        ("{stock: gsm8k, metric: exact_match, filter: x}", "unknown filter 'x'; known: strict"),
        ("{stock: boolq, metric: acc, filter: x}", "unknown filter 'x'; known: it has no filters"),
    ],
)
def test_an_entry_that_asks_for_what_a_definition_lacks_is_refused(
    tmp_path: Path, entry: str, expected: str
) -> None:
    (task,) = load_suite(suite_of(tmp_path, f"  - {entry}\n")).tasks
    found = stock.find(task)
    assert found is not None
    with pytest.raises(Invalid, match=expected):
        stock.check(task, found)


def test_the_majority_is_the_most_frequent_right_position(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    tasks = run(model, tokenizer, local_source(tmp_path), tmp_path)["tasks"]
    # Six documents: labels in turns of two; answers in turns of three or four choices.
    assert {name: round(task["majority"] * 6) for name, task in tasks.items()} == {
        "boolq": 3,
        "piqa": 3,
        "hellaswag": 2,
        "winogrande": 3,
        "arc_easy": 2,
        "arc_challenge": 2,
        "openbookqa": 2,
    }


def test_there_is_no_majority_where_none_can_be_guessed(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """A metric between right and wrong, and a data set that lists the right choice first."""
    targets = {"choices": ["yes", "no", "never"], "labels": [1, 0, 0]}
    lines = [
        json.dumps({"question": f"Is it {i}?", "mc1_targets": targets, "mc2_targets": targets})
        for i in range(4)
    ]
    (tmp_path / "zeroshot").mkdir()
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        (tmp_path / "zeroshot" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    entries = [
        f"  - {{stock: {name}, metric: acc, chance: 0.4}}\n"
        for name in ("truthfulqa_mc1", "truthfulqa_mc2")
    ]
    source = Source(kind="local", root=tmp_path)
    tasks = run(model, tokenizer, source, tmp_path, suite=suite_of(tmp_path, *entries))["tasks"]
    assert [task["majority"] for task in tasks.values()] == [None, None]
    assert tasks["truthfulqa_mc1"]["value"] in (0, 0.25, 0.5, 0.75, 1)
    assert 0 < tasks["truthfulqa_mc2"]["value"] < 1
    assert tasks["truthfulqa_mc2"]["chance"] == 0.4


@pytest.mark.parametrize(
    ("said", "right"), [("B", True), ("is B!", True), ("b", False), ("A B", False)]
)
def test_pats_answer_is_the_first_capital_letter_of_a_choice(
    monkeypatch: pytest.MonkeyPatch,
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
    said: str,
    right: bool,
) -> None:
    write_task(tmp_path, "boolq", items=1)  # label 0: the second choice, No
    text = says(said, tokenizer)
    monkeypatch.setattr(Harness, "_model_generate", lambda self, **how: text(**how))
    source = Source(kind="local", root=tmp_path)
    result = run(model, tokenizer, source, tmp_path, suite="generation/pat14")
    task = result["tasks"]["pat_boolq"]
    assert task["value"] == float(right)
    assert task["generated"]["max_new_tokens"] == 5
    assert result["tasks"]["pat_copa"]["status"] == "skipped" and result["mean"] is None


def test_every_definition_of_pats_suite_renders_its_documents(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    tasks = load_suite("generation/pat14").tasks
    for task in tasks:
        write_task(tmp_path, task.name.removeprefix("pat_"), file=task.file, items=3)
    source = Source(kind="local", root=tmp_path)
    result = run(model, tokenizer, source, tmp_path, suite="generation/pat14")
    assert {row["status"] for row in result["tasks"].values()} == {"ok"}
    assert result["mean_chance"] == pytest.approx(0.399, abs=5e-4)
    for name, row in result["tasks"].items():
        assert row["prompt"].startswith("Below is an instruction") and "\nA. " in row["prompt"]
        targets = {sample["target"] for sample in row["generated"]["samples"]}
        assert targets <= set("ABCDE"), name


def test_figures_that_are_not_right_or_wrong_are_compared_by_their_means() -> None:
    def items(values: list[float]) -> dict[str, Any]:
        task = {
            "metric": "f1",
            "items": 4,
            "score": values,
            "hashes": dict.fromkeys(("documents", "prompts", "targets"), "0"),
        }
        return {"schema_version": 1, "harness": "h", "tasks": {"drop": task}}

    found = outcomes.paired(items([0.0, 0.5, 1.0, 0.25]), items([0.5, 0.5, 0.5, 0.75]))
    drop = found["tasks"]["drop"]
    assert drop["difference"] == pytest.approx(0.125)
    # sd of (0.5, 0, -0.5, 0.5) is 0.4787
    assert drop["high"] - drop["low"] == pytest.approx(2 * 1.959964 * 0.4787136 / 2, rel=1e-5)
    assert drop["mcnemar_p"] == pytest.approx(1.0)
    assert found["mean"] == drop


@pytest.mark.parametrize(
    ("tokens", "repeating"),
    [
        ([], False),
        ([5, 5, 5], False),
        ([7] * 12, True),
        (list(range(12)), False),
        ([1, 2, 3, 4] * 4, True),
        ([*range(20), *range(20, 26)], False),
    ],
)
def test_a_text_repeats_itself_when_most_of_its_sequences_were_there_before(
    tokens: list[int], repeating: bool
) -> None:
    assert Written("x", tokens, ended=False).repeating is repeating
