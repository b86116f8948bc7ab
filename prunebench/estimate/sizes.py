"""The few numbers about a model on which its cost depends, counted on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.campaign.config import Model
from prunebench.errors import Invalid, Unsupported
from prunebench.models.shapes import empty_model, make_config, shapes
from prunebench.models.shipped import locate

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from prunebench.recovery import RecoverySettings

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
AUTO_BYTES = {"cpu": 4, "cuda": 2}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a dense model.

    parameters     all of them, a tied weight once
    decoder        those of the decoder blocks
    active         those that a token is multiplied with: all but an embedding that is only read
    inputs         input features of all Linears in the decoder blocks together, per token
    outputs        the same for their output features
    layers         decoder blocks
    largest        parameters of the largest Linear in a block
    vocabulary     logits per token
    cache          values of keys and values per token, all layers together
    dtype_bytes    bytes of a weight
    """

    parameters: int
    decoder: int
    active: int
    inputs: int
    outputs: int
    layers: int
    largest: int
    vocabulary: int
    cache: int
    dtype_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, in memory and on disk."""
        return self.parameters * self.dtype_bytes


def sizes_of(entry: Model, device: str = "cuda") -> tuple[Sizes, PreTrainedModel]:
    """Sizes of a campaign's model and the model on the meta device, without its weights or network.

    `device`: "cuda" or "cpu", which decides what type `auto` stands for.
    Raises Unsupported when no shape is known for it.
    """
    model = empty_model(_config(entry))
    return count(model, DTYPE_BYTES.get(entry.dtype, AUTO_BYTES[device])), model


def count(model: PreTrainedModel, dtype_bytes: int) -> Sizes:
    """Sizes of a model, read off its modules; no value is read."""
    from torch import nn

    from prunebench.profiling.sizes import decode_weight_bytes, decoder_blocks, size, tensor_bytes

    blocks = decoder_blocks(model)
    linears = [m for m in blocks.modules() if isinstance(m, nn.Linear)]
    some = next(model.parameters())
    active = decode_weight_bytes(model) * some.numel() // tensor_bytes(some)
    return Sizes(
        parameters=size(model)["parameters"],
        decoder=sum(parameter.numel() for parameter in blocks.parameters()),
        active=active,
        inputs=sum(linear.in_features for linear in linears),
        outputs=sum(linear.out_features for linear in linears),
        layers=len(blocks),
        largest=max(linear.weight.numel() for linear in linears),
        vocabulary=model.get_output_embeddings().weight.shape[0],
        cache=2 * len(blocks) * _key_values(model.config),
        dtype_bytes=dtype_bytes,
    )


def lora_parameters(model: PreTrainedModel, settings: RecoverySettings) -> int:
    """Parameters of the adapters that the tuning settings ask for.

    Raises Invalid when the model has not the modules that `targets` names.
    """
    from torch import nn

    from prunebench.recovery.lora import target_names

    modules = [model.get_submodule(name) for name in target_names(model, settings)]
    linears = [m for m in modules if isinstance(m, nn.Linear)]
    return settings.rank * sum(m.in_features + m.out_features for m in linears)


def _key_values(config: PretrainedConfig) -> int:
    """Features of the keys of one token in one layer."""
    heads: int = config.num_attention_heads
    width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    if getattr(config, "multi_query", False):
        return width
    keys: int = getattr(config, "num_key_value_heads", None) or heads
    return width * keys


def _config(entry: Model) -> PretrainedConfig:
    if entry.kind == "random":
        return make_config(entry.source, entry.overrides)
    if entry.kind == "hub":
        by_id: Mapping[str, str] = {s.hub.lower(): name for name, s in shapes().items()}
        if entry.source.lower() not in by_id:
            raise Unsupported(f"no shape is known for {entry.source} (models/shapes.yaml)")
        return make_config(by_id[entry.source.lower()])
    return _config_of_folder(entry)


def _config_of_folder(entry: Model) -> PretrainedConfig:
    from transformers import AutoConfig

    folder = locate(entry.kind, entry.source)
    if not (folder / "config.json").is_file():
        why = "the campaign makes it" if entry.kind == "demo" else "no such folder yet"
        raise Unsupported(f"no shape is known for {folder}: {why}")
    try:
        found: PretrainedConfig = AutoConfig.from_pretrained(folder)
        return found
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), repr(error))
        raise Invalid(f"{folder / 'config.json'}: {first}") from None
