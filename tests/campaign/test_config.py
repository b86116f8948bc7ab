"""Campaign files: what they mean, and one clear line for every mistake."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from prunebench.campaign import config, specs
from prunebench.campaign.config import Cell
from prunebench.campaign.reading import portable, read_files
from prunebench.campaign.settings import Recovery
from prunebench.errors import Invalid
from prunebench.files import read_yaml

CAMPAIGN = {
    "name": "toy",
    "models": [{"name": "demo-llama", "kind": "demo"}],
    "data": {"source": "demo"},
    "methods": ["random", {"name": "magnitude", "params": {"norm": "l1"}, "label": "l1"}],
    "sparsities": [0.5, 0.2],
    "seeds": [0, 1],
    "perplexity": [{"name": "ppl/toy", "corpora": [{"corpus": "newswire"}], "length": 64}],
}
RECOVERY = {"instructions": "demo", "tokens": 1000}


def campaign(**changes):
    return config.build({**copy.deepcopy(CAMPAIGN), **changes}, file="toy.yaml")


def paths(built):
    return [cell.path.removeprefix("demo-llama/") for cell in built.cells]


def test_cells_are_the_grid_and_dense_is_always_in_it():
    assert paths(campaign()) == [
        "dense/0/seed0",
        "random/0.2/seed0",
        "random/0.2/seed1",
        "random/0.5/seed0",
        "random/0.5/seed1",
        "l1/0.2/seed0",
        "l1/0.5/seed0",
    ]


def test_what_no_seed_changes_runs_once_unless_tuning_follows():
    with_recovery = campaign(recovery=RECOVERY, methods=[{"name": "magnitude", "recovery": "both"}])
    assert paths(with_recovery) == [
        "dense/0/seed0",
        "magnitude/0.2/seed0",
        "magnitude/0.5/seed0",
        "magnitude+lora/0.2/seed0",
        "magnitude+lora/0.2/seed1",
        "magnitude+lora/0.5/seed0",
        "magnitude+lora/0.5/seed1",
    ]


def test_a_row_may_have_sparsities_of_its_own():
    methods = ["random", {"name": "magnitude", "sparsities": [0.3, 0.25]}]
    found = [path for path in paths(campaign(methods=methods, seeds=[0])) if "dense" not in path]
    assert found == [
        "random/0.2/seed0",
        "random/0.5/seed0",
        "magnitude/0.25/seed0",
        "magnitude/0.3/seed0",
    ]
    with pytest.raises(Invalid, match=r"methods\[0\].sparsities: dense prunes nothing"):
        campaign(methods=[{"name": "dense", "sparsities": [0.1]}])


def test_a_row_may_have_seeds_of_its_own():
    built = campaign(methods=["random", {"name": "random", "label": "more", "seeds": [4, 2]}])
    seeds = {c.label: [] for c in built.cells}
    for cell in built.cells:
        if cell.sparsity != 0.5:
            seeds[cell.label].append(cell.seed)
    assert seeds == {"dense": [0], "random": [0, 1], "more": [4, 2]}


def test_a_sparsity_may_have_seeds_of_its_own():
    """Where a row names seeds, these are meant."""
    methods = ["random", {"name": "random", "label": "more", "seeds": [4, 2]}]
    built = campaign(methods=methods, seeds_at=[{"sparsities": [0.2], "seeds": [1]}])
    seeds = {(c.label, c.sparsity): [] for c in built.cells}
    for cell in built.cells:
        seeds[cell.label, cell.sparsity].append(cell.seed)
    assert seeds == {
        ("dense", 0.0): [0],
        ("random", 0.2): [1],
        ("random", 0.5): [0, 1],
        ("more", 0.2): [4, 2],
        ("more", 0.5): [4, 2],
    }


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([[0.3]], "seeds_at[0].sparsities: 0.3: no row has this sparsity"),
        ([[0.2], [0.5, 0.2]], "seeds_at[1].sparsities: 0.2: is named twice"),
    ],
)
def test_seeds_at_a_sparsity_that_cannot_be(places, message):
    entries = [{"sparsities": place, "seeds": [0]} for place in places]
    with pytest.raises(Invalid, match=re.escape(message)):
        campaign(seeds_at=entries)


def test_recovery_follows_by_default_and_dense_stays_dense():
    built = campaign(recovery=RECOVERY)
    assert list(built.rows) == ["dense", "random+lora", "l1+lora"]
    assert built.dense.label == "dense" and not built.dense.recovery


def test_dense_with_recovery_is_a_row_beside_dense():
    methods = [{"name": "dense", "recovery": "both"}, "random"]
    built = campaign(recovery=RECOVERY, methods=methods)
    assert list(built.rows) == ["dense", "dense+lora", "random+lora"]
    assert "dense+lora/0/seed1" in paths(built)


def test_defaults_of_methods_are_filled_in():
    row = campaign().rows["l1"]
    assert row.params == {
        "norm": "l1",
        "scope": "layer",
        "per_weight": True,
        "kinds": ["heads", "neurons"],
        "protect_first": "auto",
        "protect_last": "auto",
    }


def test_rows_that_differ_in_recovery_share_the_pruning_job():
    built = campaign(recovery=RECOVERY, methods=[{"name": "random", "recovery": "both"}])
    bare, tuned = Cell("demo-llama", "random", 0.5, 1), Cell("demo-llama", "random+lora", 0.5, 1)
    assert built.pruned(tuned) == built.pruned(bare) == bare
    assert built.rows["random+lora"].recovery and not built.rows["random"].recovery


def test_a_spec_changes_with_what_it_depends_on_and_with_nothing_else():
    cell = Cell("demo-llama", "l1", 0.5, 0)
    first = specs.prune_spec(campaign(), cell)
    assert first == specs.prune_spec(campaign(seeds=[0, 1, 2], profile={"points": [POINT]}), cell)
    assert first != specs.prune_spec(campaign(calibration={"corpus": "newswire"}), cell)
    assert first != specs.prune_spec(campaign(multiple_of={"neurons": 8}), cell)


@pytest.mark.parametrize(
    ("name", "multiples"),
    [
        ("gpu", {"neurons": 64, "hidden": 64}),
        ("nvidia", {"neurons": 512, "hidden": 256}),
        ("deci", {"neurons": 256}),
        ("ggml", {"neurons": 32, "hidden": 32}),
    ],
)
def test_a_preset_is_the_numbers_that_it_stands_for(name, multiples):
    of_all = campaign(multiple_of=name, methods=["random", {"name": "magnitude", "label": "m"}])
    assert all(row.multiple_of == multiples for row in of_all.rows.values())
    row = {"name": "random", "label": "rounded", "multiple_of": name}
    built = campaign(methods=["random", row])
    assert built.rows["rounded"].multiple_of == multiples and not built.rows["random"].multiple_of
    cell = Cell("demo-llama", "rounded", 0.5, 0)
    written_out = {**row, "multiple_of": multiples}
    same = campaign(methods=["random", written_out])
    assert specs.prune_spec(built, cell) == specs.prune_spec(same, cell)


POINT = {"batch": 1, "prompt": 8, "new": 2}
MISTAKES = {
    "unknown method": (
        {"methods": ["dense", "lorapune"]},
        r"toy.yaml: methods\[1\].name: unknown method 'lorapune'; known: adapt_pruner, dense, ",
    ),
    "unknown parameter": (
        {"methods": [{"name": "magnitude", "params": {"nrom": "l1"}}]},
        r"methods\[0\].params: top level: unknown key 'nrom'; known: kinds, norm, ",
    ),
    "wrong parameter": (
        {"methods": [{"name": "magnitude", "params": {"norm": "l3"}}]},
        r"methods\[0\].params: norm: 'l3' is not one of \['l1', 'l2'\]",
    ),
    "unknown key": ({"sparsitys": [0.1]}, "toy.yaml: top level: unknown key 'sparsitys'; known: "),
    "sparsity of one": ({"sparsities": [1.0]}, r"sparsities\[0\]: 1.0 is greater than or equal"),
    "negative sparsity": ({"sparsities": [-0.1]}, r"sparsities\[0\]: -0.1 is less than or equal"),
    "no sparsity": ({"sparsities": []}, r"sparsities: \[\] should be non-empty"),
    "no method": ({"methods": []}, r"methods: \[\] should be non-empty"),
    "no model": ({"models": []}, r"models: \[\] should be non-empty"),
    "missing path": (
        {"models": [{"name": "x", "kind": "local"}]},
        r"models\[0\]: kind 'local' needs the key 'path'",
    ),
    "missing folder": (
        {"models": [{"name": "x", "kind": "local", "path": "/nowhere/x"}]},
        r"models\[0\].path: expected a folder with config.json: /nowhere/x",
    ),
    "same label twice": (
        {"methods": ["random", "random"]},
        r"methods\[1\]: label 'random' is already taken",
    ),
    "same model twice": (
        {"models": [{"name": "x", "kind": "demo"}, {"name": "x", "kind": "demo"}]},
        r"models\[1\].name: 'x' is already taken",
    ),
    "recovery without settings": (
        {"methods": [{"name": "random", "recovery": "both"}]},
        r"methods\[0\].recovery: 'both' needs the campaign's `recovery`",
    ),
    "unknown protocol": (
        {"perplexity": ["ppl/llmpruner"]},
        r"perplexity\[0\]: unknown name 'ppl/llmpruner'; known: ppl/llm-pruner",
    ),
    "unknown corpus": (
        {"calibration": {"corpus": "c4"}},
        r"calibration.corpus: unknown name 'c4'; known: wikitext2",
    ),
    "unknown suite": ({"zeroshot": {"suite": "zeroshot/8"}}, "zeroshot.suite: .*zeroshot/8"),
    "unknown instructions": (
        {"recovery": {"instructions": "dolly"}},
        "recovery.instructions: unknown name 'dolly'",
    ),
    "recovery on two kinds of text": (
        {"recovery": {**RECOVERY, "text": "newswire"}},
        "recovery: expected one of instructions .* and text",
    ),
    "recovery on nothing": ({"recovery": {"tokens": 9}}, "recovery: expected one of instructions"),
    "unknown recovery text": (
        {"recovery": {"text": "c4"}},
        "recovery.text: unknown name 'c4'; known: wikitext2",
    ),
    "wrong recovery key": ({"recovery": {**RECOVERY, "rnak": 8}}, "recovery.rnak: unknown key"),
    "unknown preset": (
        {"multiple_of": "gpus"},
        "multiple_of: unknown preset 'gpus'; known: gpu, nvidia, deci, ggml",
    ),
    "unknown reference": (
        {"reference": "oracle"},
        "reference: unknown name 'oracle'; known: dense",
    ),
    "missing data folder": (
        {"data": {"source": "local", "root": "/nowhere/data"}},
        "toy.yaml: data.root: no such folder: /nowhere/data",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_file_and_key(name):
    changes, message = MISTAKES[name]
    with pytest.raises(Invalid, match=message) as caught:
        campaign(**changes)
    assert str(caught.value).startswith("toy.yaml: ") and "\n" not in str(caught.value)


def test_a_missing_corpus_file_is_known_before_any_job(tmp_path):
    (tmp_path / "newswire").mkdir()
    with pytest.raises(Invalid, match=r"toy.yaml: data: corpus 'newswire', split 'test': no such"):
        campaign(data={"source": "local", "root": str(tmp_path)})


@pytest.mark.parametrize(
    "recovery, message",
    [
        ({"instructions": "alpaca"}, "data: instructions 'alpaca': no such file: .*train.jsonl"),
        ({"text": "books"}, "data: corpus 'books', split 'train': no such file: .*part-00.txt.xz"),
    ],
)
def test_missing_tuning_text_is_known_before_any_job(tmp_path, recovery, message):
    (tmp_path / "newswire").mkdir()
    (tmp_path / "newswire" / "test.txt").write_text("Some news.")
    data = {"source": "local", "root": str(tmp_path)}
    assert campaign(data=data).source == "local"
    with pytest.raises(Invalid, match=f"toy.yaml: {message}"):
        campaign(data=data, recovery={**recovery, "tokens": 9})


def test_plain_text_is_tuned_on_without_a_prompt():
    plain = Recovery({"text": "newswire", "tokens": 9})
    assert (plain.data, plain.settings().template) == ("newswire", "none")
    assert Recovery(RECOVERY).settings().template == "alpaca"


def test_local_data_needs_a_root(monkeypatch):
    monkeypatch.delenv("PRUNEBENCH_DATA", raising=False)
    with pytest.raises(Invalid, match="PRUNEBENCH_DATA, got neither"):
        campaign(data={"source": "local"})


@pytest.mark.parametrize("text", ["a: [", "name: 'x", "\tname: x"])
def test_broken_yaml_says_where(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"broken.yaml: not valid YAML: .*line \d"):
        config.load_campaign(path)


def test_every_shipped_campaign_is_valid(shared_data, shared_models):
    files = sorted((config.Path(__file__).parent.parent.parent / "config").glob("*.yaml"))
    files.remove(files[0].with_name("pretrain.yaml"))  # a recipe: see tests/pretraining
    assert len(files) >= 3
    for file in files:
        raw = yaml.safe_load(file.read_text())
        # `make real` gets a model of its own; all others lie in the folder of small ones.
        there = all((shared_models / m["path"]).is_dir() for m in raw["models"] if "path" in m)
        assert there or file.stem.startswith("smollm2"), file
        assert config.build(raw, file=str(file), check_files=there).cells, file
        assert raw["name"] == file.stem


MATCHED = [
    {"name": "llm_pruner", "label": "taylor"},
    {"name": "random", "matched": "taylor"},
    {"name": "magnitude", "matched": "taylor", "label": "norms"},
]


def test_a_matched_row_waits_for_the_row_that_it_is_matched_to():
    built = campaign(methods=MATCHED, calibration={"corpus": "newswire"})
    assert list(built.rows) == ["dense", "taylor", "random_matched-taylor", "norms"]
    assert built.rows["norms"].matched == "taylor"
    # the counts change with the seed, so the choice by norm does too
    assert "norms/0.5/seed1" in paths(built)
    control = Cell("demo-llama", "norms", 0.5, 1)
    assert specs.matched_cell(built, control) == Cell("demo-llama", "taylor", 0.5, 1)
    assert specs.matched_cell(built, Cell("demo-llama", "taylor", 0.5, 1)) is None


def test_a_row_matched_to_one_that_no_seed_changes_takes_its_only_cell():
    built = campaign(methods=["magnitude", {"name": "random", "matched": "magnitude"}])
    control = Cell("demo-llama", "random_matched-magnitude", 0.5, 1)
    assert specs.matched_cell(built, control) == Cell("demo-llama", "magnitude", 0.5, 0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"matched": "tailor"}, "methods[1].matched: no row 'tailor' to be matched to; known: ta"),
        ({"matched": "dense"}, "methods[1].matched: no row 'dense'"),
        ({"matched": "random", "label": "random"}, "methods[1].matched: no row 'random'"),
        ({"name": "dense", "matched": "taylor"}, "methods[1].matched: dense does not choose units"),
    ],
)
def test_a_row_that_cannot_be_matched_is_refused(entry, message):
    with pytest.raises(Invalid) as error:
        campaign(methods=[MATCHED[0], {"name": "random", **entry}])
    assert message in str(error.value)


def test_a_number_with_an_exponent_is_a_number(tmp_path):
    """YAML 1.1 calls 2e-3 text; nobody who writes it does."""
    file = tmp_path / "a.yaml"
    file.write_text("a: 2e-3\nb: [1E+4, -.5e1, 1.e2]\nc: 2e-3x\nd: '1e5'\ne: 0x1e3\nf: 1.5e-4\n")
    assert read_yaml(file) == {
        "a": 0.002, "b": [10000.0, -5.0, 100.0], "c": "2e-3x", "d": "1e5", "e": 0x1E3, "f": 0.00015,
    }  # fmt: skip


def test_campaign_files_are_laid_over_each_other_as_snakemake_does(tmp_path):
    (tmp_path / "below").mkdir()
    first, second = tmp_path / "below" / "a.yaml", tmp_path / "b.yaml"
    first.write_text("recovery: {rate: 1e-3, tokens: 5}\nseeds: [0, 1]\nplugins: [mine]\n")
    second.write_text("recovery: {rate: 2e-3}\nseeds: [2]\n")
    merged, folder = read_files([first, second])
    expected = {"recovery": {"rate": 0.002, "tokens": 5}, "seeds": [2], "plugins": ["mine"]}
    assert merged == expected and folder == first.parent
    assert portable(merged, folder)["plugins"] == [str(first.parent / "mine")]
    second.write_text("- a list\n")
    with pytest.raises(Invalid, match="b.yaml: expected keys of a campaign, got list"):
        read_files([first, second])
