"""BOS in perplexity windows and calibration samples: named, in the key, and per family."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from conftest import make_tiny

from prunebench.errors import Invalid
from prunebench.evaluation.perplexity import perplexity, windows
from prunebench.evaluation.protocols import Protocol, resolve_bos
from prunebench.pruning.architectures import FAMILIES, relies_on_bos
from prunebench.text.calibration import calibration_tokens

ROWS = [f"row number {i} of a short text" for i in range(30)]
BOS = 0


def protocol(**keys):
    return Protocol("ppl/t", "encyclopedia", "test", 16, **keys)


def plain(tokenizer):
    return tokenizer("\n\n".join(ROWS), add_special_tokens=False).input_ids


def test_windows_of_each_kind(tokenizer):
    text = plain(tokenizer)
    first = windows(tokenizer, ROWS, 16)
    assert first[0].tolist() == [BOS, *text[:15]] and first[1].tolist() == text[15:31]
    none = windows(tokenizer, ROWS, 16, bos="none")
    assert none[0].tolist() == text[:16] and none[1].tolist() == text[16:32]
    every = windows(tokenizer, ROWS, 16, bos="window")
    assert every[0].tolist() == [BOS, *text[:15]] and every[1].tolist() == [BOS, *text[15:30]]
    assert every.shape == (len(text) // 15, 16)


def test_the_loss_with_bos_in_every_window_is_that_of_a_plain_loop(tokenizer):
    model = make_tiny("gemma")
    text, losses = plain(tokenizer), []
    for start in range(0, len(text) - 14, 15):
        ids = torch.tensor([[BOS, *text[start : start + 15]]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        losses += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    figure = perplexity(model, tokenizer, ROWS, protocol())
    assert figure["bos"] == "window" and figure["tokens"] == len(losses)
    assert math.log(figure["value"]) == pytest.approx(sum(losses) / len(losses), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_is_window_for_families_that_rely_on_bos(family):
    expected = "window" if family.startswith("gemma") else "text"
    assert relies_on_bos(family) is (expected == "window")
    assert resolve_bos("auto", relies_on_bos=relies_on_bos(family)) == expected
    assert {resolve_bos(b, relies_on_bos=True) for b in ("text", "none")} == {"text", "none"}


def test_a_family_that_nobody_knows_does_not_rely_on_bos():
    assert not relies_on_bos("no-such-family")


def test_each_kind_has_a_key_of_its_own_and_the_papers_key_is_as_it_was():
    keys = [protocol(bos=bos).key for bos in ("auto", "text", "window", "none")]
    assert keys[0] == keys[1] == "ppl/t:encyclopedia-test@16"
    assert keys[2:] == ["ppl/t:encyclopedia-test@16+bos", "ppl/t:encyclopedia-test@16-bos"]


def test_documents_begin_with_bos_where_it_is_asked_for(tokenizer):
    model = make_tiny()
    for bos, tokens in (("text", 5), ("window", 5), ("none", 4)):
        figure = perplexity(model, tokenizer, ["short"], protocol(mode="documents", bos=bos))
        assert (figure["tokens"], figure["truncated"]) == (tokens, 0)


def test_documents_that_were_cut_are_counted(tokenizer):
    rows = ["short", "much longer than sixteen tokens", "another one that is longer"]
    figure = perplexity(make_tiny(), tokenizer, rows, protocol(mode="documents"))
    assert (figure["items"], figure["truncated"]) == (3, 2)
    assert perplexity(make_tiny(), tokenizer, ROWS, protocol())["truncated"] is None


def test_without_a_bos_token_there_is_no_such_window(tokenizer):
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    with pytest.raises(Invalid, match="begin with BOS, and the tokenizer has none"):
        perplexity(make_tiny(), without, ROWS, protocol(bos="window"))
    with pytest.raises(Invalid, match="calibration: bos: window"):
        calibration_tokens(ROWS, without, samples=2, length=8, seed=0, bos="window")


@pytest.mark.parametrize("long", [False, True])
def test_calibration_windows_begin_with_bos_where_it_is_asked_for(tokenizer, monkeypatch, long):
    from prunebench.text import calibration

    monkeypatch.setattr(calibration, "LONG", 100 if long else 10**9)
    rows = ROWS * 20
    drawn = {
        bos: calibration_tokens(rows, tokenizer, samples=4, length=12, seed=3, bos=bos)
        for bos in ("text", "window", "none")
    }
    assert {tuple(t.shape) for t in drawn.values()} == {(4, 12)}
    assert (drawn["window"][:, 0] == BOS).all() and (drawn["window"][:, 1:] != BOS).all()
    assert (drawn["none"] != BOS).all() and (drawn["text"][:, 0] == BOS).sum() <= 1


def test_a_campaign_that_asks_gemma_for_less_is_warned(tmp_path, tokenizer, capsys, monkeypatch):
    import yaml

    from prunebench.cli import main

    make_tiny("gemma").save_pretrained(tmp_path / "g")
    tokenizer.save_pretrained(tmp_path / "g")
    corpus = tmp_path / "data" / "newswire"
    corpus.mkdir(parents=True)
    for split in ("train", "test"):
        (corpus / f"{split}.txt").write_text("text")
    windows = {"name": "ppl/t", "corpora": [{"corpus": "newswire"}], "length": 16}
    raw = {
        "name": "c",
        "models": [{"name": "g", "kind": "local", "path": str(tmp_path / "g")}],
        "data": {"source": "local", "root": str(tmp_path / "data")},
        "methods": ["magnitude"],
        "sparsities": [0.5],
        "calibration": {"corpus": "newswire", "bos": "none"},
        "perplexity": [windows, {**windows, "name": "ppl/bare", "bos": "text"}],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    capsys.readouterr()
    assert main(["validate", str(tmp_path / "c.yaml")]) == 0
    warned = capsys.readouterr().err.splitlines()
    assert ["ppl/bare: bos: text" in warned[0], "calibration: bos: none" in warned[1]] == [True] * 2
    assert len(warned) == 2
    raw["perplexity"], raw["calibration"] = [windows], {"corpus": "newswire"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["validate", str(tmp_path / "c.yaml")]) == 0 and capsys.readouterr().err == ""
