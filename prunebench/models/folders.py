"""Load and save models: a hub id, a local folder, or a folder that this suite wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.disk import check_room
from prunebench.errors import Invalid
from prunebench.files import joined, sha256
from prunebench.models.checks import (
    INDEX,
    PIECES,
    SINGLE,
    check_finite,
    check_fit,
    check_folder,
    shapes_in,
    weight_files,
)
from prunebench.untyped import Foreign, Json, JsonMap
from prunebench.whole import whole_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from prunebench.pruning.structure import Structure

MARKER = "prunebench.json"
"""File in a saved folder that states the decision and whether shapes differ between layers."""


def load(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in evaluation mode, and its tokenizer.

    source  a local folder (stock, or pruned to shapes that no config describes) or a hub id
    dtype   torch's name of the type of the weights

    Only safetensors are read. Raises Invalid, in one line, when the source cannot be loaded, or
    when its weights are not exactly those that its config describes.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    from prunebench.pruning.tying import head_is_tied

    folder = folder_of(source, revision)
    check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if _mixed(folder):
            model = _load_mixed(folder, dtype=getattr(torch, dtype))
        else:
            model = _load_stock(folder, trust_remote_code, dtype=getattr(torch, dtype))
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise Invalid(f"model {source}: {_why_not_loaded(error)}") from None
    check_finite(source, model)
    model.config.tie_word_embeddings = head_is_tied(model)
    if getattr(model.config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # SDPA drops the cap, and transformers 5.17 lets it
    model.to(device)  # type: ignore[arg-type]  # its wrapper in transformers loses the signature
    return model.eval(), tokenizer


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    uniform: bool,
    decision: str | None = None,
    origin: JsonMap | None = None,
) -> str:
    """Write a Hugging Face folder in safetensors, whole or not at all.

    uniform   the stock class can build the model from its config (what surgery reported)
    decision  the Decision as JSON text, kept beside the weights
    origin    for a model that was made from a saved one: what was done to it, kept there too

    Returns who can load it: "transformers" (stock `from_pretrained`) or "prunebench" (`load`).
    Raises Failure, with how much is missing, where the disk has no room for the weights.
    """
    check_room(folder, sum(p.numel() * p.element_size() for p in model.parameters()))
    with whole_folder(folder) as draft:
        stock, unlike = _save_config_and_weights(model, draft, uniform=uniform)
        tokenizer.save_pretrained(draft)
        loader = "transformers" if stock else "prunebench"
        marker: Json = {"format": 1, "loadable_by": loader}
        if added := sorted(name for name in unlike if name.endswith(".bias")):
            marker["added"] = added
        if decision is not None:
            marker["decision"] = json.loads(decision)
        if origin is not None:
            marker["origin"] = dict(origin)
        (draft / MARKER).write_text(json.dumps(marker, sort_keys=True) + "\n", encoding="utf-8")
    return loader


def folder_of(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: itself, or the snapshot of a hub id, downloaded where it is not yet.

    Of a repository only what loading needs is taken: safetensors in its main folder and the files
    beside them. Raises Invalid, in one line, for what is neither a folder nor on the hub.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or len(folder.parts) > 2:
        raise Invalid(f"model {source}: expected a folder or a hub id, found no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = ["*.json", "*.txt", "*.jinja", "*.py", "*.tiktoken", *PIECES]
    try:
        small = snapshot_download(str(source), revision=revision, allow_patterns=wanted)
        index = Path(small) / INDEX
        weights = (
            sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if index.is_file()
            else [SINGLE]
        )
        return Path(
            snapshot_download(str(source), revision=revision, allow_patterns=[*wanted, *weights])
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise Invalid(
            f"model {source}: not a local folder, and not on the hub or in its cache: {first}"
        ) from None


def weights_digest(folder: Path) -> str:
    """Digest of a folder's weights, as `prunebench.identity` gives it for the original."""
    return joined([sha256(path) for path in weight_files(folder)])


def _save_config_and_weights(
    model: PreTrainedModel, folder: Path, *, uniform: bool
) -> tuple[bool, set[str]]:
    """Save so that stock classes accept the config where shapes permit it.

    Returns whether they do, and the parameters that only the class has, or only the model.

    Llama's and Gemma-2's configs insist that the number of heads divides hidden_size although
    head_dim is explicit. Mistral's is the same computation as Llama's under the same names, without
    biases, and has no such rule.
    """
    from prunebench.models.stock import unlike_stock
    from prunebench.pruning.tying import head_is_tied

    config = model.config
    config.tie_word_embeddings = head_is_tied(model)
    # What `load` reads itself has the names that parameters have in memory.
    if _accepts(config):
        unlike = unlike_stock(model)
        uniform = uniform and not unlike
        model.save_pretrained(folder, save_original_format=uniform)
        return uniform, unlike
    heads = {k: getattr(config, k) for k in ("num_attention_heads", "num_key_value_heads")}
    for key in heads:
        setattr(config, key, 1)  # a placeholder that passes the check
    unlike = unlike_stock(model)
    uniform = uniform and not unlike
    model.save_pretrained(folder, save_original_format=uniform)
    for key, value in heads.items():
        setattr(config, key, value)
    if not uniform or config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        return False, unlike
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8")) | heads
    raw.update(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None)
    path.write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return True, unlike


def _accepts(config: PreTrainedConfig) -> bool:
    """Whether the config class of transformers permits these shapes."""
    try:
        getattr(config, "validate_architecture", lambda: None)()
    except ValueError:
        return False
    return True


def _load_stock(folder: Path, trust_remote_code: bool, *, dtype: torch.dtype) -> PreTrainedModel:
    """Load through transformers, strictly: it would draw what is missing at random, and go on.

    Sizes may differ there only for this function to name the weight; no such model is returned.
    """
    from transformers import AutoModelForCausalLM

    loaded: Foreign = AutoModelForCausalLM.from_pretrained(
        folder,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=trust_remote_code,
        dtype=dtype,
    )
    model: PreTrainedModel = loaded[0]
    check_fit(folder, model, loaded[1], shapes_in(weight_files(folder)))
    return model


def _mixed(folder: Path) -> bool:
    return describe(folder).get("loadable_by") == "prunebench"


def _load_mixed(folder: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """Build the stock model without weights, give every parameter the shape on disk, fill strictly.

    The tensors themselves say what the shapes are, so there is nothing that could disagree.
    """
    from accelerate import init_empty_weights
    from safetensors.torch import load_file
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    from prunebench.models.stock import gained_biases
    from prunebench.pruning.architectures import refresh, structures_of
    from prunebench.pruning.surgery import sync_features
    from prunebench.pruning.tying import head_name, tie

    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        tensors.update(load_file(path))
    config = AutoConfig.from_pretrained(folder)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    tied = head_name(model) not in tensors
    if tied:
        tie(model)
    structures = structures_of(model).values()
    for structure in structures:
        _fit_members(model, structure, tensors)
    expected = {name for name, _ in model.named_parameters()}
    numbers = {structure.numbers for structure in structures}
    added = gained_biases(model, describe(folder).get("added", ()))  # by a method, to the class
    missing, surplus = expected - set(tensors), set(tensors) - expected - numbers - added
    if missing or surplus:
        raise Invalid(
            f"model {folder}: weights and config disagree: missing {sorted(missing)[:3]}, "
            f"unknown {sorted(surplus)[:3]}"
        )
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if name in numbers:
            module.register_buffer(leaf, tensor)
        else:
            setattr(module, leaf, nn.Parameter(tensor.to(dtype)))
    if tied:
        tie(model)
    for module in model.modules():
        sync_features(module)
    refresh(model)
    return model


def _fit_members(
    model: PreTrainedModel, structure: Structure, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Take modules off the end of a structure's lists until there are as many as in the file."""
    from prunebench.modules import stack_at
    from prunebench.pruning.surgery import replace_list

    for members in structure.members:
        start = f"{members.path}."
        found = {name[len(start) :].split(".")[0] for name in tensors if name.startswith(start)}
        replace_list(model, members.path, stack_at(model, members.path)[: len(found)])


def describe(folder: Path) -> JsonMap:
    """What a saved folder says of itself: its marker, or an empty mapping for a stock folder."""
    marker = folder / MARKER
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}


def _why_not_loaded(error: Exception) -> str:
    """One line for the user on an error of transformers or safetensors."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if isinstance(error, SafetensorError):
        return f"a weight file is cut off or no safetensors at all: {error}"
    if isinstance(error, StrictDataclassError):
        return f"its config is not valid: {' '.join(str(error).split())}"
    if "trust_remote_code" in str(error):
        return (
            "needs code from the checkpoint, which is not run unless the model's entry says "
            "trust_remote_code: true (`prunebench convert` makes Baichuan-7B load without)"
        )
    first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
    return f"cannot be loaded: {first}"
