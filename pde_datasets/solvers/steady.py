r"""Steady states as fixed points of a flow map $u = \Phi(u)$, by Anderson acceleration.

Marching in time converges as slowly as the slowest mode decays. From the last m + 1 maps the next state is the combination, with weights
that add up to one, whose change would have been the smallest,

$$u_{k+1} = \Phi(u_k) - \sum_i\gamma_i\,\Delta\Phi_i,\qquad \gamma = \arg\min\Big\lVert f_k - \sum_i\gamma_i\,\Delta f_i\Big\rVert,
\quad f = \Phi(u) - u,$$

which is GMRES where the map is linear. What linear laws the maps obey, their combinations obey.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_DEPENDENT = 1e-10
"""Changes that others combine to, up to this share, are left out of a combination."""


def fixed_point(
    phi: Callable[[Tensor], Tensor], u: Tensor, *, tolerance: float, memory: int = 20, limit: int = 200
) -> tuple[Tensor, Tensor]:
    r"""The fixed point of a map near a state, for each sample on its own.

    Arguments:
        phi: $\Phi$, (B, ...) to (B, ...), a contraction near the fixed point.
        u: where to start.
        tolerance: of the change $\max|\Phi(u) - u|$ as a share of $\max|u|$; a sample that is within it rests.
        memory: m.
        limit: evaluations of the map at most.

    Returns:
        $\Phi(u)$ of the last states, and their change, (B,): above the tolerance, the sample has not converged.

    Source:
        Anderson, J. ACM 12 (1965) 547; Walker & Ni, SIAM J. Numer. Anal. 49 (2011) 1715.
    """
    found, reached = u, u.new_full((len(u),), float("inf"))
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    for _ in range(limit):
        image = phi(u)
        images, residuals = [*images[-memory:], image.flatten(1)], [*residuals[-memory:], (image - u).flatten(1)]
        moving = reached > tolerance
        change = residuals[-1].abs().amax(1) / u.flatten(1).abs().amax(1).clamp_min(torch.finfo(u.dtype).tiny)
        found = torch.where(moving.reshape(-1, *(1,) * (u.ndim - 1)), image, found)
        reached = torch.where(moving, change, reached)
        if bool((reached <= tolerance).all()):
            break
        u = _combined(images, residuals).reshape(u.shape)
    return found, reached


def _combined(images: list[Tensor], residuals: list[Tensor]) -> Tensor:
    if len(images) == 1:
        return images[0]
    steps = torch.stack(residuals, dim=2).diff(dim=2)
    size = steps.norm(dim=1, keepdim=True).clamp_min(torch.finfo(steps.dtype).tiny)
    u, s, vh = torch.linalg.svd(steps / size, full_matrices=False)
    kept = s > _DEPENDENT * s[:, :1]
    inverse = torch.where(kept, 1 / torch.where(kept, s, 1.0), 0.0)
    weights = vh.mT @ (inverse[:, :, None] * (u.mT @ residuals[-1][:, :, None]))
    return images[-1] - (torch.stack(images, dim=2).diff(dim=2) / size @ weights)[:, :, 0]
