"""The demo model: a stock folder, a lossless tokenizer with BOS first, batches as declared."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import islice

import pytest

torch = pytest.importorskip("torch")

from prunebench.demo import pretrain, tasks, write_world  # noqa: E402
from prunebench.demo.train import RECIPE, _batches, _rate, _read  # noqa: E402
from prunebench.errors import Invalid  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "world"
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "demo-llama"
    return out, pretrain(root, out, steps=3, threads=1)


def test_stock_transformers_loads_the_folder(trained, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, report = trained
    assert not list(out.glob("*.bin")) and list(out.glob("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert model.config.model_type == "llama"
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.config.max_position_embeddings >= 256
    assert len(tokenizer) == model.config.vocab_size == report["vocabulary"] < 1100
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == report["parameters"]
    assert 0.8e6 < parameters < 1.3e6
    ids = tokenizer("The forest", return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(ids).logits).all()


def test_the_tokenizer_puts_bos_first_and_loses_nothing(trained, root):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained[0], local_files_only=True)
    known = (root / "encyclopedia" / "test.txt").read_text(encoding="utf-8")[:2000]
    strange = "Zürich  has 3 quokkas,\n\tnever seen before: 日本"
    for text in (known, strange):
        ids = tokenizer(text)["input_ids"]
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == [tokenizer.bos_token_id, *plain]
        assert tokenizer.decode(plain) == text
        assert tokenizer.unk_token_id not in plain
    # A prompt and its answer are tokenized apart as they are together, as scoring choices needs.
    prompt = tokenizer("Question: does it swim?\nAnswer:")["input_ids"]
    whole = tokenizer("Question: does it swim?\nAnswer: yes")["input_ids"]
    assert whole[: len(prompt)] == prompt and len(whole) == len(prompt) + 1


def test_every_word_of_the_world_is_one_token(trained, root):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained[0], local_files_only=True)
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    texts = [path.read_text(encoding="utf-8") for path in root.glob("*/test.txt")]
    for path in root.glob("zeroshot/*.jsonl"):
        items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        named = [{k: v for k, v in item.items() if k != "id"} for item in items]
        strings = [text for item in named for text in tasks.strings(item)]
        texts += [text.replace("_", "animal") for text in strings if len(text) > 1]
    for text in texts:
        # Text stands at the start of a prompt or after a space in it.
        assert any(
            tokenizer.tokenize(placed) == [piece for piece, _ in split(placed)]
            for placed in (text, f" {text}")
        ), text
    assert len(tokenizer.tokenize(" quokka")) == len(" quokka")


def test_the_log_tells_what_was_done(trained):
    out, report = trained
    assert json.loads((out / "training.json").read_text()) == report
    assert report["steps"] == 3 and report["seed"] == 0
    assert report["tokens"] == 3 * RECIPE.batch * RECIPE.length
    assert report["loss_curve"][-1]["step"] == 3
    assert set(report["data_sha256"]) == {
        "encyclopedia/train.txt",
        "newswire/train.txt",
        "instructions/train.jsonl",
    }


def test_training_is_a_function_of_the_seed_and_leaves_no_trace(trained, root, tmp_path):
    _, report = trained
    before = torch.get_num_threads(), torch.get_rng_state()
    again = pretrain(root, tmp_path / "again", steps=3, threads=1)
    assert again["loss_curve"] == report["loss_curve"]
    other = pretrain(root, tmp_path / "other", steps=3, seed=1, threads=1)
    assert other["loss_curve"] != report["loss_curve"]
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_batches_are_windows_of_one_stream(root):
    ids = {kind: [[0, 5, 6, 7]] for kind in _read(root)}
    recipe = replace(RECIPE, batch=4, length=16)
    batches = list(islice(_batches(ids, [9, 9], recipe, random.Random(0)), 8))
    assert all(batch.shape == (4, 17) for batch in batches)
    windows = torch.cat(batches)
    # Each window starts with the token that the one before it predicted last.
    assert torch.equal(windows[1:, 0], windows[:-1, -1])
    starts = (windows[:, :-1] == 5).sum().item()
    with_bos = (windows[:, :-1] == 0).sum().item()
    assert 0.3 < with_bos / starts < 0.7


def test_the_rate_rises_then_falls():
    rates = [_rate(step, RECIPE) for step in range(RECIPE.steps)]
    top = rates.index(max(rates))
    assert abs(top - RECIPE.warmup_steps) <= 1
    assert max(rates) == pytest.approx(RECIPE.peak_rate)
    assert rates[-1] == pytest.approx(RECIPE.final_rate, rel=0.05)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_a_folder_without_a_world_is_refused(tmp_path):
    with pytest.raises(Invalid, match="encyclopedia"):
        pretrain(tmp_path, tmp_path / "model", steps=1)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_replaced(root, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(Invalid, match="training.json"):
        pretrain(root, tmp_path, steps=1)
    assert (tmp_path / "notes.md").read_text() == "mine"
