"""Gradients within a forward pass, on PyTorch."""

from collections.abc import Callable

import torch


def gradients(
    function: Callable[[list[torch.Tensor]], torch.Tensor],
    tensors: list[torch.Tensor],
) -> list[torch.Tensor]:
    """Returns the derivatives of a scalar function; zero where it does not depend.

    Where gradients are recorded, what is returned can be differentiated again.

    Args:
        function: A function of the list of tensors.
        tensors: Where to take them.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        if not recording:
            tensors = [t.detach() for t in tensors]
        tensors = [t if t.requires_grad else t.requires_grad_() for t in tensors]
        found = torch.autograd.grad(
            function(tensors), tensors, create_graph=recording, allow_unused=True
        )
    return [
        torch.zeros_like(t) if gradient is None else gradient
        for t, gradient in zip(tensors, found, strict=True)
    ]
