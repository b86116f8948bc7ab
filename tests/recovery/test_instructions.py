"""Encoding: template text, label masks, truncation, order, and the token budget."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tuning_toy import examples, settings, tokenizer

from prunebench.errors import Invalid
from prunebench.recovery import Collator, encode, prompt

ASK = {"instruction": "Say hi", "input": "", "output": "Hi!"}


@pytest.fixture(scope="module")
def toy_tokenizer():
    return tokenizer()


def test_template_without_input():
    assert prompt(ASK) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSay hi\n\n### Response:\n"
    )


def test_template_with_input_and_with_braces_in_it():
    assert prompt({"instruction": "Run {x}", "input": "{input} {}"}) == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nRun {x}\n\n### Input:\n{input} {}\n\n### Response:\n"
    )


def test_labels_cover_the_response_and_its_end_token_only(toy_tokenizer):
    data = encode([ASK], toy_tokenizer, settings(batch=1, micro_batch=1, tokens=None), seed=0)
    example = data.dataset[0]
    labelled = [label for label in example["labels"] if label != -100]
    assert toy_tokenizer.decode(labelled) == "Hi!</s>"
    assert toy_tokenizer.decode(example["input_ids"]) == f"<s>{prompt(ASK)}Hi!</s>"
    assert example["input_ids"].count(toy_tokenizer.eos_token_id) == 1
    assert len(example["labels"]) == len(example["input_ids"])


def test_loss_on_all_labels_all_but_the_first_position(toy_tokenizer):
    data = encode(
        [ASK], toy_tokenizer, settings(batch=1, micro_batch=1, tokens=None, loss_on="all"), seed=0
    )
    example = data.dataset[0]
    assert example["labels"] == [-100, *example["input_ids"][1:]]


def test_plain_text_has_no_prompt_and_every_token_but_the_first_is_labelled(toy_tokenizer):
    plain = settings(batch=1, micro_batch=1, tokens=None, template="none")
    data = encode([{"instruction": "", "output": "Hi there."}], toy_tokenizer, plain, seed=0)
    example = data.dataset[0]
    assert toy_tokenizer.decode(example["input_ids"]) == "<s>Hi there.</s>"
    assert example["labels"] == [-100, *example["input_ids"][1:]]
    with pytest.raises(Invalid, match="record 0: the instruction is empty"):
        encode(
            [{"instruction": "", "output": "Hi"}],
            toy_tokenizer,
            dataclasses.replace(plain, template="alpaca"),
            seed=0,
        )


def test_a_tokenizer_that_ends_every_text_gives_one_end_token(toy_tokenizer):
    class Ending:
        eos_token_id, pad_token_id = toy_tokenizer.eos_token_id, None

        def __call__(self, texts, **how):
            rows = toy_tokenizer(texts, **how)["input_ids"]
            return {"input_ids": [[*row, self.eos_token_id] for row in rows]}

    one = settings(batch=1, micro_batch=1, tokens=None)
    assert (
        encode([ASK], Ending(), one, seed=0).ids_sha256
        == encode([ASK], toy_tokenizer, one, seed=0).ids_sha256
    )


def test_long_examples_are_cut_and_promptless_ones_left_out(toy_tokenizer):
    long_answer = {**ASK, "output": "word " * 200}
    long_prompt = {**ASK, "instruction": "word " * 200}
    data = encode(
        [long_answer, long_prompt],
        toy_tokenizer,
        settings(batch=1, micro_batch=1, tokens=None, length=64),
        seed=0,
    )
    assert [len(data.dataset[at]["input_ids"]) for at in range(len(data.dataset))] == [64, 64]
    assert toy_tokenizer.eos_token_id not in data.dataset[0]["input_ids"]
    assert data.left_out == {"prompt_too_long": 1}


@pytest.mark.parametrize("budget", [2000, 2345, 7777])
def test_the_budget_is_spent_to_the_token_or_up_to_a_prompt_that_does_not_fit(
    toy_tokenizer, budget
):
    data = encode(examples(), toy_tokenizer, settings(tokens=budget), seed=0)
    lengths = [len(data.dataset[at]["input_ids"]) for at in range(len(data.dataset))]
    assert data.tokens == sum(lengths) == data.tokens_after(data.steps)
    shortest = min(len(row) for row in toy_tokenizer([prompt(r) for r in examples()])["input_ids"])
    assert budget - 96 < data.tokens <= budget
    if data.tokens < budget:
        assert budget - data.tokens <= shortest + 32  # it ended inside a prompt
    assert data.steps == -(-len(lengths) // 8)


def test_a_budget_inside_a_response_is_met_exactly(toy_tokenizer):
    whole = encode(examples(), toy_tokenizer, settings(tokens=3000), seed=0)
    last = len(whole.dataset[9]["input_ids"])
    upto = sum(len(whole.dataset[at]["input_ids"]) for at in range(10))
    data = encode(examples(), toy_tokenizer, settings(tokens=upto - 2), seed=0)
    assert (data.tokens, len(data.dataset)) == (upto - 2, 10)
    assert len(data.dataset[9]["input_ids"]) == last - 2


def test_short_data_is_passed_again_in_another_order(toy_tokenizer):
    few = examples(12)
    data = encode(few, toy_tokenizer, settings(tokens=None, epochs=2), seed=0)
    order = [tuple(data.dataset[at]["input_ids"]) for at in range(24)]
    assert sorted(order[:12]) == sorted(order[12:])
    assert order[:12] != order[12:]
    assert (data.passes, data.steps) == (2.0, 3)
    budget = encode(few, toy_tokenizer, settings(tokens=data.tokens), seed=0)
    assert budget.ids_sha256 == data.ids_sha256  # a budget of two epochs is two epochs


def test_epochs_may_be_a_fraction(toy_tokenizer):
    data = encode(examples(64), toy_tokenizer, settings(tokens=None, epochs=0.5), seed=0)
    assert (len(data.dataset), data.passes) == (32, 0.5)


def test_the_seed_sets_the_order(toy_tokenizer):
    first, again, other = (
        encode(examples(), toy_tokenizer, settings(), seed=seed) for seed in (0, 0, 1)
    )
    assert first.ids_sha256 == again.ids_sha256
    assert first.text_sha256 == again.text_sha256
    assert first.ids_sha256 != other.ids_sha256
    assert first.text_sha256 != other.text_sha256


def test_padding_is_masked_and_carries_no_label():
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [-100]}]
    batch = Collator()(rows)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 7], [8, 0, 0]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, 6, 7], [-100, -100, -100]]))


@pytest.mark.parametrize(
    ("records", "keys", "message"),
    [
        ([], {}, "toy: expected instruction records with a response, got none"),
        ([ASK, {"output": "x"}], {}, "toy: record 1: expected text under 'instruction', got None"),
        ([{"instruction": "x"}], {}, "toy: record 0: expected text under 'output', got None"),
        ([{**ASK, "input": 3}], {}, "toy: record 0: expected text under 'input', got 3"),
        ([{**ASK, "instruction": " "}], {}, "toy: record 0: the instruction is empty"),
        (["text"], {}, "toy: record 0: expected a mapping, got str"),
        (
            [ASK, {**ASK, "output": "\n"}],
            {"empty_response": "error"},
            r"toy: record 1: the response \('output'\) is empty",
        ),
        (
            [ASK] * 20,
            {"tokens": 200},
            "recovery.tokens: .* one batch of 8 examples, got [1-7] ",
        ),
        ([ASK] * 3, {"tokens": None}, "toy: recovery.epochs: .* one batch of 8 examples, got 6 "),
        (
            [ASK] * 20,
            {"length": 8},
            "recovery.length: all 20 prompts are longer.*raise length",
        ),
    ],
)
def test_bad_data_is_refused_with_a_reason(toy_tokenizer, records, keys, message):
    with pytest.raises(Invalid, match=message):
        encode(records, toy_tokenizer, settings(**keys), seed=0, where="toy")


def test_empty_responses_are_counted(toy_tokenizer):
    records = [*examples(), {**ASK, "output": ""}]
    data = encode(records, toy_tokenizer, settings(), seed=0)
    assert data.left_out == {"empty_response": 1}


def test_a_tokenizer_without_end_token_is_refused(toy_tokenizer):
    class Endless:
        eos_token_id = None

    with pytest.raises(Invalid, match="no end token"):
        encode([ASK], Endless(), settings(), seed=0)


def test_the_data_is_frozen(toy_tokenizer):
    data = encode(examples(), toy_tokenizer, settings(), seed=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.tokens = 0


def test_real_alpaca_records(shared_data, toy_tokenizer):
    import json

    lines = (shared_data / "alpaca" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    data = encode(records, toy_tokenizer, settings(tokens=50_000, length=512), seed=0)
    assert data.left_out["empty_response"] == 4
    assert 49_000 < data.tokens <= 50_000


def test_examples_that_were_cut_at_the_length_are_counted(toy_tokenizer):
    short, long = {**ASK, "output": "b"}, {**ASK, "output": "b " * 400}
    whole = encode([short] * 30, toy_tokenizer, settings(tokens=None, epochs=1), seed=0)
    cut = encode([short] * 20 + [long] * 10, toy_tokenizer, settings(tokens=None, epochs=1), seed=0)
    assert whole.summary()["truncated"] == 0 and cut.summary()["truncated"] == 10
