"""Models as GGUF files for llama.cpp, with the shapes that they have: nothing is padded.

Layers that are alike make a file of the family's own architecture. Where layers differ, the file is
of `deci`, which has heads, key-value heads and widths by layer. Rows of q and k are reordered for
llama.cpp's rotary positions, which turn neighbours, where transformers turns the two halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.models import folders
from prunebench.models.gguf_vocabulary import vocabulary_keys
from prunebench.untyped import Foreign, Json, Plain
from prunebench.whole import whole_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2")
UNEVEN = "deci"
"""The architecture of llama.cpp whose layers may differ."""
TYPES = ("f32", "f16", "bf16", "q8_0")
OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TURNED = ("self_attn.q_proj", "self_attn.k_proj")
NEIGHBOURS = ("llama", UNEVEN)
"""Architectures whose rotary positions turn neighbours."""
BIASES = {"qwen2": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}
"""What has a bias in an architecture that names them; `llama` and `deci` take any."""


@dataclass(frozen=True)
class GgufExport:
    """What was written. wider: tensors whose rows do not fit blocks of 32, in f16."""

    path: Path
    architecture: str
    kind: str
    parameters: int
    bytes: int
    wider: int

    def lines(self) -> list[str]:
        """The result in words."""
        found = [
            f"{self.path}: architecture {self.architecture}, {self.kind}, "
            f"{self.parameters:,} parameters, {self.bytes / 1e6:.1f} MB"
        ]
        if self.wider:
            found.append(
                f"{self.wider} tensors stay f16: their rows are no multiple of 32 "
                "(a campaign's multiple_of makes them so)"
            )
        return found


@dataclass(frozen=True)
class Layers:
    """Heads, key-value heads and MLP widths, layer by layer."""

    heads: tuple[int, ...]
    key_values: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def alike(self) -> bool:
        """Whether every layer has the shapes of the first."""
        return all(len(set(counts)) == 1 for counts in (self.heads, self.key_values, self.widths))


def export_gguf(folder: Path, out: Path, *, kind: str = "f32") -> GgufExport:
    """Write the model in `folder` (pruned or not) to the GGUF file `out`.

    kind  type of the matrices: f32, f16, bf16 or q8_0; vectors are f32

    Raises Invalid when `out` exists or `folder` is no model, Unsupported, by name, for a family, a
    tokenizer or a trait that llama.cpp has no place for, Failure when the file does not read back.
    """
    if out.exists():
        raise Invalid(f"{out}: exists already; give a file that does not")
    if kind not in TYPES:
        raise Invalid(f"type {kind}: expected one of {', '.join(TYPES)}")
    model, tokenizer = folders.load(folder)
    family = model.config.model_type
    if family not in FAMILIES:
        raise Unsupported(
            f"{folder}: {family} cannot be written for llama.cpp; known: {', '.join(FAMILIES)}"
        )
    layers = _layers(model)
    architecture = _architecture(family, layers)
    _check(folder, model, architecture)
    keys = {
        **_model_keys(model.config, layers, architecture),
        **vocabulary_keys(folder, tokenizer, model.config.vocab_size),
        "prunebench.source_sha256": folders.weights_digest(folder),
    }
    tensors = dict(_tensors(model, layers, architecture))
    with whole_file(out) as draft:
        wider = _write(draft, architecture, keys, tensors, kind)
        _check_written(draft, tensors, kind)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return GgufExport(out, architecture, kind, parameters, out.stat().st_size, wider)


def _layers(model: PreTrainedModel) -> Layers:
    width = _head_width(model.config)

    def sizes(name: str, dim: int) -> tuple[int, ...]:
        paths = (f"model.layers.{i}.{name}.weight" for i in range(model.config.num_hidden_layers))
        return tuple(model.get_parameter(path).shape[dim] for path in paths)

    heads, key_values = (tuple(rows // width for rows in sizes(name, 0)) for name in TURNED)
    return Layers(heads, key_values, sizes("mlp.down_proj", 1))


def _head_width(config: PreTrainedConfig) -> int:
    width: int = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return width


def _architecture(family: str, layers: Layers) -> str:
    if not layers.alike:
        return UNEVEN
    return "llama" if family == "mistral" else family


def _check(folder: Path, model: PreTrainedModel, architecture: str) -> None:
    """Raise Unsupported for what changes the function and has no place in such a file."""
    config = model.config
    rope = config.rope_parameters.get("rope_type", "default")
    if rope != "default":
        raise Unsupported(f"{folder}: rotary positions of type {rope} are not written")
    if config.hidden_act != "silu":
        raise Unsupported(f"{folder}: activation {config.hidden_act}; llama.cpp has silu there")
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        raise Unsupported(f"{folder}: a sliding window of {window} tokens is not written")
    allowed = BIASES.get(architecture)
    for name, _ in model.named_parameters():
        stem, _, end = name.rpartition(".")
        inner = stem.split(".", 3)[-1]
        if end == "bias" and allowed is not None and inner not in allowed:
            raise Unsupported(f"{folder}: {architecture} has no bias in {inner}")


def _model_keys(config: PreTrainedConfig, layers: Layers, architecture: str) -> Json:
    def spread(counts: tuple[int, ...]) -> Plain:
        return list(counts) if architecture == UNEVEN else counts[0]

    width = _head_width(config)
    own = {
        "block_count": len(layers.heads),
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": spread(layers.widths),
        "attention.head_count": spread(layers.heads),
        "attention.head_count_kv": spread(layers.key_values),
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": width,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "vocab_size": config.vocab_size,
    }
    return {f"{architecture}.{key}": value for key, value in own.items()}


def _tensors(
    model: PreTrainedModel, layers: Layers, architecture: str
) -> Iterator[tuple[str, Tensor]]:
    """llama.cpp's name -> weight; a tied head is not listed again."""
    for name, parameter in model.named_parameters():
        stem, _, end = name.rpartition(".")
        weight = parameter.detach()
        if stem in OUTER:
            yield f"{OUTER[stem]}.{end}", weight
            continue
        _, _, number, inner = stem.split(".", 3)
        if inner not in INNER:
            raise Unsupported(f"{name}: llama.cpp has no place for it")
        if inner in TURNED and architecture in NEIGHBOURS:
            counts = layers.heads if inner == TURNED[0] else layers.key_values
            weight = _neighbours(weight, counts[int(number)])
        yield f"blk.{number}.{INNER[inner]}.{end}", weight


def _neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows [heads x width, ...] with the two halves of each head interleaved."""
    halves: Tensor = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(weight.shape)


def _stored(name: str, tensor: Tensor, kind: str) -> tuple[np.ndarray[Foreign, Foreign], Foreign]:
    """A tensor as its bytes lie in the file, and their type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quantize

    own = GGMLQuantizationType["F32" if tensor.dim() == 1 else kind.upper()]
    block, _ = GGML_QUANT_SIZES[own]
    if tensor.shape[-1] % block:
        own = GGMLQuantizationType.F16
    return quantize(tensor.float().contiguous().cpu().numpy(), own), own


def _write(
    path: Path, architecture: str, keys: Json, tensors: Mapping[str, Tensor], kind: str
) -> int:
    """Write the file; how many tensors do not fit blocks of the type."""
    from gguf import GGUFWriter, LlamaFileType

    files = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer = GGUFWriter(path, architecture)
    writer.add_file_type(LlamaFileType[files[kind]])
    wider = 0
    try:
        for key, value in keys.items():
            _add(writer, key, value)
        for name, tensor in tensors.items():
            raw, own = _stored(name, tensor, kind)
            wider += tensor.dim() > 1 and own.name != kind.upper()
            writer.add_tensor(name, raw, raw_dtype=own)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return wider


def _add(writer: Foreign, key: str, value: Plain) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _check_written(path: Path, tensors: Mapping[str, Tensor], kind: str) -> None:
    """Raise Failure unless every tensor lies in the file byte for byte."""
    import numpy as np
    from gguf import GGUFReader

    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, tensor in tensors.items():
        raw, own = _stored(name, tensor, kind)
        there = found.get(name)
        if (
            there is None
            or there.tensor_type != own
            or not np.array_equal(there.data.view(np.uint8).ravel(), raw.view(np.uint8).ravel())
        ):
            raise Failure(f"{name} does not read back as it was written; nothing was kept")
