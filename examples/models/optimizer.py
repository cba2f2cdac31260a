"""Muon for the matrices inside the transformer layers, AdamW for everything else.

That needs far fewer steps than AdamW alone, and steps are what two CPU cores are short of.
`torch.optim.Muon` orthogonalises in bfloat16, which is slow on a CPU without bfloat16 units; the
batched float32 version below is not.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

WARM_UP = 0.04
MOMENTUM = 0.95
WEIGHT_DECAY = 0.03
# Newton-Schulz coefficients of Jordan et al., "Muon" (2024): they bring every singular value near
# one in five rounds.
A, B, C = 3.4445, -4.775, 2.0315


def learning_rate(peak: float, progress: float) -> float:
    """Warm up, then follow a cosine down to a hundredth. `progress` runs from 0 to 1."""
    if progress < WARM_UP:
        return peak * max(progress / WARM_UP, 0.01)
    cosine = math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
    return peak * max((1 + cosine) / 2, 0.01)


class MuonAndAdamW:
    """One optimizer over several modules; the rate is an argument of each step."""

    def __init__(self, *modules: nn.Module) -> None:
        named = [item for module in modules for item in module.named_parameters()]
        matrices = [p for name, p in named if _is_layer_matrix(name, p)]
        self._rest = [p for name, p in named if not _is_layer_matrix(name, p)]
        self._adamw = torch.optim.AdamW(self._rest, betas=(0.9, 0.98), weight_decay=0.0)
        self._by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            self._by_shape[matrix.shape].append(matrix)
        self._momentum: dict[torch.Size, Tensor] = {}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Clip the gradients to norm one, update every parameter, and drop the gradients."""
        matrices = [p for group in self._by_shape.values() for p in group]
        nn.utils.clip_grad_norm_([*self._rest, *matrices], 1.0)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        for shape, parameters in self._by_shape.items():
            self._step_matrices(shape, parameters, rate)
        for parameter in [*self._rest, *matrices]:
            parameter.grad = None

    def _step_matrices(
        self, shape: torch.Size, parameters: list[nn.Parameter], rate: float
    ) -> None:
        gradients = torch.stack([p.grad for p in parameters if p.grad is not None])
        momentum = self._momentum.setdefault(shape, torch.zeros_like(gradients))
        momentum.lerp_(gradients, 1 - MOMENTUM)
        updates = _orthogonalise(gradients.lerp(momentum, MOMENTUM))
        # This factor gives an update the size of AdamW's, so that one rate serves both.
        scale = 0.2 * math.sqrt(max(shape))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - rate * WEIGHT_DECAY).add_(update, alpha=-rate * scale)


def _is_layer_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and ".layer" in name and "norm" not in name.lower()


def _orthogonalise(matrices: Tensor) -> Tensor:
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result
