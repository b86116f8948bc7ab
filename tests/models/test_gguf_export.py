"""GGUF files that are written: they hold the model, to the bit, in shapes that llama.cpp takes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conftest import make_tiny
from gguf_files import gguf_name, permuted, write

from prunebench.cli import main
from prunebench.errors import Invalid, Unsupported
from prunebench.models import folders
from prunebench.models.gguf_export import export_gguf
from prunebench.models.gguf_import import import_gguf
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.restoration import add_bias
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import logits, slice_model

SIZE = 288
TOKENS = torch.randint(3, SIZE, (2, 15), generator=torch.Generator().manual_seed(2))
SETTINGS = {"vocab_size": SIZE, "bos_token_id": 1, "eos_token_id": 2}
VARIANTS = {
    "llama": {"rms_norm_eps": 1e-5},
    "llama-tied": {"tie_word_embeddings": True},
    "llama-wide": {"head_dim": 16, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    "qwen2": {},
    "mistral": {"sliding_window": None},
}


def tiny(variant="llama", **changes):
    settings = {**SETTINGS, **VARIANTS[variant], **changes}
    return make_tiny(variant.partition("-")[0], **settings)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A folder of each variant, with a tokenizer that a GGUF file can hold."""

    def made(variant):
        if variant not in known:
            root = tmp_path_factory.mktemp(variant)
            known[variant] = root / "dense"
            if variant == "mistral":  # which no GGUF file names
                known[variant] = saved(tiny(variant), made("llama"), root / "dense")
            else:
                import_gguf(write(root / "in.gguf", tiny(variant)), root / "dense")
        return known[variant]

    known = {}
    return made


def saved(model, tokenizer, out):
    """A stock model in `out`, with the tokenizer of another folder."""
    shutil.copytree(tokenizer, out)
    (out / "prunebench.json").unlink()
    model.save_pretrained(out)
    return out


def uneven(folder, out, *, bias=False):
    """The model in `folder`, pruned so that every layer differs, saved in `out`."""
    model, tokenizer = folders.load(folder)
    keep = {}
    for name, structure in structures_of(model).items():
        if structure.kind in ("heads", "neurons") and structure.units > 1:
            fewer = 1 + structure.layer % (structure.units - 1)
            keep[name] = tuple(range(fewer, structure.units))
            if bias:
                width = model.config.hidden_size
                add_bias(model, structure, torch.linspace(-0.5, 0.5, width).double())
    decision = Decision(keep)
    slice_model(model, decision)
    folders.save(model, tokenizer, out, uniform=False, decision=decision.to_json())
    return out


def read(path):
    """Keys and tensors of a file, by the reader of the package gguf."""
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    return keys, {t.name: torch.tensor(dequantize(t.data, t.tensor_type)) for t in reader.tensors}


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "mistral"])
def test_in_pruned_to_nothing_and_out_again_is_the_same_to_the_bit(variant, dense, tmp_path):
    done = export_gguf(dense(variant), tmp_path / "out.gguf")
    assert done.architecture == variant.partition("-")[0] and done.wider == 0
    import_gguf(tmp_path / "out.gguf", tmp_path / "again")
    (first, words), (again, others) = map(folders.load, (dense(variant), tmp_path / "again"))
    assert torch.equal(logits(first, TOKENS), logits(again, TOKENS))
    text = "the 1234 inner things,  naïve 数学 <tool>x<|im_end|>"
    assert words(text).input_ids == others(text).input_ids
    assert words.chat_template == others.chat_template
    assert first.config.rope_parameters == again.config.rope_parameters


@pytest.mark.parametrize("variant", ["llama-tied", "llama-wide", "qwen2", "mistral"])
def test_layers_that_differ_are_written_as_they_are(variant, dense, tmp_path):
    folder = uneven(dense(variant), tmp_path / "pruned")
    assert main(["export", str(folder), str(tmp_path / "out.gguf"), "--for", "gguf"]) == 0
    model, _ = folders.load(folder)
    keys, tensors = read(tmp_path / "out.gguf")
    width = model.config.head_dim or model.config.hidden_size // model.config.num_attention_heads
    blocks = model.model.layers
    assert keys["general.architecture"] == "deci"
    assert keys["deci.attention.head_count"] == [
        block.self_attn.q_proj.out_features // width for block in blocks
    ]
    assert keys["deci.attention.head_count_kv"] == [
        block.self_attn.k_proj.out_features // width for block in blocks
    ]
    assert keys["deci.feed_forward_length"] == [b.mlp.down_proj.in_features for b in blocks]
    weights = dict(model.named_parameters())
    assert {gguf_name(name) for name in weights} == set(tensors)
    for name, weight in weights.items():
        if "q_proj" in name or "k_proj" in name:
            weight = permuted(weight.detach(), weight.shape[0] // width)
        assert torch.equal(weight.detach(), tensors[gguf_name(name)]), name


@pytest.mark.parametrize(("kind", "most"), [("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 8e-3)])
def test_smaller_types_are_near_and_odd_rows_stay_f16(kind, most, dense, tmp_path):
    folder = uneven(dense("llama"), tmp_path / "pruned")
    done = export_gguf(folder, tmp_path / "small.gguf", kind=kind)
    export_gguf(folder, tmp_path / "large.gguf")
    small, large = (read(tmp_path / f"{name}.gguf")[1] for name in ("small", "large"))
    for name, exact in large.items():
        assert (small[name] - exact).abs().max() <= most * exact.abs().max(), name
    odd = [name for name, t in large.items() if t.dim() > 1 and t.shape[-1] % 32]
    assert done.wider == (len(odd) if kind == "q8_0" else 0)
    assert done.bytes < 0.75 * (tmp_path / "large.gguf").stat().st_size
    assert ("no multiple of 32" in " ".join(done.lines())) == (done.wider > 0)


@pytest.mark.parametrize(
    ("case", "bias"),
    [("llama", False), ("llama-wide", False), ("qwen2", False), ("llama-tied", True)],
)
def test_llama_cpp_computes_the_same(case, bias, dense, tmp_path):
    """Log-probabilities of every token after prompts of several lengths, and greedy text."""
    engine = pytest.importorskip("xllamacpp", reason="llama.cpp is not here: pip install .[llama]")
    folder = uneven(dense(case), tmp_path / "pruned", bias=bias)
    export_gguf(folder, tmp_path / "out.gguf")
    model, tokenizer = folders.load(folder)
    server = engine.Server(_settings(engine, tmp_path / "out.gguf"))
    for length in (1, 6, 15):
        ids = TOKENS[:1, :length]
        ours = torch.log_softmax(logits(model, ids)[0, -1].double(), dim=-1)
        found = torch.full((SIZE,), torch.nan, dtype=torch.float64)
        answer = _ask(server, ids[0].tolist(), _hidden(tokenizer), tokens=1)
        for entry in answer["logprobs"]["content"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        assert (found - ours).abs().max() <= 1e-3 * ours.abs().max()
    greedy = model.generate(
        TOKENS[:1], max_new_tokens=8, do_sample=False, suppress_tokens=_hidden(tokenizer)
    )
    answer = _ask(server, TOKENS[0].tolist(), _hidden(tokenizer), tokens=8)
    assert [entry["id"] for entry in answer["logprobs"]["content"]] == greedy[0, 15:].tolist()


def _hidden(tokenizer):
    """Tokens that the server keeps back or ends at: no whole letters, or special."""
    texts = tokenizer.convert_ids_to_tokens(list(range(SIZE)))
    return [i for i, text in enumerate(texts) if i < 3 or not text.isascii()]


def _settings(engine, path):
    """One thread, no rounding of keys and values."""
    params = engine.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 64, 1, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = engine.ggml_type.GGML_TYPE_F32
    return params


def _ask(server, ids, hidden, *, tokens):
    """Log-probabilities are those of all tokens, before the hidden ones are taken out."""
    asked = {"prompt": ids, "max_tokens": tokens, "temperature": 0.0, "logprobs": SIZE}
    asked |= {"logit_bias": [[i, False] for i in hidden], "cache_prompt": False}
    return server.handle_completions(asked)["choices"][0]


def test_a_family_without_a_writer_is_refused_by_name(dense, tmp_path):
    folder = saved(make_tiny("gpt_neox", **SETTINGS), dense("llama"), tmp_path / "model")
    with pytest.raises(Unsupported, match="gpt_neox cannot be written for llama.cpp; known: llama"):
        export_gguf(folder, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "activation gelu"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "linear"),
    ],
)
def test_what_changes_the_function_is_refused_by_name(changes, message, dense, tmp_path):
    with pytest.raises(Unsupported, match=message):
        export_gguf(
            saved(tiny(**changes), dense("llama"), tmp_path / "model"), tmp_path / "out.gguf"
        )


def test_an_even_qwen2_with_further_biases_is_refused(dense, tmp_path):
    model, tokenizer = folders.load(dense("qwen2"))
    for structure in structures_of(model).values():
        if structure.kind == "neurons":
            add_bias(model, structure, torch.ones(model.config.hidden_size).double())
    folders.save(model, tokenizer, tmp_path / "biased", uniform=False, decision="{}")
    with pytest.raises(Unsupported, match="qwen2 has no bias in mlp.down_proj"):
        export_gguf(tmp_path / "biased", tmp_path / "out.gguf")


def test_tokenizers_without_a_name_and_none_are_refused(dense, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(dense("llama"), folder)
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(raw))
    with pytest.raises(Unsupported, match="pre-tokenizer is unknown; known: gpt-2"):
        export_gguf(folder, tmp_path / "out.gguf")
    raw["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    path.write_text(json.dumps(raw))
    with pytest.raises(Unsupported, match="a WordLevel tokenizer is not written"):
        export_gguf(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_nothing_is_replaced_and_a_full_disk_leaves_nothing(dense, tmp_path, monkeypatch, capsys):
    from gguf import GGUFWriter

    out = tmp_path / "out.gguf"
    out.write_text("mine")
    arguments = ["export", str(dense("llama")), str(out), "--for", "gguf"]
    assert main(arguments) == 1 and "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    out.unlink()

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GGUFWriter, "write_tensors_to_file", full)
    assert main(arguments) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1] == "prunebench: No space left on device"  # before it, bars of the loading
    assert not list(tmp_path.iterdir())


def test_an_unknown_type_is_refused(dense, tmp_path):
    with pytest.raises(Invalid, match="type q4_0: expected one of f32, f16, bf16, q8_0"):
        export_gguf(dense("llama"), tmp_path / "out.gguf", kind="q4_0")


def test_a_narrower_stream_and_fewer_layers_are_written_too(dense, tmp_path):
    model, tokenizer = folders.load(dense("llama-wide"))
    structures = structures_of(model)
    decision = Decision({"hidden": tuple(range(structures["hidden"].units - 8)), "layers": (0, 2)})
    uniform = slice_model(model, decision)
    folders.save(model, tokenizer, tmp_path / "pruned", uniform=uniform, decision="{}")
    assert export_gguf(tmp_path / "pruned", tmp_path / "out.gguf").architecture == "llama"
    import_gguf(tmp_path / "out.gguf", tmp_path / "again")
    again, _ = folders.load(tmp_path / "again")
    assert again.config.num_hidden_layers == 2
    assert torch.equal(logits(model, TOKENS), logits(again, TOKENS))
