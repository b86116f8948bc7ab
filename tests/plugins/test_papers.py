"""Published numbers of every plugin: well formed, complete, and their means close."""

from __future__ import annotations

import inspect
from itertools import groupby
from statistics import mean

import pytest
import yaml

from prunebench.errors import Invalid
from prunebench.leaderboard.papers.published import read_paper, read_published
from prunebench.plugins.discovery import discover

PAPERS = {n: p.folder / "paper.yaml" for n, p in discover().items()}
PAPERS = {name: path for name, path in PAPERS.items() if path.is_file()}
LLM_PRUNER = PAPERS["llm_pruner"]


def rows_of(path):
    """Published numbers of each row that prints tasks and their mean: (tasks, mean)."""
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))["published"]
    for row in rows:
        values = dict(zip(row["quantities"], row["values"], strict=True))
        zero_shot = {k: v for k, v in values.items() if k.startswith("zeroshot/")}
        for _, group in groupby(sorted(zero_shot), key=lambda k: k.partition(":")[0]):
            tasks = {k.partition(":")[2]: zero_shot[k] for k in group}
            average = tasks.pop("mean", None)
            if average is not None and all(value is not None for value in tasks.values()):
                yield row, list(tasks.values()), average


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_is_well_formed_and_names_known_methods(name):
    published = read_published(PAPERS[name])
    raw = yaml.safe_load(PAPERS[name].read_text(encoding="utf-8"))
    empty = [row for row in raw["published"] if set(row["values"]) == {None}]
    assert published or raw["claims"]
    assert all(row.get("note") for row in empty), "a row without numbers needs its reason"
    known = discover()
    for number in published:
        assert number.method in known
        if number.method == "dense":
            assert number.sparsity == 0
        given = known[number.method].params(number.params, where=name)
        assert set(number.params) <= set(given)


@pytest.mark.parametrize("name", PAPERS)
def test_nothing_is_published_twice_under_one_description(name):
    keys = [
        (p.model, p.method, p.label, p.sparsity, p.recovery, p.quantity, p.table, p.version)
        for p in read_published(PAPERS[name])
    ]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", PAPERS)
def test_rules_of_claims_speak_of_known_methods_and_parameters(name):
    plugins = discover()
    for claim in read_paper(PAPERS[name], plugins).claims:
        for rule in claim.rules:
            for side in filter(None, (rule.row, rule.against)):
                known = set(plugins[side.method].params_schema)
                if rule.kind.startswith("step_"):
                    known = set(inspect.signature(plugins[side.method].load_step()).parameters)
                assert set(side.params) <= known
            assert rule.value != (0 if rule.form == "difference" else 1), claim.text


def test_a_rule_of_a_claim_is_read_with_its_sides(tmp_path):
    rule = {
        "quantity": "perplexity:wikitext2",
        "row": {"method": "random"},
        "against": {"method": "dense", "sparsity": 0, "recovery": True},
        "sparsity": 0.5,
        "form": "difference",
        "value": -8.0,
    }
    claim = {"claim": "better", "evidence": "read", "judged": [rule]}
    path = tmp_path / "paper.yaml"
    paper = {"title": "A title", "arxiv": "2305.11627"}
    path.write_text(yaml.safe_dump({"paper": paper, "claims": [claim], "published": []}))
    (found,) = read_paper(path, discover()).claims[0].rules
    assert (found.kind, found.name, found.value) == ("perplexity", "wikitext2", -8.0)
    assert (found.row.sparsity, found.row.recovery) == (0.5, None)
    assert (found.against.sparsity, found.against.recovery) == (0, True)
    wrong = {**claim, "judged": [{**rule, "quantity": "speed"}]}
    path.write_text(yaml.safe_dump({"paper": paper, "claims": [wrong], "published": []}))
    with pytest.raises(Invalid, match=r"claims\[0\].judged\[0\].quantity: 'speed' does not match"):
        read_paper(path, discover())


def test_row_means_of_llm_pruner_close():
    checked = list(rows_of(LLM_PRUNER))
    assert len(checked) > 45
    for row, tasks, average in checked:
        assert mean(tasks) == pytest.approx(average, abs=0.0101), row


def test_a_planted_slip_of_the_pen_is_noticed():
    (_, tasks, average), *_ = rows_of(LLM_PRUNER)
    assert mean([tasks[0] + 0.2, *tasks[1:]]) != pytest.approx(average, abs=0.0101)


def test_known_numbers_come_out_with_protocol_source_and_evidence():
    def find(**wanted):
        published = read_published(LLM_PRUNER)
        return [p for p in published if all(getattr(p, k) == v for k, v in wanted.items())]

    wiki = "ppl/llm-pruner:wikitext2-test@128"
    (number,) = find(model="llama-7b", sparsity=0.2, quantity=wiki, recovery="alpaca-50k",
                     label="Element^1")  # fmt: skip
    assert (number.value, number.table, number.version) == (17.58, "Table 1", "current")
    assert (number.protocol, number.evidence) == ("ppl/llm-pruner", "read")
    assert number.params == {"importance": "param_first"} and number.native_ratio == 0.25
    (number,) = find(sparsity=0.5, quantity=wiki, recovery="alpaca-50k", label="Element^1")
    assert (number.value, number.evidence) == (38.12, "recalled")
    (number,) = find(
        model="tinyllama-1.1b", label="Element^1", quantity="ppl/2048:wikitext2-test@2048"
    )
    assert number.value == 17.22
    generations = {p.version: p.value for p in find(label="Element^2", sparsity=0.2, quantity=wiki,
                   model="llama-7b", recovery="none")}  # fmt: skip
    assert generations == {"current": 19.77, "old": 20.89}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0, 2.0]}, r"published\[0\]: expected 1 values, got 2"),
        ({"evidence": "heard"}, r"published\[0\].evidence: 'heard' is not one of"),
        ({"surprise": 1}, "unknown key 'surprise'; known: evidence, label, method"),
        ({"quantities": ["wikitext2"]}, r"quantities\[0\]: 'wikitext2' does not match"),
        ({"sparsity": 20}, r"published\[0\].sparsity: 20 is greater"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, change, message):
    row = {
        "model": "llama-7b",
        "method": "dense",
        "sparsity": 0,
        "sparsity_definition": "none",
        "native_ratio": None,
        "params": {},
        "recovery": "none",
        "quantities": ["ppl/2048:wikitext2-test@2048"],
        "values": [5.69],
        "source": {"table": "Table 1", "version": "v1"},
        "evidence": "recalled",
    }
    path = tmp_path / "paper.yaml"
    paper = {"title": "A title", "arxiv": "2305.11627"}
    path.write_text(yaml.safe_dump({"paper": paper, "published": [row]}), encoding="utf-8")
    assert read_published(path)[0].value == 5.69
    path.write_text(yaml.safe_dump({"paper": paper, "published": [row | change]}), encoding="utf-8")
    with pytest.raises(Invalid, match=message):
        read_published(path)
