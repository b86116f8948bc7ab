"""GGUF files become Hugging Face folders of plain weights, with the values that the file holds.

The weights are read through transformers' own reader, which undoes llama.cpp's order of rows. What
it passes over in silence is looked at here: a key that changes the function, a tensor without a
place, a weight without a tensor. A family is let in when a test shows that a model survives the way
through llama.cpp's names and conventions with every logit the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid, Unsupported
from prunebench.files import sha256
from prunebench.models.folders import MARKER
from prunebench.models.gguf_file import AGAIN, GgufFile, read_gguf
from prunebench.models.gguf_tokenizer import check_tokenizer, save_tokenizer
from prunebench.untyped import Json, JsonMap, Plain
from prunebench.whole import whole_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES = ("llama", "qwen2", "qwen3", "phi3")
REFUSED = {
    "gemma": "transformers has no reader for it",
    "gemma2": "the file does not hold the scale of its queries, and its norms are stored rounded",
    "gemma3": "the file does not hold the scale of its queries, and its norms are stored rounded",
}
"""Architectures that people will try, and why the result would not be exact."""
NEEDED: Mapping[str, type[int] | type[float]] = {
    "context_length": int,
    "block_count": int,
    "embedding_length": int,
    "feed_forward_length": int,
    "attention.head_count": int,
    "attention.head_count_kv": int,
    "attention.layer_norm_rms_epsilon": float,
}
"""Keys of an architecture without which transformers falls back to some other model's values."""
READ = (*NEEDED, "vocab_size", "rope.freq_base")
ALSO: Mapping[str, Mapping[str, str]] = {
    "phi3": {
        "attention.sliding_window": "sliding_window",
        "rope.scaling.original_context_length": "original_max_position_embeddings",
    }
}
"""Keys that transformers' reader leaves out -> their names in a config."""
WIDTHS = ("rope.dimension_count", "attention.key_length", "attention.value_length")
"""Keys that may only repeat the width of a head: partial rotary positions are not read."""
IDLE: Mapping[str, tuple[Plain, ...]] = {
    "rope.scaling.type": ("none",),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
}
"""Keys that are not read, with the values at which they change nothing."""
ABOUT = (
    "license",
    "license.name",
    "license.link",
    "organization",
    "author",
    "version",
    "basename",
    "size_label",
    "quantized_by",
    "source.url",
    "source.huggingface.repository",
    "url",
    "repo_url",
)
"""Keys `general.<name>` that say where a model is from; they go into the note as they are."""
DEFAULT_ROPE_BASE = 10000.0
"""llama.cpp's, for a file that names none."""


@dataclass(frozen=True)
class Import:
    """What was written. note: the marker's `imported_from`."""

    parameters: int
    dtype: str
    note: JsonMap

    def __str__(self) -> str:
        types = ", ".join(f"{name} {count}" for name, count in self.note["quantisation"].items())
        return f"{self.parameters:,} parameters in {self.dtype}, from tensors of {types}"


def import_gguf(path: Path, out: Path) -> Import:
    """Write the model of a GGUF file to `out`, as a safetensors folder that stock classes load.

    The weights are float32; those of a file that is f16 or bf16 throughout stay so. All of them are
    in memory at once. `out` appears when it is complete, or not at all. Raises Invalid for a file
    that is missing, cut short or at odds with itself, and if `out` exists; Unsupported with the
    reason for what cannot be imported exactly.
    """
    if out.exists():
        raise Invalid(f"{out}: exists already; give a folder that does not")
    file = read_gguf(path)
    check_family(file)
    check_tokenizer(file)
    config = _config(file)
    weights = _weights(file, config)
    config.dtype = next(iter(weights.values())).dtype
    note = note_of(file)
    with whole_folder(out) as draft:
        save_tokenizer(file, draft)
        config.save_pretrained(draft)
        _save_weights(weights, draft)
        marker = {"format": 1, "loadable_by": "transformers", "imported_from": note}
        (draft / MARKER).write_text(json.dumps(marker, sort_keys=True) + "\n", encoding="utf-8")
    dtype = str(config.dtype).removeprefix("torch.")
    return Import(sum(tensor.numel() for tensor in weights.values()), dtype, note)


def check_family(file: GgufFile) -> None:
    """Raise Unsupported, by name, unless the file's function is one that a stock class computes.

    Raises Invalid for a file that lacks what the class must know.
    """
    name = file.architecture
    if name not in FAMILIES:
        reason = f": {REFUSED[name]}" if name in REFUSED else ""
        raise Unsupported(
            f"{file.path}: architecture {name} cannot be imported exactly{reason}; known: "
            f"{', '.join(FAMILIES)}"
        )
    for key, kind in NEEDED.items():
        file.need(f"{name}.{key}", kind)
    blocks = len({tensor.split(".")[1] for tensor in file.tensors if tensor.startswith("blk.")})
    if (count := file.keys[f"{name}.block_count"]) > blocks:  # before so many are built
        raise Invalid(f"{file.path}: {count} blocks, with tensors for {blocks} of them; {AGAIN}")
    width = _head_width(file)
    for full, value in file.keys.items():
        key = full.removeprefix(f"{name}.")
        if key == full or key in (*READ, *ALSO.get(name, ())) or value in IDLE.get(key, ()):
            continue
        if key in WIDTHS and value == width:
            continue
        raise Unsupported(f"{file.path}: {full} = {value} has no place in a stock {name} model")


def note_of(file: GgufFile) -> Json:
    """What a folder, and each record of it, says of the file that it was imported from."""
    about = {key: file.keys.get(f"general.{key}") for key in ABOUT}
    return {
        "file": file.path.name,
        "sha256": sha256(file.path),
        "architecture": file.architecture,
        "name": file.keys.get("general.name"),
        "quantisation": file.quantisation,
        "general": {key: str(value) for key, value in about.items() if value is not None},
    }


def _head_width(file: GgufFile) -> int:
    name = file.architecture
    heads = max(1, file.need(f"{name}.attention.head_count", int))
    default = file.need(f"{name}.embedding_length", int) // heads
    return int(file.keys.get(f"{name}.attention.key_length", default))


def _config(file: GgufFile) -> PreTrainedConfig:
    """A config of transformers' class, as its reader gives it, with what the reader leaves out."""
    from transformers import AutoConfig
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    name = file.architecture
    found = dict(load_gguf_checkpoint(str(file.path))["config"])
    found.pop("_model_name_or_path", None)
    if found.pop("model_type") != name:
        raise Unsupported(f"{file.path}: transformers takes it for another family than {name}")
    found["rope_theta"] = _short(file.keys.get(f"{name}.rope.freq_base", DEFAULT_ROPE_BASE))
    found["rms_norm_eps"] = _short(found["rms_norm_eps"])
    if name != "phi3":  # whose class derives it
        found["head_dim"] = _head_width(file)
    for key, own in ALSO.get(name, {}).items():
        found[own] = file.keys.get(f"{name}.{key}") or None  # llama.cpp writes 0 for no window
    tokens = {key: found.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    found.pop("unk_token_id", None)
    try:
        config = AutoConfig.for_model(name, **{**found, **tokens})
    except Exception as error:  # the config class checks its values in ways of its own
        text = " ".join(str(error).split())
        raise Invalid(f"{file.path}: its values make no {name} model: {text}; {AGAIN}") from None
    return config


def _short(value: float) -> float:
    """The shortest decimal that is the same float32, as the file has it: 1e-05."""
    import numpy as np

    return float(str(np.float32(value)))


def _weights(file: GgufFile, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Every weight of the config's model, in the type that the folder will have."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    config.architectures = [type(model).__name__]
    try:
        read = load_gguf_checkpoint(
            str(file.path), return_tensors=True, model_to_load=model, torch_dtype=torch.float32
        )
    except ValueError as error:  # rows that its heads do not divide
        raise Invalid(f"{file.path}: its tensors do not fit its keys: {error}; {AGAIN}") from None
    weights: dict[str, torch.Tensor] = read["tensors"]
    _check_fit(file, model, weights)
    return _as_stored(file, weights)


def _check_fit(file: GgufFile, model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    """Raise unless every tensor of the file has its weight, every weight its tensor, all finite."""
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map

    places = get_gguf_hf_weights_map(model, TensorProcessor())
    if idle := sorted(set(file.tensors) - set(places)):
        more = f" (and {len(idle) - 1} more)" if len(idle) > 1 else ""
        raise Unsupported(
            f"{file.path}: tensor {idle[0]}{more} has no place in a stock {file.architecture} model"
        )
    for name, parameter in model.named_parameters():  # a tied head is not listed again
        if name not in weights:
            raise Invalid(f"{file.path}: no tensor for {name}; {AGAIN}")
        if weights[name].shape != parameter.shape:
            raise Invalid(
                f"{file.path}: {name} has shape {tuple(weights[name].shape)}, its keys say "
                f"{tuple(parameter.shape)}"
            )
        if not bool(weights[name].isfinite().all()):
            raise Invalid(f"{file.path}: {name} is not finite; {AGAIN}")
    if len(weights) != len(file.tensors):
        raise Invalid(f"{file.path}: {len(file.tensors)} tensors became {len(weights)} weights")


def _as_stored(file: GgufFile, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in the half type of a file that has no other, if that changes no value."""
    import torch

    halves = {"F16": torch.float16, "BF16": torch.bfloat16}
    kinds = set(file.quantisation) - {"F32"}
    if len(kinds) != 1 or not kinds <= set(halves):
        return weights
    half = halves[kinds.pop()]
    same = all(torch.equal(tensor.to(half).float(), tensor) for tensor in weights.values())
    return {name: tensor.to(half) for name, tensor in weights.items()} if same else weights


def _save_weights(weights: dict[str, torch.Tensor], folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict(weights, folder)
