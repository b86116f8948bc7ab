"""PAT's parameters: what a flavour stands for, and what contradicts itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from prunebench import Invalid
from prunebench.recovery import RecoverySettings
from prunebench.untyped import Json, JsonMap

FLAVOURS: dict[str, Json] = {
    "code": {
        "scale": "channel",
        "exponent_limit": 10.0,
        "freeze": 0.8,
        "count_loss": "relative",
        "bimodal_loss": True,
        "identity_loss": "mean",
        "decay": "exponential",
        "mask_start": "zero",
        "module_rate": 1.0,
    },
    "paper": {
        "scale": "rank",
        "exponent_limit": 0.0,
        "freeze": 1.0,
        "count_loss": "absolute",
        "bimodal_loss": False,
        "identity_loss": "norm",
        "decay": "linear",
        "mask_start": "zero",
        "module_rate": 1.0,
    },
}
FLAVOURS["short"] = {**FLAVOURS["code"], "mask_start": "taylor", "module_rate": "auto"}

RANK_SHARE, LARGEST_RANK = 0.05, 200  # "about 5 %"; 200 at widths 4096, 5120 and 7168


@dataclass(frozen=True)
class PATOptions:
    """The parameters of one run; method.yaml describes each."""

    scale: str
    exponent_limit: float
    freeze: float
    after_freeze: str
    count_loss: str
    bimodal_loss: bool
    identity_loss: str
    decay: str
    identity_on: str
    trainable_mask: bool
    mask_start: str
    module_rate: float | str
    milestone: float
    mask_travel: float | None
    rank: int | None
    lora_rank: int | None
    width: int | None
    multiple_of: int | None

    @classmethod
    def from_params(cls, params: JsonMap) -> PATOptions:
        """Resolve the flavour. Raises Invalid for parameters that contradict each other."""
        rest = dict(params)
        defaults = FLAVOURS[rest.pop("flavour")]
        chosen = {key: rest.pop(key) for key in defaults}
        given = {key: value for key, value in chosen.items() if value is not None}
        options = cls(**{**defaults, **given}, **rest)
        if options.width is not None and options.multiple_of is not None:
            raise Invalid("pat: width and multiple_of: give one of them, the width is rounded once")
        return options

    def hsm_rank(self, width: int) -> int:
        """Rank of the HSMs in a model of this hidden width. Raises Invalid for more than that."""
        rank = self.rank or max(1, min(LARGEST_RANK, round(RANK_SHARE * width)))
        if rank > width:
            raise Invalid(f"pat: rank: expected at most the hidden width {width}, got {rank}")
        return rank

    def adapted(self, settings: RecoverySettings) -> RecoverySettings:
        """The campaign's settings with PAT's own LoRA rank; alpha / rank stays what it was."""
        if self.lora_rank is None:
            return settings
        alpha = settings.alpha * self.lora_rank / settings.rank
        return replace(settings, rank=self.lora_rank, alpha=alpha)

    def to_dict(self) -> Json:
        """Plain data for the record."""
        return asdict(self)
