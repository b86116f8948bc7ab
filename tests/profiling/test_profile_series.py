"""A whole series: what is planted is seen, what fails stays alone, every None has a reason."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prunebench.errors import Invalid
from prunebench.profiling import Point, measure, turns

SHORT = Point.of(batch=1, prompt=8, new=2)
WIDE = Point.of(batch=4, prompt=8, new=2)
CERTAIN = 1 - 1e-6  # an interval that misses by chance once in a million


def point(profile: dict, name: str = SHORT.name) -> dict:
    return next(entry for entry in profile["points"] if entry["name"] == name)


def check_reasons(profiles: dict) -> None:
    """The profiles are plain JSON, and each None of an entry has its reason."""
    json.dumps(profiles, allow_nan=False)
    for profile in profiles.values():
        for entry in [profile, *profile.get("points", [])]:
            absent = {key for key, value in entry.items() if value is None}
            absent -= {"reason", "compile"}
            assert absent == set(entry.get("missing", {}))


def test_planted_sleep_is_seen_and_no_difference_is_none(tiny, faults):
    model = tiny()
    models = {"dense": model, "twin": model, "slow": faults["sleep"](tiny())}
    least = Point.of(batch=1, prompt=8, new=1)
    profiles = measure(models, [least], device="cpu", repeats=40, confidence=CERTAIN)
    twin, slow = (point(profiles[name], least.name) for name in ("twin", "slow"))
    for phase in ("prefill_speedup", "decode_speedup"):
        assert twin[phase]["low"] <= 1 <= twin[phase]["high"]
        assert slow[phase]["high"] < 1, "40 ms more on about 2 ms"
        assert slow[phase]["ratio"] < 0.8
        assert slow[phase]["limit"] == 1.0
    check_reasons(profiles)


def test_planted_allocation_is_seen_in_the_peaks(tiny, faults):
    models = {"dense": tiny(), "large": faults["allocate"](tiny())}
    profiles = measure(models, [SHORT], device="cpu", repeats=1, warmup=0)
    dense, large = (point(profiles[name]) for name in ("dense", "large"))
    for key in ("peak_allocated_mib", "prefill_peak_allocated_mib", "decode_peak_allocated_mib"):
        assert dense[key] < 1
        assert large[key] - dense[key] > 95, "100 MB are 95.4 MiB"


def test_figures_of_a_smaller_model(tiny, mixed):
    profiles = measure({"dense": tiny(), "pruned": mixed}, [SHORT], device="cpu", repeats=6)
    dense, pruned = (point(profiles[name]) for name in ("dense", "pruned"))
    assert profiles["pruned"]["parameters"] < profiles["dense"]["parameters"]
    assert profiles["pruned"]["macs"] < profiles["dense"]["macs"]
    assert pruned["kv_cache_mib"] == pytest.approx(dense["kv_cache_mib"] * 3 / 4)
    limit = dense["prefill_macs"] / pruned["prefill_macs"]
    assert pruned["prefill_speedup"]["limit"] == pytest.approx(limit) and limit > 1
    limit = dense["decode_read_mib"] / pruned["decode_read_mib"]
    assert pruned["decode_speedup"]["limit"] == pytest.approx(limit) and limit > 1
    assert dense["prefill_speedup"]["ratio"] == 1.0
    assert pruned["prefill_ms"]["n"] == pruned["prefill_speedup"]["n"] == 6
    assert pruned["peak_allocated_mib"] > profiles["pruned"]["weights_mib"]
    assert profiles["dense"]["device"].startswith("cpu: ")
    check_reasons(profiles)


def test_decode_reads_the_weights_and_the_mean_cache(tiny):
    model = tiny(tie_word_embeddings=True)
    profiles = measure({"dense": model}, [WIDE], device="cpu", repeats=1)
    entry = point(profiles["dense"], WIDE.name)
    cache = 2 * 2 * 4 * 2 * 8 * 4  # bytes for one position: keys, values, layers, batch, heads
    read = profiles["dense"]["weight_bytes"] + cache * (9 + 10) / 2
    assert entry["decode_read_mib"] * 2**20 == read
    assert entry["kv_cache_mib"] * 2**20 == cache * 10


def test_out_of_memory_fails_one_point_of_one_model(tiny, faults):
    models = {"dense": tiny(), "hungry": faults["exhaust"](tiny())}
    profiles = measure(models, [WIDE, SHORT], device="cpu", repeats=2)
    failed = point(profiles["hungry"], WIDE.name)
    assert failed["status"] == "failed" and failed["reason"].startswith("out of memory: CUDA out")
    assert failed["peak_allocated_mib"] > 95, "the peak that was reached"
    assert failed["prefill_ms"] is None
    assert point(profiles["hungry"])["status"] == "ok"
    assert point(profiles["dense"], WIDE.name)["status"] == "ok"
    check_reasons(profiles)


def test_failed_baseline_leaves_times_but_no_ratio(tiny, faults):
    models = {"dense": faults["exhaust"](tiny()), "other": tiny()}
    profiles = measure(models, [WIDE], device="cpu", repeats=2)
    other = point(profiles["other"], WIDE.name)
    assert other["prefill_ms"]["n"] == 2
    assert other["prefill_speedup"] is None
    assert other["missing"]["prefill_speedup"].startswith("dense: out of memory")
    check_reasons(profiles)


def test_model_that_fails_only_when_timed_is_out_and_others_finish(tiny):
    model, calls = tiny(), []

    def fault(*_) -> None:
        calls.append(1)
        if len(calls) > 12:
            raise ValueError("planted")

    model.register_forward_pre_hook(fault)
    profiles = measure({"dense": tiny(), "late": model}, [SHORT], device="cpu", repeats=6)
    assert point(profiles["late"])["reason"] == "ValueError: planted"
    assert point(profiles["dense"])["prefill_ms"]["n"] == 6
    check_reasons(profiles)


def test_model_that_cannot_be_loaded_is_a_failed_profile(tiny):
    def missing():
        raise FileNotFoundError("no such folder: model")

    profiles = measure({"dense": tiny, "gone": missing}, [SHORT], device="cpu", repeats=2)
    assert profiles["gone"]["status"] == "failed"
    assert profiles["gone"]["reason"] == "FileNotFoundError: no such folder: model"
    assert point(profiles["dense"])["status"] == "ok"
    check_reasons(profiles)


def test_point_beyond_the_positions_is_skipped(tiny):
    long = Point.of(batch=1, prompt=60, new=8)
    profiles = measure({"dense": tiny()}, [long, SHORT], device="cpu", repeats=1)
    entry = point(profiles["dense"], long.name)
    assert entry["status"] == "skipped"
    assert entry["reason"] == "needs 68 positions, the model has 64"
    assert point(profiles["dense"])["status"] == "ok"
    check_reasons(profiles)


def test_point_without_new_tokens_has_prefill_only(tiny):
    only = Point.of(batch=2, prompt=16, new=0)
    profiles = measure({"dense": tiny()}, [only], device="cpu", repeats=6)
    entry = point(profiles["dense"], only.name)
    assert entry["prefill_ms"]["n"] == 6
    assert entry["missing"]["decode_ms_per_token"] == "the point has no new tokens"
    check_reasons(profiles)


def test_groups_load_the_baseline_anew_and_keep_the_order(tiny):
    loads = []

    def loader(name):
        return lambda: loads.append(name) or tiny()

    models = {name: loader(name) for name in ("a", "dense", "b", "c")}
    profiles = measure(models, [SHORT], device="cpu", repeats=1, resident=3)
    assert loads == ["dense", "a", "b", "dense", "c"]
    assert list(profiles) == ["a", "dense", "b", "c"]
    assert point(profiles["c"])["prefill_speedup"]["ratio"] > 0


def test_budget_buys_rounds_up_to_its_bound(tiny):
    rich = measure({"dense": tiny()}, [SHORT], device="cpu", repeats=2, budget_s=1000)
    poor = measure({"dense": tiny()}, [SHORT], device="cpu", repeats=2, budget_s=0)
    assert point(rich["dense"])["prefill_ms"]["n"] == 20
    assert point(poor["dense"])["prefill_ms"]["n"] == 2


def test_compiled_models_are_timed_under_the_backend_and_marked(tiny):
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph

    torch._dynamo.register_backend(backend, name="counting")
    torch._dynamo.reset()
    models = {"dense": tiny(num_hidden_layers=1)}
    profiles = measure(models, [SHORT], device="cpu", repeats=1, compile="counting")
    assert point(profiles["dense"])["status"] == "ok", point(profiles["dense"])["reason"]
    assert profiles["dense"]["compile"] == "counting"
    assert compiled


def test_every_model_of_a_point_is_compiled_and_a_used_up_limit_is_an_error(tiny, monkeypatch):
    """Nine models of other shapes share the code, for which torch allows eight compilations."""
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.register_backend(backend, name="every")
    sizes = range(16, 52, 4)
    models = {f"w{n}": tiny(num_hidden_layers=1, intermediate_size=n) for n in sizes}
    options = {"device": "cpu", "baseline": "w16", "repeats": 1, "compile": "every"}
    short = [Point.of(batch=1, prompt=4, new=0)]
    profiles = measure(models, short, **options)
    assert {point(profile, short[0].name)["status"] for profile in profiles.values()} == {"ok"}
    assert len(compiled) >= len(models)
    monkeypatch.setattr(turns, "RECOMPILED", 0.34)  # room for one of three
    three = {name: models[name] for name in list(models)[:3]}
    profiles = measure(three, short, **options)
    parts = [point(profile, short[0].name) for profile in profiles.values()]
    lost = [part for part in parts if part["status"] == "failed"]
    assert lost
    assert all("recompile" in part["reason"].lower() for part in lost)


def test_decode_with_a_fixed_cache_is_timed_and_marked(tiny, mixed):
    models = {"dense": tiny(), "pruned": mixed}
    profiles = measure(models, [SHORT], device="cpu", repeats=6, cuda_graphs=True)
    dense, pruned = (point(profiles[name]) for name in ("dense", "pruned"))
    assert profiles["dense"]["decode"] == "fixed cache"
    assert pruned["decode_ms_per_token"]["n"] == 6 and pruned["decode_speedup"]["limit"] > 1
    read = profiles["dense"]["weight_bytes"] - 61 * 32 * 4  # all but the input embedding
    assert dense["decode_read_mib"] == pytest.approx(read / 2**20 + dense["kv_cache_mib"])
    check_reasons(profiles)


def test_a_cache_that_slides_has_no_decode_graph():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"vocab_size": 61, "intermediate_size": 48, "num_hidden_layers": 2}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mistral", sliding_window=4, **shape)
    )
    profiles = measure({"dense": model}, [SHORT], device="cpu", repeats=1, cuda_graphs=True)
    entry = point(profiles["dense"])
    assert entry["status"] == "skipped" and "needs a full key-value cache" in entry["reason"]


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warmup": -1}, {"resident": 1}])
def test_options_out_of_range_are_refused(tiny, wrong):
    with pytest.raises(Invalid, match=next(iter(wrong))):
        measure({"dense": tiny()}, [SHORT], device="cpu", **wrong)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"prompt": 0}, {"new": -1}, {"batch": 1.5}])
def test_points_out_of_range_are_refused(wrong):
    with pytest.raises(Invalid, match=next(iter(wrong))):
        Point.of(**({"batch": 1, "prompt": 8, "new": 1} | wrong))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_series_on_a_gpu(tiny, faults, mixed):
    models = {"dense": tiny(), "slow": faults["sleep"](tiny()), "pruned": mixed}
    profiles = measure(models, [SHORT, WIDE], device="cuda", repeats=8)
    slow = point(profiles["slow"])
    assert slow["prefill_speedup"]["high"] < 0.8
    assert slow["peak_reserved_mib"] >= slow["peak_allocated_mib"] > 0
    assert profiles["dense"]["device"].startswith("cuda: ")
    check_reasons(profiles)
