"""Muon: momentum whose every update is a matrix with all singular values near 1.

Jordan et al. 2024, kellerjordan.github.io/posts/muon. A gradient matrix has a few large singular values and many small
ones, and so have the steps that momentum makes of it: most directions hardly move. Muon replaces the momentum
M = U S V^T by U V^T, found without a decomposition by a Newton-Schulz iteration, matrix products only. It is for the
matrices between hidden layers; biases, norms, depthwise filters, the stem and the classifier stay with AdamW.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the post's: steepest at 0, and near enough to 1 everywhere else


class Muon(torch.optim.Optimizer):
    """Move each matrix along its orthogonalised momentum (Nesterov's form).

    A kernel (C_out, C_in, k, k) is the matrix (C_out, C_in k k). A step is as long for a tall matrix as for a wide one.

    Args:
        lr: length of a step, in the root mean square of an update's singular values.
        momentum: share of the momentum that a step keeps.
        weight_decay: share of the weight, times lr, that each step takes away.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for alike in by_shape.values():  # matrices of one shape are one batch
                updates = orthogonalize(torch.stack([self._update(p, group["momentum"]) for p in alike]))
                taller = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
                for p, update in zip(alike, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.view_as(p), alpha=-group["lr"] * taller)

    def _update(self, p: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, looked at from where the momentum leads. Shape: (C_out, everything else)."""
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        average = state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(average, momentum).flatten(1)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values of each matrix to about 1 (0.7 to 1.2). Shape: (B, rows, columns) -> the same.

    bfloat16 is exact enough, since "about" is: under autocast the products run in it, as the post has them.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a x + (b G + c G^2) x
    return x.mT if tall else x
