"""Normalisation with the moments of a batch, as one operation of PyTorch."""

from typing import Any

import torch


def batch_normalization(
    x: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """Returns normalised images, and mean and variance of each channel.

    Args:
        x: Images `(n, H, W, C)`, float32.
        gamma: Factor of each channel `(C,)`.
        beta: Shift of each channel `(C,)`.
        epsilon: Number that is added to the variance.
    """
    # With a momentum of 1 running averages are the moments themselves.
    mean, variance = torch.zeros_like(beta), torch.zeros_like(beta)
    # A view with channels first of the same memory, which it takes as it is.
    normalised, *_ = torch.native_batch_norm(
        x.permute(0, 3, 1, 2), gamma, beta, mean, variance, True, 1.0, epsilon
    )
    # What it writes is divided by one less than the count, which may be 0.
    count = x.numel() // max(x.shape[-1], 1)
    variance = variance * ((count - 1) / count) if count > 1 else mean * 0
    return normalised.permute(0, 2, 3, 1), mean, variance
