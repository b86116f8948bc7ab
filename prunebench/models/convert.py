"""Checkpoints that need remote code become stock folders, without that code being run.

Baichuan-7B computes what LLaMA computes; only q, k and v lie fused in one matrix, `W_pack`, whose
rows are q, then k, then v. So its weights are renamed and cut, never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid, Unsupported
from prunebench.models.checks import weight_files
from prunebench.models.folders import MARKER
from prunebench.models.stock_tokenizer import save_stock_tokenizer
from prunebench.untyped import Foreign, JsonMap
from prunebench.whole import whole_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig

FUSED, PARTS = "W_pack", ("q_proj", "k_proj", "v_proj")
DERIVED = "rotary_emb.inv_freq"
"""End of the names of buffers that old checkpoints hold and that follow from the config."""
INDEX = "model.safetensors.index.json"
BAICHUAN_2_VOCABULARY = 125696
KEPT = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
)


@dataclass(frozen=True)
class Conversion:
    """What was written. tokenizer: where it came from, in words."""

    shards: int
    parameters: int
    tokenizer: str


def convert(source: Path, out: Path) -> Conversion:
    """Write the checkpoint folder `source` to `out` as a folder that stock classes load.

    One shard is in memory at a time. `out` appears when it is complete, or not at all. Raises
    Unsupported with the reason for a kind of checkpoint that has no stock equivalent, and Invalid
    when the folder is incomplete, pickled, or disagrees with its config.
    """
    raw = _read_config(source)
    reason = refusal(raw)
    if reason:
        raise Unsupported(f"{source}: {reason}")
    if out.exists():
        raise Invalid(f"{out}: exists already; give a folder that does not")
    config = _stock_config(raw, source)
    files = weight_files(source)
    parameters = _check_shapes(files, config, source)
    with whole_folder(out) as draft:
        tokenizer = save_stock_tokenizer(source, draft)
        config.save_pretrained(draft)
        _write_shards(files, draft, config.hidden_size)
        marker = {"format": 1, "loadable_by": "transformers", "converted_from": raw["model_type"]}
        (draft / MARKER).write_text(json.dumps(marker, sort_keys=True) + "\n", encoding="utf-8")
    return Conversion(len(files), parameters, tokenizer)


def refusal(config: JsonMap) -> str | None:
    """Why a checkpoint with this config cannot be converted; None if it can."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind == "baichuan":
        return _baichuan_refusal(config)
    if kind == "chatglm":
        return _chatglm_refusal(config)
    if kind in CONFIG_MAPPING:
        return f"model type {kind!r} is one of transformers' own: no conversion is needed"
    return f"model type {kind!r} cannot be converted; known: baichuan (Baichuan-7B)"


def _baichuan_refusal(config: JsonMap) -> str | None:
    if config.get("vocab_size") == BAICHUAN_2_VOCABULARY or "z_loss_weight" in config:
        return (
            "Baichuan 2 normalises the rows of its output head (NormHead) in every forward pass, "
            "which LLaMA does not; only Baichuan-7B can be converted"
        )
    if config.get("num_attention_heads") == 40 or "max_position_embeddings" not in config:
        return (
            "Baichuan-13B has ALiBi in place of rotary positions, which LLaMA has not; only "
            "Baichuan-7B can be converted"
        )
    if config.get("architectures") != ["BaiChuanForCausalLM"]:  # the later ones write Baichuan
        return (
            f"expected architectures ['BaiChuanForCausalLM'] (Baichuan-7B), got "
            f"{config.get('architectures')}"
        )
    return None


def _chatglm_refusal(config: JsonMap) -> str:
    if config.get("position_encoding_2d") or "inner_hidden_size" in config:
        return (
            "ChatGLM-6B reads its prompt in both directions, rotates by two positions at once and "
            "weights its residuals: transformers has no class that computes this"
        )
    return (
        "ChatGLM2, ChatGLM3 and the remote-code GLM-4 are not converted, for want of a test that "
        "the result is exact; of GLM-4 there is a stock checkpoint, zai-org/glm-4-9b-hf"
    )


def _read_config(source: Path) -> JsonMap:
    path = source / "config.json"
    if not path.is_file():
        raise Invalid(
            f"{source}: expected a checkpoint folder with config.json; download a hub model first"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Invalid(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise Invalid(f"{path}: expected an object, got {type(config).__name__}")
    return config


def _stock_config(raw: JsonMap, source: Path) -> LlamaConfig:
    from transformers import LlamaConfig

    settings = {key: raw[key] for key in KEPT if key in raw}
    dtype = raw.get("dtype", raw.get("torch_dtype"))
    try:
        return LlamaConfig(**settings, architectures=["LlamaForCausalLM"], dtype=dtype)
    except Exception as error:  # the config class checks its values in ways of its own
        first = next(iter(str(error).splitlines()), repr(error))
        raise Invalid(f"{source / 'config.json'}: {first}") from None


def _check_shapes(files: list[Path], config: LlamaConfig, source: Path) -> int:
    """Raise Invalid unless the weights are those that the config describes; their number."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        found.update(_shapes(path, config.hidden_size, source))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise Invalid(
                f"{source}: weights and config disagree: {name}: expected "
                f"{expected.get(name, 'none')}, got {found.get(name, 'none')}"
            )
    return sum(p.numel() for p in model.parameters())


def _shapes(path: Path, hidden: int, source: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Stock names and shapes of a shard's tensors, read off its header."""
    with _open(path, source) as file:
        for name in file.keys():
            shape = tuple(file.get_slice(name).get_shape())
            if FUSED in name and shape[0] == 3 * hidden:
                yield from ((part, (hidden, *shape[1:])) for part in _stock_names(name))
            elif not name.endswith(DERIVED):
                yield name, shape


def _open(path: Path, source: Path) -> Foreign:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise Invalid(f"{source}: missing shard {path.name}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise Invalid(f"{path}: not a whole safetensors file: {error}") from None


def _write_shards(files: list[Path], out: Path, hidden: int) -> None:
    """Each shard becomes one of the same name; only one is in memory at a time."""
    from safetensors.torch import save_file

    places: dict[str, str] = {}
    size = 0
    for path in files:
        tensors = dict(_stock_tensors(path, hidden))
        save_file(tensors, out / path.name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, path.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _stock_tensors(path: Path, hidden: int) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():
            if name.endswith(DERIVED):
                continue
            tensor = file.get_tensor(name)
            if FUSED not in name:
                yield name, tensor
                continue
            for part, rows in zip(_stock_names(name), tensor.split(hidden), strict=True):
                yield part, rows.clone()  # a file cannot hold views of one storage


def _stock_names(name: str) -> list[str]:
    return [name.replace(FUSED, part) for part in PARTS]
