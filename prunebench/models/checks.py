"""Is a model folder whole, and did every tensor of its files find its place in the model?"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.untyped import JsonMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.tiktoken", "tokenization_*.py")

Shape = tuple[int, ...]
BUFFERS: Mapping[str, Callable[[Shape], bool]] = {
    "rotary_emb.inv_freq": lambda shape: len(shape) == 1,
    "rotary_emb.cos_cached": lambda shape: len(shape) >= 2,
    "rotary_emb.sin_cached": lambda shape: len(shape) >= 2,
    "attention.bias": lambda shape: _is_causal_mask(shape),
    "attn.bias": lambda shape: _is_causal_mask(shape),
    "attention.masked_bias": lambda shape: shape in ((), (1,)),
    "attn.masked_bias": lambda shape: shape in ((), (1,)),
    "position_ids": lambda shape: len(shape) == 2 and shape[0] == 1,
}
"""Buffers that old checkpoints hold and models now make themselves: name's end -> its shape.
Everything else that has no place is part of a function that the model would not compute."""


def check_folder(folder: Path) -> None:
    """Raise Invalid unless the folder holds a whole model of plain weights, and its tokenizer."""
    if (folder / "adapter_config.json").is_file():
        raise Invalid(
            f"model {folder}: holds a PEFT adapter (adapter_config.json) that is not merged into "
            "the weights; merge it first, e.g. with peft: AutoPeftModelForCausalLM"
            ".from_pretrained(FOLDER).merge_and_unload().save_pretrained(OUT), and save its "
            "tokenizer to OUT, too"
        )
    if not (folder / "config.json").is_file():
        raise Invalid(f"model {folder}: expected a Hugging Face folder, found no config.json")
    if found := read_object(folder / "config.json").get("quantization_config"):
        how = found.get("quant_method") if isinstance(found, dict) else None
        how = how or "a method without a name"
        raise Invalid(f"model {folder}: its weights are quantised ({how}); expected plain ones")
    for path in weight_files(folder):
        if not path.is_file():
            raise Invalid(f"model {folder}: missing shard {path.name}")
    _check_tokenizer(folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: one, or those that its index names."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() or not index.is_file():
        if single.is_file():
            return [single]
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        what = "only pickled weights" if pickled else "no safetensors weights"
        how = "; docs/paper-reproduction.md says how to convert them" if pickled else ""
        raise Invalid(f"model {folder}: expected safetensors, found {what}{how}")
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(_is_plain_name(name) for name in names.values()):
        raise Invalid(f"{index}: weight_map: expected names of tensors with files beside it")
    return [folder / name for name in sorted(set(names.values()))]


def read_object(path: Path) -> JsonMap:
    """A JSON object of a model's folder. Raises Invalid, naming the file, for anything else."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path}: not valid JSON: {error}") from None
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(found, dict):
        raise Invalid(f"{path}: expected an object, got {type(found).__name__}")
    return found


def _is_plain_name(name: object) -> bool:
    """Of a file in this folder: a checkpoint must not name files outside."""
    return isinstance(name, str) and name == Path(name).name


def shapes_in(files: Iterable[Path]) -> dict[str, Shape]:
    """Name -> shape of every tensor in weight files, from their headers alone."""
    from safetensors import safe_open

    found: dict[str, Shape] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                found[name] = tuple(file.get_slice(name).get_shape())
    return found


def check_fit(
    source: str | Path,
    model: PreTrainedModel,
    report: JsonMap,
    shapes: Mapping[str, Shape],
) -> None:
    """Raise Invalid unless every weight came from a file, and every tensor there has its place.

    report  what transformers says of the loading; shapes: what the files hold

    transformers draws what is missing at random, leaves out what has no place, and is silent about
    names that a family's class or an old habit tells it to pass over. So those are looked at again.
    """
    misfits = [
        f"{name} has shape {tuple(got)}, the config says {tuple(expected)}"
        for name, got, expected in sorted(report["mismatched_keys"])
    ]
    misfits += [f"{name} is missing" for name in sorted(report["missing_keys"])]
    surplus = set(report["unexpected_keys"]) | _passed_over(model, shapes)
    misfits += [
        f"{name} is not in the config's model"
        for name in sorted(surplus)
        if not is_old_buffer(name, shapes.get(name))
    ]
    if misfits:
        more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        raise Invalid(f"model {source}: weights and config disagree: {misfits[0]}{more}")


def check_finite(source: str | Path, model: PreTrainedModel) -> None:
    """Raise Invalid, naming the tensor, where a checkpoint holds NaN or infinity."""
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            kind = str(parameter.dtype).removeprefix("torch.")
            raise Invalid(f"model {source}: the checkpoint is not finite: {name}, read as {kind}")


def is_old_buffer(name: str, shape: Shape | None) -> bool:
    """Whether a tensor without a place may be left out: by its name and, if known, its shape."""
    for end, fits in BUFFERS.items():
        if name == end or name.endswith(f".{end}"):
            return shape is None or fits(shape)
    return False


def _passed_over(model: PreTrainedModel, shapes: Mapping[str, Shape]) -> set[str]:
    """Names that transformers' report leaves out, and that are none of the model's."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), "inv_freq", "position_ids"]
    ignored = re.compile("|".join(f"({pattern})" for pattern in patterns))
    own = set(model.state_dict())
    return {name for name in shapes if ignored.search(name) and name not in own}


def _is_causal_mask(shape: Shape) -> bool:
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def _check_tokenizer(folder: Path) -> None:
    if any(any(folder.glob(pattern)) for pattern in TOKENIZERS):
        return
    pieces = [name for name in PIECES if (folder / name).is_file()]
    if not pieces:
        raise Invalid(
            f"model {folder}: expected a tokenizer beside the weights (tokenizer.json, or "
            f"{PIECES[0]} with sentencepiece installed), found none"
        )
    missing = [n for n in ("sentencepiece", "google.protobuf") if not _is_installed(n)]
    if missing:
        raise Invalid(
            f"model {folder}: its only tokenizer is {pieces[0]}; reading it needs sentencepiece "
            "and protobuf: pip install sentencepiece protobuf"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
