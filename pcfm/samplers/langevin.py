r"""Projected diffusion: a stochastic step, then the state itself projected, level by level.

With $x_t = \alpha_t x_1 + \sigma_t x_0$, the field $y = x_t/\alpha_t = x_1 + (\sigma_t/\alpha_t)\,x_0$ is a datum under noise of scale
$\varsigma_t = \sigma_t/\alpha_t$, as diffusion models of exploding variance have it; it is what is projected. The score of its
distribution is known from the noise that state and velocity imply, $\hat x_0 = \mathrm{E}[x_0|x_t] = \mathrm{origin}(x_t, v)$,

$$\nabla\log p(y) = -\Sigma^{-1}\hat x_0/\varsigma_t$$

for a Gaussian source of covariance $\Sigma$. Every process below is preconditioned with $\Sigma$ and takes its noise from the source, so
that $\Sigma$ never appears: in terms of x,

* `langevin`, $M$ times at each level, with a step of $r\varsigma_t^2$:
  $x \leftarrow x - r\sigma_t\hat x_0 + \sqrt{2r}\,\sigma_t\epsilon$;
* `sde`, from one level to the next: $dx = (v - \eta\hat x_0)\,dt + \sqrt{2\eta\sigma_t}\,dW$, which has the flow's own marginals for any
  $\eta \ge 0$;
* `ode`: a step of the flow's solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from constraints import Constraint
from pcfm.path import AffinePath, expect_affine
from pcfm.samplers.sampler import Projector, Sample, Sampler
from pcfm.velocity import Velocity

PROCESSES = ("langevin", "sde", "ode")
"""Annealed Langevin dynamics, a stochastic differential equation with the flow's marginals, the flow itself."""


@dataclass(frozen=True)
class ProjectedDiffusion(Sampler):
    """Annealed Langevin dynamics at each noise level, the state projected after every step.

    Attributes:
        base: the solver of `process=ode`.
        velocity: the flow's velocity.
        path: its path.
        constraint: the law, on normalised fields.
        noise: fresh draws from the source.
        projector: counts the projections.
        process: one of `PROCESSES`.
        inner: Langevin steps at each level, each of one network call and one projection.
        rate: r, their step as a fraction of the squared noise scale.
        churn: eta, of `process=sde`.
        scaled: whether $x_t/\\alpha_t$ is projected, the variable of the published method; else the state $x_t$ as it is.

    Raises:
        ValueError: an option out of its range, or a path that is not affine.

    Source:
        Christopher et al., Constrained synthesis with projected diffusion models, NeurIPS 2024, arXiv:2402.03559, algorithm 1, with steps
        in proportion to the squared noise scale as there. Deviations: levels are those of the given times, not a geometric series; the
        step to t = 1 is the endpoint of the flow, projected, in place of the last noisy state. The processes `sde` and `ode` are not
        theirs.
    """

    lawful: ClassVar[bool] = True
    reference: ClassVar[str] = "Christopher et al., NeurIPS 2024, arXiv:2402.03559"

    base: Sampler
    velocity: Velocity
    path: AffinePath
    constraint: Constraint
    noise: Callable[[], Tensor]
    projector: Projector = field(default_factory=Projector)
    process: str = "langevin"
    inner: int = 5
    rate: float = 0.3
    churn: float = 1.0
    scaled: bool = True

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise ValueError(f"PDM expects a process among {', '.join(PROCESSES)}; got '{self.process}'.")
        if self.inner < 1 or not 0 < self.rate < 2 or not self.churn >= 0:
            raise ValueError(
                "PDM expects inner of at least 1, a rate in (0, 2) and a churn that is not negative; "
                f"got inner={self.inner}, rate={self.rate}, churn={self.churn}."
            )
        expect_affine(self.path, "PDM")

    def scores(self) -> bool:
        return self.process != "ode"

    def idle(self) -> dict[str, str]:
        idle = {} if self.process == "ode" else {"solver": f"process={self.process} has steps of its own"}
        if self.process != "langevin":
            idle |= dict.fromkeys(("inner", "rate"), f"process={self.process}")
        if self.process != "sde":
            idle["churn"] = f"process={self.process}"
        return idle

    def step(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Tensor:
        if self.process == "ode":
            return self._project(self.base.step(x, t, s, x0), s)
        if self.process == "sde":
            return self._project(self._diffused(x, t, s), s)
        before, now = self.path.schedule(t), self.path.schedule(s)
        x = now.noise * x0 if not before.signal else now.signal / before.signal * x
        for _ in range(self.inner):
            implied = self.path.origin(x, self.velocity(x, s), s)
            x = x - self.rate * now.noise * implied + (2 * self.rate) ** 0.5 * now.noise * self.noise()
            x = self._project(x, s)
        return x

    def last(self, x: Tensor, t: Tensor, s: Tensor, x0: Tensor) -> Sample:
        """The nearest lawful field to where the flow is heading, without noise."""
        if self.process == "ode":
            return self.projector.sample(self.constraint, self.base.step(x, t, s, x0))
        return self.projector.sample(self.constraint, self.path.endpoint(x, self.velocity(x, t), t))

    def _diffused(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """A step of Euler and Maruyama."""
        velocity, h = self.velocity(x, t), s - t
        drift = velocity - self.churn * self.path.origin(x, velocity, t)
        return x + h * drift + (2 * self.churn * self.path.schedule(t).noise * h).sqrt() * self.noise()

    def _project(self, x: Tensor, s: Tensor) -> Tensor:
        """The nearest state that is lawful but for its noise."""
        signal = self.path.schedule(s).signal if self.scaled else 1.0
        return signal * self.projector(self.constraint, x / signal).u
