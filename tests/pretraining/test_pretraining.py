"""A recipe at a tiny size on a CPU: stock folder, small shards, the clock, and a killed run."""

from __future__ import annotations

import json
import lzma

import pytest
import torch
import yaml
from conftest import REPOSITORY
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunebench.cli import main
from prunebench.errors import Invalid
from prunebench.pretraining import pretrain, read_recipe, train
from prunebench.pretraining.text import prepare
from prunebench.pretraining.train import Clock, TrainingRun, windows

FILE = REPOSITORY / "config" / "pretrain.yaml"
WORDS = "the river ran past a mill and the miller sang of grain, flour, bread and long days"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with a little of each text."""
    root = tmp_path / "data"
    for corpus in ("wikitext2", "ptb"):
        (root / corpus).mkdir(parents=True)
        lines = [f" = {corpus} {i} = {WORDS}" for i in range(200)]
        (root / corpus / "train.txt").write_text("\n".join(lines) + "\n")
    (root / "gutenberg").mkdir()
    for i in range(2):
        text = "\n".join(f"Chapter {i}.{j}\n{WORDS.title()}" for j in range(200))
        (root / "gutenberg" / f"part-0{i}.txt.xz").write_bytes(lzma.compress(text.encode()))
    monkeypatch.setenv("PRUNEBENCH_DATA", str(root))
    return root


@pytest.fixture
def recipe(tmp_path):
    """The recipe's file with every size cut down."""
    raw = yaml.safe_load(FILE.read_text())
    raw["tokenizer"] = {"vocabulary": 400, "sample_mib": 0.02}
    raw["model"] |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    raw["model"] |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    raw["training"] |= {"minutes": 0.05, "batch": 4, "length": 32, "peak_rate": 0.01}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def test_the_command_makes_a_stock_folder_in_small_shards(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SHARD", "60KB")
    out = tmp_path / "model"
    assert main(["pretrain", "--recipe", str(recipe), "--out", str(out), "--device", "cpu"]) == 0
    shards = list(out.glob("model-*.safetensors"))
    assert len(shards) > 1 and all(p.stat().st_size < 70_000 for p in shards)
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.bfloat16 and len(tokenizer) == model.config.vocab_size == 400
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    strange = "Zürich  has 3 mills,\n\tunseen: 日本"
    ids = tokenizer(strange)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == strange
    log = json.loads((tmp_path / "model.json").read_text())
    assert log["tokens"] == log["steps"] * 4 * 32 > 0 and log["seconds"] >= 3
    assert log["parameters"] == sum(p.numel() for p in model.parameters())
    assert log["loss_curve"][0][2] > log["loss_curve"][-1][2], "it has learnt nothing"
    assert not (tmp_path / "model.work").exists()


def test_a_killed_run_goes_on_from_its_checkpoint(data, recipe, tmp_path, monkeypatch):
    parsed = read_recipe(recipe, minutes=0.02)
    out, state = tmp_path / "model", tmp_path / "model.work" / "state.safetensors"
    prepared = prepare(parsed, state.parent / "text")
    first = TrainingRun(parsed, prepared, state, torch.device("cpu"), seed=0)
    first.train()
    first.spent_s = 0.6  # of 1.2
    first.save()
    again = TrainingRun(parsed, prepared, state, torch.device("cpu"), seed=0)
    assert (again.steps, again.resumed) == (first.steps, 1)
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    moments = [[run.optimizer.state[p] for p in run._trained()] for run in (first, again)]
    assert len(moments[0]) == len(moments[1]) > 0
    assert all(torch.equal(a[key], b[key]) for a, b in zip(*moments, strict=True) for key in a)
    monkeypatch.setattr("prunebench.pretraining.text.learn_tokenizer", None)  # never again
    report = pretrain(parsed, out, device="cpu")
    assert report["resumed"] == 1 and report["steps"] > first.steps
    assert 1.2 <= report["seconds"] < 6


def test_a_run_that_dies_leaves_no_model(data, recipe, tmp_path, monkeypatch):
    def die(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingRun, "train", die)
    with pytest.raises(KeyboardInterrupt):
        pretrain(read_recipe(recipe), tmp_path / "model", device="cpu")
    assert not (tmp_path / "model").exists()


def test_windows_depend_on_the_step_alone_and_come_from_all_texts(data, recipe, tmp_path):
    parsed = read_recipe(recipe)
    prepared = prepare(parsed, tmp_path / "text")
    cpu = torch.device("cpu")
    stream = windows(prepared, parsed, cpu, 0)
    batches = [next(stream) for _ in range(40)]
    assert all(batch.shape == (4, 33) for batch in batches)
    assert torch.equal(next(windows(prepared, parsed, cpu, 0, first=7)), batches[7])
    assert not torch.equal(next(windows(prepared, parsed, cpu, 1)), batches[0])
    begins = torch.cat(batches)[:, 0] == prepared.tokenizer.bos_token_id
    assert 0.02 < begins.float().mean() < 0.25
    text = prepared.tokenizer.decode(torch.cat(batches).flatten())
    assert all(sign in text for sign in ("wikitext2", "ptb", "Chapter"))


def test_the_rate_follows_the_clock(recipe, monkeypatch):
    training = read_recipe(recipe, minutes=1).training
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock(training, before_s=0.0)
    rates = []
    for second in range(0, 60):
        now[0] = 100.0 + second
        rates.append(clock.rate(1))
    assert max(rates) == pytest.approx(training.peak_rate, rel=0.01)
    assert rates.index(max(rates)) <= 2 and rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(training.final_rate, rel=0.1)
    now[0] = 160.0
    assert clock.rate(1) is None and clock.rate(0) == training.final_rate
    assert Clock(training, before_s=59.0).rate(1) == pytest.approx(rates[-1], rel=0.02)


def test_the_30m_recipe_is_what_it_says(data, tmp_path):
    """Its parameters, and that no tensor in bfloat16 is larger than a shard may be."""
    parsed = read_recipe(FILE)
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        config = LlamaConfig(**parsed.model, vocab_size=parsed.vocabulary, tie_word_embeddings=True)
        model = LlamaForCausalLM(config)
    model.tie_weights()
    assert 28e6 < sum(p.numel() for p in model.parameters()) < 33e6
    assert all(2 * p.numel() < 15 * 2**20 for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["text"].append({"share": 1.0}), "text"),
        (lambda raw: raw["text"][0].update(corpus="wiki9"), r"text\[0\].corpus: unknown corpus"),
        (lambda raw: raw["training"].update(rate=1), "unknown key 'rate'"),
        (lambda raw: raw["text"][2].update(files="none/*.txt"), "no files 'none/"),
        (lambda raw: raw["training"].update(length=100_000), "needs 100001 tokens for one window"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(data, recipe, tmp_path, change, message, capsys):
    raw = yaml.safe_load(recipe.read_text())
    change(raw)
    recipe.write_text(yaml.safe_dump(raw))
    assert main(["pretrain", "--recipe", str(recipe), "--out", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert error.count("prunebench: ") == 1
    import re

    assert re.search(message, error)


def test_other_files_are_never_replaced(data, recipe, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.md").write_text("mine")
    with pytest.raises(Invalid, match="training.json"):
        pretrain(read_recipe(recipe, minutes=0.01), tmp_path / "model", device="cpu")
    assert (tmp_path / "model" / "notes.md").read_text() == "mine"
    assert not (tmp_path / "model.work").exists(), "refused before any work"
