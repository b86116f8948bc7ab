"""Settings of tuning: the JSON schema, the named presets and the `Tuning` built from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prunebench.files import read_yaml
from prunebench.schema import validator
from prunebench.untyped import Json, JsonMap, Plain

from ..errors import Invalid

LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Every key but `preset` has a default, so that an empty mapping is a valid description.
SCHEMA: Json = {
    "type": "object",
    "description": "How a pruned model is tuned with LoRA.",
    "additionalProperties": False,
    "properties": {
        "preset": {
            "description": "Name of a paper's settings (tuning/presets.yaml); other keys override.",
            "type": ["string", "null"],
            "default": None,
        },
        "rank": {
            "description": "LoRA rank r.",
            "type": "integer",
            "minimum": 1,
            "default": 8,
        },
        "alpha": {
            "description": "LoRA alpha; the update is scaled by alpha / rank.",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 16,
        },
        "dropout": {
            "description": "Dropout on the input of every LoRA branch, a fraction.",
            "type": "number",
            "minimum": 0,
            "exclusiveMaximum": 1,
            "default": 0.05,
        },
        "targets": {
            "description": "Names of the Linears inside decoder blocks that get LoRA, or 'auto' "
            "for all of them (for families with other names than LLaMA's).",
            "oneOf": [
                {"const": "auto"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
            ],
            "default": list(LLAMA_PROJECTIONS),
        },
        "learning_rate": {
            "description": "Peak learning rate of AdamW.",
            "type": "number",
            "exclusiveMinimum": 0,
            "default": 1e-4,
        },
        "schedule": {
            "description": "Learning rate after the warm-up.",
            "enum": ["linear", "cosine", "constant"],
            "default": "linear",
        },
        "warmup": {
            "description": "Linear warm-up: optimizer steps, or a fraction of them when below 1.",
            "type": "number",
            "minimum": 0,
            "default": 0.06,
        },
        "batch": {
            "description": "Sequences per optimizer step.",
            "type": "integer",
            "minimum": 1,
            "default": 64,
        },
        "micro_batch": {
            "description": "Sequences per forward pass; divides `batch`. Lower it to save memory.",
            "type": "integer",
            "minimum": 1,
            "default": 4,
        },
        "length": {
            "description": "Longest sequence in tokens; longer ones are cut on the right.",
            "type": "integer",
            "minimum": 2,
            "default": 256,
        },
        "tokens": {
            "description": "Token budget, padding not counted; null: `epochs` decides.",
            "type": ["integer", "null"],
            "minimum": 1,
            "default": None,
        },
        "epochs": {
            "description": "Passes over the data, used when `tokens` is null; may be a fraction.",
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "default": 2,
        },
        "weight_decay": {
            "description": "Weight decay of AdamW.",
            "type": "number",
            "minimum": 0,
            "default": 0,
        },
        "clip": {
            "description": "Largest gradient norm of an optimizer step; 0: no clipping.",
            "type": "number",
            "minimum": 0,
            "default": 1.0,
        },
        "precision": {
            "description": "Arithmetic of the forward pass; auto: bf16 on GPUs that have it, else "
            "fp32. There is no fp16: it overflows when Llama-2 is tuned.",
            "enum": ["auto", "fp32", "bf16"],
            "default": "auto",
        },
        "loss_on": {
            "description": "Tokens that carry a loss: the response with its end token, or all.",
            "enum": ["response", "all"],
            "default": "response",
        },
        "template": {
            "description": "Prompt template; none: records are plain text, all of it response.",
            "enum": ["alpaca", "none"],
            "default": "alpaca",
        },
        "empty_response": {
            "description": "What to do with a record whose output is empty (Alpaca has a few): "
            "leave it out and count it, or stop.",
            "enum": ["leave_out", "error"],
            "default": "leave_out",
        },
        "checkpoint_every": {
            "description": "Optimizer steps between checkpoints; null: none, a kill starts over.",
            "type": ["integer", "null"],
            "minimum": 1,
            "default": 100,
        },
        "log_every": {
            "description": "Optimizer steps that one point of the recorded loss curve averages.",
            "type": "integer",
            "minimum": 1,
            "default": 10,
        },
    },
}


@dataclass(frozen=True)
class RecoverySettings:
    """Validated settings of tuning; `SCHEMA` says what each key means."""

    preset: str | None
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | str
    learning_rate: float
    schedule: str
    warmup: float
    batch: int
    micro_batch: int
    length: int
    tokens: int | None
    epochs: float | None
    weight_decay: float
    clip: float
    precision: str
    loss_on: str
    template: str
    empty_response: str
    checkpoint_every: int | None
    log_every: int

    @classmethod
    def from_config(cls, config: JsonMap, *, where: str = "recovery") -> RecoverySettings:
        """Settings from a campaign's mapping: its keys, then its preset's, then the defaults.

        `where` names the mapping in messages (`config/demo.yaml: tuning`).
        Raises `Invalid`, naming the key, for an unknown key, a wrong value or a contradiction.
        """
        _validate(config, where)
        merged = _defaults() | _preset(config.get("preset"), where) | dict(config)
        if not isinstance(merged["targets"], str):
            merged["targets"] = tuple(merged["targets"])
        settings = cls(**merged)
        settings._check(where)
        return settings

    def warmup_steps(self, steps: int) -> int:
        """Optimizer steps of warm-up in a tuning of `steps` steps."""
        if self.warmup < 1:
            return round(self.warmup * steps)
        if self.warmup >= steps:
            raise Invalid(
                f"recovery.warmup: expected fewer steps than the tuning has ({steps}), got "
                f"{self.warmup:g}; give fewer steps or a fraction below 1"
            )
        return int(self.warmup)

    def as_dict(self) -> Json:
        """Plain JSON data, for records."""
        plain = asdict(self)
        plain["targets"] = self.targets if isinstance(self.targets, str) else list(self.targets)
        return plain

    def digest(self) -> str:
        """SHA-256 over all settings; equal digests mean equal tuning of equal data."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def _check(self, where: str) -> None:
        if self.batch % self.micro_batch:
            raise Invalid(
                f"{where}.micro_batch: expected a divisor of batch ({self.batch}), "
                f"got {self.micro_batch}; set both"
            )
        if self.tokens is None and self.epochs is None:
            raise Invalid(f"{where}.tokens: both tokens and epochs are null; set one of them")
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise Invalid(
                f"{where}.warmup: expected whole steps or a fraction below 1, got {self.warmup}"
            )


def presets() -> dict[str, Json]:
    """The papers' settings by name, as they stand in presets.yaml (sources are comments there)."""
    found: dict[str, Json] = read_yaml(Path(__file__).with_name("presets.yaml"))
    return found


def _defaults() -> Json:
    return {key: entry["default"] for key, entry in SCHEMA["properties"].items()}


def _preset(name: str | None, where: str) -> Json:
    if name is None:
        return {}
    known = presets()
    if name not in known:
        raise Invalid(f"{where}.preset: unknown preset {name!r}; known: {', '.join(known)}")
    return known[name]


def _validate(config: JsonMap, where: str) -> None:
    if not isinstance(config, Mapping):
        raise Invalid(f"{where}: expected a mapping, got {type(config).__name__}")
    for key in config:
        if key not in SCHEMA["properties"]:
            raise Invalid(f"{where}.{key}: unknown key; known: {', '.join(SCHEMA['properties'])}")
    for error in validator()(SCHEMA).iter_errors(dict(config)):
        key = ".".join(str(part) for part in error.absolute_path)
        raise Invalid(f"{where}.{key}: {_explain(error)}")


def _explain(error: Plain) -> str:
    """One line on a schema error, with the remedy for YAML 1.1's `1e-4`, which is read as text."""
    if error.validator == "type" and isinstance(error.instance, str):
        try:
            float(error.instance)
        except ValueError:
            pass
        else:
            return f"got the text {error.instance!r}; YAML reads 1e-4 as text, write 1.0e-4"
    if error.validator == "oneOf":
        return f"expected {error.schema['description']} Got {error.instance!r}"
    return f"expected {error.validator} {error.validator_value}, got {error.instance!r}"
