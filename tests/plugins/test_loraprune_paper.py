"""LoRAPrune's published numbers: sound, and its two generations of perplexities stay apart."""

from __future__ import annotations

from prunebench.leaderboard.papers.published import read_published
from prunebench.plugins.discovery import discover

NUMBERS = read_published(discover()["loraprune"].folder / "paper.yaml")
TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")


def values(**keys):
    found = [n for n in NUMBERS if all(getattr(n, key) == value for key, value in keys.items())]
    return {number.quantity: number.value for number in found}


def test_generations_share_no_protocol():
    lengths = {(n.version, n.protocol) for n in NUMBERS if n.protocol.startswith("ppl/")}
    assert lengths == {("new", "ppl/2048"), ("old", "ppl/llm-pruner")}


def test_differences_are_those_of_the_abstracts():
    for version, protocol, corpora, gaps in (
        ("new", "ppl/2048", ("wikitext2-test@2048", "ptb-validation@2048"), (4.81, 3.46)),
        ("old", "ppl/llm-pruner", ("wikitext2-test@128", "ptb-validation@128"), (8.0, 16.05)),
    ):
        ours = values(label="LoRAPrune", sparsity=0.5, version=version)
        theirs = values(label="LLM-Pruner", sparsity=0.5, version=version)
        for corpus, gap in zip(corpora, gaps, strict=True):
            key = f"{protocol}:{corpus}"
            assert abs(theirs[key] - ours[key] - gap) < 1e-9


def test_means_fit_their_tasks():
    for sparsity in (0.2, 0.5):
        row = values(label="LoRAPrune", sparsity=sparsity)
        mean = sum(row[f"zeroshot/7:{task}"] for task in TASKS) / 7
        assert abs(mean - row["zeroshot/7:mean"]) < 0.02


def test_memory_is_what_the_abstract_claims():
    key = "profile/loraprune:criterion_memory_gb"
    vanilla = values(label="vanilla criterion")[key]
    assert abs(1 - values(label="LoRAPrune")[key] / vanilla - 0.526) < 5e-4
    assert abs(1 - values(label="LoRAPrune-8bit")[key] / vanilla - 0.642) < 5e-4


def test_every_number_has_its_evidence_and_ratio():
    assert {number.evidence for number in NUMBERS} == {"quoted", "recalled"}
    for number in NUMBERS:
        if number.method == "loraprune":
            assert number.native_ratio == number.sparsity
            assert number.sparsity_definition == "units"
