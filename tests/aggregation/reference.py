"""Solvers in float64 that share nothing with the package, and Jacobians to try."""

import itertools

import numpy as np
from scipy.optimize import minimize


def jacobian_of(num_tasks, size=None, seed=0, spread=0.0, common=0.0):
    """Random gradients: norms of a log-normal spread, with a common component."""
    generator = np.random.default_rng(seed)
    size = size or 3 * num_tasks
    rows = generator.normal(size=(num_tasks, size))
    rows += common * generator.normal(size=size)
    scales = np.exp(spread * generator.normal(size=(num_tasks, 1)))
    return rows * scales


def stationary_jacobian(num_tasks, seed=0):
    """Gradients of which a mean with positive weights is 0."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(num_tasks, 2 * num_tasks))
    weights = generator.uniform(0.05, 1.0, size=num_tasks)
    weights /= weights.sum()
    return rows - weights @ rows


def shortest_mean(gramian):
    """Weights on the simplex with the shortest mean, over all sets of tasks."""
    size = len(gramian)
    best, best_weights = np.inf, None
    for count in range(1, size + 1):
        for subset in map(list, itertools.combinations(range(size), count)):
            part = gramian[np.ix_(subset, subset)]
            system = np.block([[part, np.ones((count, 1))], [np.ones(count), 0.0]])
            side = np.append(np.zeros(count), 1.0)
            weights = np.linalg.lstsq(system, side, rcond=None)[0][:-1]
            if (weights < -1e-12).any() or abs(weights.sum() - 1) > 1e-9:
                continue
            value = weights @ part @ weights
            if value < best - 1e-15:
                best, best_weights = value, np.zeros(size)
                best_weights[subset] = weights
    return best_weights


def least_form_above(gramian, bounds):
    """Minimises v G v over v >= bounds, over all sets of tasks at their bound."""
    size = len(gramian)
    best, best_weights = np.inf, None
    for count in range(size + 1):
        for free in map(list, itertools.combinations(range(size), count)):
            weights = np.array(bounds, "float64")
            fixed = [k for k in range(size) if k not in free]
            if free:
                side = -gramian[np.ix_(free, fixed)] @ weights[fixed]
                weights[free] = np.linalg.lstsq(
                    gramian[np.ix_(free, free)], side, rcond=None
                )[0]
            if (weights < np.array(bounds) - 1e-12).any():
                continue
            value = weights @ gramian @ weights
            if value < best - 1e-14:
                best, best_weights = value, weights
    return best_weights


def fair_weights(gramian, alpha):
    """Solves G w = w ** (-1 / alpha) as the minimum of a convex function."""
    power = 1 / alpha
    weights = np.diagonal(gramian) ** (-alpha / (alpha + 1))

    def value(weights):
        if (weights <= 0).any():
            return np.inf
        utility = np.log(weights)
        if alpha != 1:
            utility = weights ** (1 - power) / (1 - power)
        return weights @ gramian @ weights / 2 - utility.sum()

    for _ in range(500):
        slope = gramian @ weights - weights**-power
        curvature = gramian + np.diag(power * weights ** (-power - 1))
        step = -np.linalg.solve(curvature, slope)
        length = 1.0
        while length > 1e-12 and value(weights + length * step) > value(weights):
            length /= 2
        weights = weights + length * step
        if -slope @ step < 1e-24:
            break
    return weights


def conflict_averse_weights(gramian, c):
    """Weights of CAGrad before it is rescaled, by sequential programming."""
    size = len(gramian)
    mean = np.ones(size) / size
    by_mean = gramian @ mean
    length = np.sqrt(mean @ by_mean)

    def value(weights):
        form = np.sqrt(weights @ gramian @ weights + 1e-18)
        return weights @ by_mean + c * length * form

    found = [
        minimize(
            value,
            start,
            method="SLSQP",
            bounds=[(0, 1)] * size,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 2000},
        )
        for start in [mean, *(0.1 * mean + 0.9 * np.eye(size))]
    ]
    weights = min(found, key=lambda result: result.fun).x
    return mean + c * length / np.sqrt(weights @ gramian @ weights) * weights
