"""PAT's terms beside the cross-entropy: how many channels stay, how clearly, and near-identity."""

from __future__ import annotations

import torch
from torch import Tensor

COUNT_WEIGHT = 10.0  # released code
POLE = 0.5  # where the bimodal loss draws the weights, above 0 and below


def count_loss(mask: Tensor, kept: int, *, relative: bool) -> Tensor:
    """Distance between the number of weights w >= 0 and `kept`, straight through the comparison.

    relative: 10 |count - kept| / kept as released; else |count - kept| (paper).
    """
    positive = (mask >= 0).to(mask.dtype)
    count = (positive + mask - mask.detach()).sum()  # gradient of the identity
    distance = (count - kept).abs()
    return COUNT_WEIGHT * distance / kept if relative else distance


def bimodal_loss(mask: Tensor) -> Tensor:
    """Mean of (w - 1/2)^2 over w > 0 plus mean of (w + 1/2)^2 over w <= 0; an empty side is 0."""
    upper = mask > 0
    return _mean((mask - POLE).square(), upper) + _mean((mask + POLE).square(), ~upper)


def identity_loss(down: Tensor, up: Tensor, *, kind: str) -> Tensor:
    """How far L0 `down` [rank, width] (and L1 `up` [width, rank]) are from orthonormal.

    mean (released): mean square of L0 L0^T - I; norm (paper): |L0 L0^T - I| + |L1^T L1 - I|.
    """
    eye = torch.eye(down.shape[0], device=down.device, dtype=down.dtype)
    rows = down @ down.T - eye  # [rank, rank]
    if kind == "mean":
        return rows.square().mean()
    norms: Tensor = rows.norm() + (up.T @ up - eye).norm()
    return norms


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 for none (the released code's first loss is NaN)."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
