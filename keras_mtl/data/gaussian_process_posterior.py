"""What is known of a function drawn from a Gaussian process, of points of it."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class GaussianProcessPosterior:
    """The best prediction there is: a mixture of normal distributions for each query.

    $$ p(y^* \\mid D) = \\sum_k w_k\\, N(y^*; m_k, v_k), \\qquad
       w_k \\propto p(D \\mid \\theta_k) $$

    with the kernel's parameters $\\theta_k$ on a grid. It is what
    `GaussianProcesses.posterior` returns, for B tasks, Q queries and K points of the
    grid.

    Attributes:
        log_weights: Logarithms of w `(B, K)`.
        means: m `(B, K, Q)`.
        variances: v, with noise `(B, K, Q)`.
    """

    log_weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def log_likelihood(self, query_y: Any) -> np.ndarray:
        """Returns the log-density of labels `(B, Q)` or `(B, Q, 1)`, as `(B, Q)`."""
        y = np.reshape(query_y, (len(self.means), 1, -1))
        densities = -0.5 * (
            np.log(2 * np.pi * self.variances) + (y - self.means) ** 2 / self.variances
        )
        return logsumexp(self.log_weights[..., None] + densities, axis=1)

    def mean(self) -> np.ndarray:
        """Returns the mean of each query `(B, Q)`."""
        return np.sum(np.exp(self.log_weights)[..., None] * self.means, axis=1)

    def scale(self) -> np.ndarray:
        """Returns the standard deviation of each query `(B, Q)`."""
        weights = np.exp(self.log_weights)[..., None]
        around = (self.means - self.mean()[:, None]) ** 2
        return np.sqrt(np.sum(weights * (self.variances + around), axis=1))


def integrate(
    tasks: Any,
    support: tuple[np.ndarray, np.ndarray, np.ndarray],
    query_x: np.ndarray,
    grid: int,
) -> GaussianProcessPosterior:
    """Returns the posterior with the kernel's parameters integrated out.

    Each parameter has the midpoints of `grid` intervals of its range. The scale costs
    next to nothing: of one decomposition of the kernel at scale 1 follow those of all.

    Args:
        tasks: `GaussianProcesses`.
        support: Points `(B, S, d)`, labels `(B, S)` and whether each is there `(B, S)`.
        query_x: Points `(B, Q, d)`.
        grid: Points of the grid for each parameter.
    """
    x, y, there = support
    scales = _midpoints(tasks.scale, grid)
    noise = np.maximum(tasks.noise, 1e-5 * scales)[:, None] ** 2  # K_s, 1
    power = scales[:, None] ** 2
    # A point that is not there has no covariance with others, and a label of 0.
    both = there[:, :, None] & there[:, None, :]
    x, y = np.where(there[..., None], x, 0.0), np.where(there, y, 0.0)
    periods = _midpoints(tasks.period, grid) if tasks.kernel == "periodic" else [1.0]
    # Of points that are not there the determinant has the noise alone.
    lacking = np.sum(~there, axis=1)[:, None] * np.log(noise[:, 0])  # B, K_s
    evidences, means, variances = [], [], []
    for length, period in itertools.product(_midpoints(tasks.length, grid), periods):
        unit = {"scale": 1.0, "length": length, "period": period}
        values, vectors = np.linalg.eigh(both * tasks.covariance(x, x, unit))
        values = np.maximum(values, 0.0)[:, None]  # B, 1, S
        total = power * values + noise  # B, K_s, S
        turned = np.einsum("bsi,bs->bi", vectors, y)[:, None]
        fit = np.sum(np.log(total) + turned**2 / total, axis=-1)
        evidences.append(-0.5 * (fit - lacking))
        across = tasks.covariance(query_x, x, unit) * there[:, None]
        across = across @ vectors  # B, Q, S
        means.append(power * np.einsum("bqi,bki->bkq", across, turned / total))
        explained = np.einsum("bqi,bki->bkq", across**2, 1 / total)
        variances.append(np.maximum(power - power**2 * explained, 0.0) + noise)
    evidence = np.concatenate(evidences, axis=1)
    return GaussianProcessPosterior(
        evidence - logsumexp(evidence, axis=1, keepdims=True),
        np.concatenate(means, axis=1),
        np.concatenate(variances, axis=1),
    )


def _midpoints(interval: tuple[float, float], count: int) -> np.ndarray:
    low, high = interval
    if low == high:
        return np.array([low])
    return low + (high - low) * (np.arange(count) + 0.5) / count
