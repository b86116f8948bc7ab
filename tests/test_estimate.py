"""Plans: exact where shapes decide (parameters, bytes), close to what stages allocate elsewhere."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import REPOSITORY, make_tiny
from transformers import set_seed

from prunebench.campaign import config
from prunebench.campaign.config import Model
from prunebench.campaign.parts import SuiteRun
from prunebench.campaign.settings import Recovery
from prunebench.cli import main
from prunebench.errors import Unsupported
from prunebench.estimate import Assumptions, cpu, gpu, plan_rows, plan_text, sizes_of, stages
from prunebench.estimate.sizes import count, lora_parameters
from prunebench.estimate.table import PlanRow
from prunebench.evaluation.perplexity import losses
from prunebench.evaluation.protocols import Protocol
from prunebench.models import checks, folders, shapes
from prunebench.profiling.memory import watch
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.saliency import channel_saliency, sides_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import slice_model
from prunebench.recovery.lora import attach
from prunebench.recovery.settings import RecoverySettings

PYTHIA = {"name": "pythia-70m", "kind": "hub", "id": "EleutherAI/pythia-70m"}
CAMPAIGN = {
    "name": "toy",
    "models": [PYTHIA],
    "data": {"source": "hub"},
    "methods": ["magnitude", {"name": "llm_pruner", "recovery": "both"}, "loraprune"],
    "sparsities": [0.2, 0.5],
    "calibration": {"corpus": "books", "samples": 10, "length": 128},
    "recovery": {"preset": "llm-pruner", "instructions": "alpaca", "targets": "auto"},
    "perplexity": ["ppl/llm-pruner", "ppl/2048"],
    "zeroshot": {"suite": "zeroshot/7"},
    "profile": {"points": [{"batch": 1, "prompt": 128, "new": 16}]},
}
SETTINGS = RecoverySettings.from_config(
    {"rank": 4, "targets": "auto", "micro_batch": 4, "length": 64}
)


def plan(**changes):
    raw = {**copy.deepcopy(CAMPAIGN), **changes}
    campaign = config.build(raw, file="toy.yaml", check_files=False)
    return {(r.model, r.label): r for r in plan_rows(campaign, Assumptions())}


def shape_sizes(name):
    return sizes_of(Model(name=name, kind="random", source=name))


@pytest.mark.parametrize("name", ["llama-7b", "llama3-8b", "gemma-2b", "bloom-560m", "falcon-7b"])
def test_parameters_are_the_published_ones(name):
    sizes, model = shape_sizes(name)
    assert sizes.parameters == shapes.find_shape(name).parameters
    assert sizes.weight_bytes == 2 * sizes.parameters
    embedding = model.get_input_embeddings().weight.numel()
    tied = model.config.tie_word_embeddings
    assert sizes.active == sizes.parameters - (0 if tied else embedding)


def test_sizes_of_llama_7b_are_those_of_its_matrices():
    sizes, model = shape_sizes("llama-7b")
    assert sizes.inputs == 32 * (6 * 4096 + 11008)
    assert sizes.outputs == 32 * (5 * 4096 + 2 * 11008)
    assert (sizes.layers, sizes.vocabulary, sizes.largest) == (32, 32000, 4096 * 11008)
    assert sizes.cache == 2 * 32 * 4096
    settings = RecoverySettings.from_config({"preset": "pat"})
    assert lora_parameters(model, settings) == 49_971_200  # the paper's arithmetic for rank 20


@pytest.mark.parametrize(
    ("name", "per_layer"), [("llama3-8b", 1024), ("falcon-7b", 64), ("gemma-2b", 256)]
)
def test_the_cache_counts_key_value_heads(name, per_layer):
    sizes, _ = shape_sizes(name)
    assert sizes.cache == 2 * sizes.layers * per_layer


@pytest.mark.parametrize("keep", [48, 24])
def test_bytes_on_disk_are_those_of_a_saved_model(tmp_path, tokenizer, keep):
    changes = {"hidden_size": 128, "intermediate_size": 48 * 8, "head_dim": 32}
    model = make_tiny(**changes)
    dense = count(model, 4)
    units = {f"layers.{i}.neurons": tuple(range(8 * keep)) for i in range(3)}
    uniform = slice_model(model, Decision(units))
    folders.save(model, tokenizer, tmp_path / "m", uniform=uniform)
    kept = count(model, 4).parameters / dense.parameters
    on_disk = sum(path.stat().st_size for path in checks.weight_files(tmp_path / "m"))
    assert on_disk == pytest.approx(kept * dense.weight_bytes, rel=0.01)


def test_the_plan_s_disk_is_pruned_and_tuned_weights():
    rows, gb = plan(), 2 * 70_426_624 / 1e9
    assert rows["pythia-70m", "dense"].disk_gb == 0
    assert rows["pythia-70m", "llm_pruner"].disk_gb == pytest.approx((0.8 + 0.5) * gb)
    assert rows["pythia-70m", "llm_pruner+lora"].disk_gb == pytest.approx((0.8 + 0.5) * gb)
    assert rows["pythia-70m", "magnitude+lora"].disk_gb == pytest.approx(2 * (0.8 + 0.5) * gb)


def small(hidden=128, intermediate=384, layers=2, vocabulary=600):
    set_seed(0)
    changes = {"hidden_size": hidden, "intermediate_size": intermediate, "head_dim": hidden // 4}
    changes |= {"num_hidden_layers": layers, "vocab_size": vocabulary}
    return make_tiny(num_key_value_heads=4, **changes).bfloat16()


def measure_tuning(model, tokens):
    wrapped = attach(model, SETTINGS, seed=0).train()
    with watch("cpu") as memory, memory.part("step"):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            loss = wrapped(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
    return memory.parts["step"].allocated_bytes


def measure_score(model, tokens):
    found = structures_of(model).values()
    sides = sides_of(s for s in found if s.kind in ("heads", "neurons"))
    with watch("cpu") as memory, memory.part("pass"):
        channel_saliency(model, sides, ["param_first"], tokens=tokens)
    return memory.parts["pass"].allocated_bytes


def estimate_tuning(sizes, tokens):
    rows, length = tokens.shape
    settings = replace(SETTINGS, micro_batch=rows, batch=rows, length=length)
    return stages.recover(sizes, settings, 0, 0, 1.0).memory_bytes


def estimate_score(sizes, tokens):
    return stages.passes(sizes, tokens.numel(), 1.0, 1.0).memory_bytes


@pytest.mark.parametrize(
    ("measured", "estimated"),
    [(measure_tuning, estimate_tuning), (measure_score, estimate_score)],
    ids=["tuning", "score"],
)
@pytest.mark.parametrize("changes", [{}, {"intermediate": 768, "layers": 3}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_activations_are_near_what_the_stages_allocate(measured, estimated, changes, dtype):
    """Growth from 128 to 512 tokens: not below what PyTorch counts, at most 15 % above."""
    growth, expected = [], []
    for rows in (2, 8):
        model = small(**changes).to(dtype)
        tokens = torch.randint(600, (rows, 64))
        expected.append(estimated(count(model, dtype.itemsize), tokens))
        growth.append(measured(model, tokens))
    ratio = (expected[1] - expected[0]) / (growth[1] - growth[0])
    assert 0.97 < ratio < 1.15


def test_evaluation_is_an_upper_bound_and_not_a_far_one():
    """In float32: a CPU with AVX-512 alone multiplies bfloat16 matrices in buffers of its own."""
    model = small(vocabulary=4000).float()
    pieces = list(torch.randint(4000, (32, 128)))  # one batch of the evaluation
    with watch("cpu") as memory, memory.part("x"):
        losses(model, pieces, 32)
    sizes = count(model, 4)
    protocol = Protocol("ppl/t", "ptb", "validation", 128)
    estimate = stages.evaluate(sizes, [protocol], [], 1.0).memory_bytes - sizes.weight_bytes
    assert 0.9 < estimate / memory.parts["x"].allocated_bytes < 1.6


def test_everything_grows_with_the_model():
    names = ["pythia-70m", "tinyllama-1.1b", "llama-7b"]
    entries = [{"name": n, "kind": "hub", "id": shapes.find_shape(n).hub} for n in names]
    rows = plan(models=entries)
    for label in ("dense", "magnitude+lora", "llm_pruner", "llm_pruner+lora", "loraprune"):
        own = [rows[name, label] for name in names]
        for smaller, larger in zip(own, own[1:], strict=False):
            assert smaller.hours < larger.hours
            assert smaller.disk_gb < larger.disk_gb or label == "dense"
            assert smaller.memory_gib.keys() == larger.memory_gib.keys()
            for job, gib in smaller.memory_gib.items():
                assert gib < larger.memory_gib[job]


def test_a_shared_pruning_is_counted_once_and_jobs_are_those_of_the_row():
    rows = plan()
    jobs = {label: set(row.memory_gib) for (_, label), row in rows.items()}
    assert jobs == {
        "dense": {"prune", "evaluate"},
        "magnitude+lora": {"prune", "recover", "evaluate", "profile"},
        "llm_pruner": {"prune", "evaluate", "profile"},
        "llm_pruner+lora": {"recover", "evaluate"},
        "loraprune": {"prune", "evaluate", "profile"},
    }
    assert rows["pythia-70m", "llm_pruner"].cells == 2


def test_a_processor_counts_its_process_and_float32_and_the_share_of_the_blocks():
    raw = {**copy.deepcopy(CAMPAIGN), "sparsity_of": "decoder"}
    campaign = config.build(raw, file="toy.yaml", check_files=False)
    machine = cpu(1, tflops=0.05)
    rows = {r.label: r for r in plan_rows(campaign, Assumptions(machine))}
    blocks, parameters = 6 * (12 * 512**2 + 13 * 512), 70_426_624
    removed = (0.2 + 0.5) * blocks / parameters
    expected = 4 * parameters * (2 - removed) / 1e9
    assert rows["llm_pruner"].disk_gb == pytest.approx(expected, rel=1e-4)
    assert rows["dense"].memory_gib["prune"] * 2**30 > 4 * parameters + machine.process_bytes
    tuned = rows["llm_pruner+lora"]
    assert tuned.minutes["recover"] > 60 * 12  # two epochs of Alpaca at 50 GFLOP/s


def test_the_processor_at_hand_is_timed():
    found = cpu(1)
    assert found.is_cpu and 1e-4 < found.tflops < 10
    assert cpu(1, tflops=2.0).tflops == 2.0


@pytest.mark.parametrize("tflops", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_speed_in_which_nothing_ends_is_refused_in_one_line(tmp_path, capsys, device, tflops):
    import yaml

    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(CAMPAIGN))
    assert main(["plan", str(file), "--device", device, f"--tflops={tflops}"]) == 1
    out, error = capsys.readouterr()
    assert out == "" and error == f"prunebench: tflops: expected a positive number, got {tflops}\n"


def test_the_text_for_a_processor_says_what_mem_mb_should_be(tmp_path, capsys):
    import yaml

    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump({**CAMPAIGN, "resources": {"mem_mb": 100}}))
    assert main(["plan", str(file), "--device", "cpu", "--tflops", "0.05"]) == 0
    shown = capsys.readouterr().out
    assert "50 GFLOP/s sustained by a job" in shown and "recover min" in shown
    assert "GPU" not in shown and "resources.mem_mb is 100; set it to " in shown


def test_hours_follow_from_tokens_and_the_arithmetic_of_the_card():
    sizes, model = shape_sizes("llama-7b")
    settings = RecoverySettings.from_config({"preset": "llm-pruner", "tokens": 10_000_000})
    stage = stages.recover(sizes, settings, 0, 10_000_000, 1.0)
    assert stage.tuning == pytest.approx(1.36 * 1e7 * 4 * sizes.active)
    slow, fast = stage.seconds(gpu(75)), stage.seconds(gpu(150))
    assert slow - fast == pytest.approx(stage.tuning / 150e12)
    recovery = Recovery({"instructions": "alpaca"})
    epochs = RecoverySettings.from_config({"preset": "llm-pruner"})
    tokens = stages.recovery_tokens(recovery, epochs, Assumptions(example_tokens=100))
    assert tokens == 2 * 51_760 * 100
    assert stages.recovery_tokens(recovery, epochs, Assumptions(example_tokens=999)) == (
        2 * 51_760 * 256
    )
    assert stages.recovery_tokens(recovery, settings, Assumptions()) == 10_000_000
    one, other = (Recovery({"text": corpus}) for corpus in ("wikitext2", "ptb"))
    both = Recovery({"text": ["wikitext2", "ptb"]})
    found = [stages.recovery_tokens(text, epochs, Assumptions()) for text in (one, other, both)]
    assert found[2] == pytest.approx(found[0] + found[1]) and found[0] > found[1] > 1e6


def test_limits_shorten_the_evaluation():
    sizes, _ = shape_sizes("llama-7b")
    whole, few = (
        stages.evaluate(sizes, [], [SuiteRun(suite="zeroshot/7", limit=limit)], 1.0).operations
        for limit in (None, 200)
    )
    assert few == pytest.approx(whole * 1400 / 20_465)


@pytest.mark.parametrize(
    ("gib", "card"), [(5, 24), (21, 40), (40, 48), (60, 80), (75, 141), (130, None)]
)
def test_the_card_is_the_smallest_with_a_tenth_to_spare(gib, card):
    row = PlanRow("m", "r", 1, memory_gib={"prune": 1.0, "recover": gib, "profile": 200.0})
    assert row.card_gb("prune", "recover") == card
    assert row.card_gb("profile") is None and row.card_gb("prune") == 24


def test_a_model_of_no_known_shape_says_so_and_the_others_are_planned():
    other = {"name": "other", "kind": "hub", "id": "nobody/other"}
    rows = plan(models=[PYTHIA, other])
    assert "no shape is known for nobody/other" in rows["other", "dense"].reason
    assert rows["other", "dense"].hours == 0 and rows["pythia-70m", "dense"].reason is None


def test_a_folder_is_planned_by_its_config(tmp_path):
    raw = {"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48}
    raw |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    entry = Model(name="m", kind="local", source=str(tmp_path), dtype="float32")
    with pytest.raises(Unsupported, match="no such folder yet"):
        sizes_of(entry)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    sizes, _ = sizes_of(entry)
    assert sizes.parameters == 2 * 100 * 32 + 2 * (4 * 32**2 + 3 * 32 * 48 + 64) + 32
    assert sizes.weight_bytes == 4 * sizes.parameters


def test_tuning_targets_that_the_family_has_not_are_seen_before_the_run():
    bloom = {"name": "bloom", "kind": "hub", "id": "bigscience/bloom-560m"}
    recovery = {"preset": "llm-pruner", "instructions": "alpaca"}
    rows = plan(models=[bloom], recovery=recovery)
    assert "BloomForCausalLM has no q_proj" in rows["bloom", "magnitude+lora"].reason
    assert rows["bloom", "dense"].reason is None


def test_data_of_unknown_size_needs_a_budget():
    rows = plan(recovery={"instructions": "demo", "targets": "auto"})
    assert "give a token budget" in rows["pythia-70m", "loraprune"].reason
    rows = plan(recovery={"instructions": "demo", "targets": "auto", "tokens": 1000})
    assert rows["pythia-70m", "loraprune"].reason is None


def test_sizes_agree_with_the_records_of_a_real_run(shared_models):
    place = (
        "results/reference/wikibooks-recovery/cells/wikibooks-llama-6m/dense/0/seed0/record.json"
    )
    record = json.loads((REPOSITORY / place).read_text())
    folder = shared_models / "wikibooks-llama-6m"
    sizes, _ = sizes_of(Model(name="m", kind="local", source=str(folder), dtype="float32"))
    assert sizes.parameters == record["model"]["parameters_dense"]


def test_the_text_marks_every_figure_as_an_estimate(tmp_path, capsys):
    import yaml

    file = tmp_path / "toy.yaml"
    models_ = [PYTHIA, {"name": "other", "kind": "hub", "id": "nobody/other"}]
    file.write_text(yaml.safe_dump({**CAMPAIGN, "models": models_}))
    assert main(["plan", str(file), "--tflops", "300"]) == 0
    shown = capsys.readouterr().out
    assert "estimates from shapes, not measurements" in shown.splitlines()[0]
    (row,) = (line for line in shown.splitlines() if " loraprune " in line and "70,426,624" in line)
    figures = row.split("loraprune")[1].split()
    assert figures[0] == "2"  # cells
    assert all(f.startswith("~") or f in ("-", "24", "GB") for f in figures[1:])
    assert [f for f in figures if f.startswith("~")] != []
    assert "? other: no shape is known" in shown and "300 TFLOP/s" in shown
    assert "total of 9 cells" in shown
    assert plan_text(file, tflops=300) + "\n" == shown
