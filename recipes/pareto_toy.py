"""The two-task toy of the CAGrad and Nash-MTL papers, descended by every aggregator.

    python recipes/pareto_toy.py

Two parameters, two losses with a deep valley each, five starts, Adam: printed is which
starts come to the Pareto set, drawn are the trajectories, a panel a method. --scale is
the factor s on the first loss. The whole descent is one compiled loop in a Keras model
that is "predicted": seconds a method on TensorFlow and JAX. PyTorch goes through the
loop in Python; give it few --steps.

A start has arrived if its gap is less than 0.01. The gap is by how much both losses
could still fall together, with s = 1 whatever --scale is,

    gap(x) = max over p in the Pareto set of min over k of L_k(x) - L_k(p)

which is 0 on the Pareto set and greater than 0 off it, by the definition of that set.
The losses vary by some 20 along it. A distance in x would say less: x2 hardly matters
to the losses near the set, a gap of 0.01 is about 1 in x2. A test for stationarity
would say something false: on the floor of a valley of the upper half one gradient is
next to 0, and both losses could fall by 13 or more.

The start (0, 0) of the papers sits on the kink of both max(., 0), where backends differ
in the gradient that they give. It is moved to (0, -0.001).
"""

import argparse
import time

import keras
import numpy as np
from keras import ops
from rich.progress import track

from keras_mtl import aggregation
from keras_mtl.metrics import ResultsTable

STARTS = ((-8.5, 7.5), (0.0, -1e-3), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
ARRIVED = 0.01
LEAST_LOSS = -20.0
# The losses differ by the signs of 7 and of tanh(x2) alone.
SIGNS = (1.0, -1.0)


def losses_and_gradients(x):
    """The losses `(..., 2)` at `x` `(..., 2)`, and the Jacobian `(..., 2, 2)`.

    The derivatives are written out: Keras has no call for them that is the same on
    every backend.
    """
    x = ops.convert_to_tensor(x)
    x1, x2 = x[..., :1], x[..., 1:]
    signs = ops.convert_to_tensor(SIGNS, x.dtype)
    u = signs * ops.tanh(x2) - 0.5 * (x1 + 7.0 * signs)
    valley = ops.log(ops.maximum(ops.abs(u), 5e-6)) + 6.0
    by_u = ops.where(ops.abs(u) > 5e-6, 1.0 / u, 0.0)
    bowl = (ops.square(x1 - 7.0 * signs) + 0.1 * ops.square(x2 + 8.0)) / 10.0 - 20.0
    gate = ops.tanh(0.5 * x2)
    slope = 0.5 * (1.0 - ops.square(gate))
    above, below = ops.maximum(gate, 0.0), ops.maximum(-gate, 0.0)

    by_x1 = -0.5 * by_u * above + (x1 - 7.0 * signs) / 5.0 * below
    valley_by_x2 = by_u * signs * (1.0 - ops.square(ops.tanh(x2)))
    by_x2 = (
        valley_by_x2 * above
        + valley * ops.where(x2 > 0, slope, 0.0)
        + (x2 + 8.0) / 50.0 * below
        - bowl * ops.where(x2 < 0, slope, 0.0)
    )
    return valley * above + bowl * below, ops.stack([by_x1, by_x2], axis=-1)


class Descent(keras.Model):
    """Maps a start `(1, 2)` to its trajectory `(1, steps, 2)` under Adam.

    The aggregator's state is carried through the loop: every start has a fresh one.
    """

    def __init__(self, aggregator, options):
        super().__init__()
        self.aggregator = aggregator
        self.aggregator.build_parts(2, [(2,)])
        self.scales = (options.scale, 1.0)
        self.steps = options.steps
        self.learning_rate = options.learning_rate

    def call(self, start):
        scales = ops.convert_to_tensor(self.scales, "float32")

        def step(index, carry):
            path, x, mean, square, state = carry
            losses, jacobian = losses_and_gradients(x)
            # Above zero, since DB-MTL takes their logarithms.
            losses = scales * (losses - LEAST_LOSS)
            jacobian = scales[:, None] * jacobian
            update, state = self.aggregator.stateless_call([], state, jacobian, losses)
            # Adam: the optimisers of Keras cannot step inside a loop.
            count = ops.cast(index + 1, "float32")
            mean = 0.9 * mean + 0.1 * update
            square = 0.999 * square + 0.001 * ops.square(update)
            move = mean / (1.0 - 0.9**count)
            move = move / (ops.sqrt(square / (1.0 - 0.999**count)) + 1e-8)
            x = x - self.learning_rate * move
            path = ops.slice_update(path, (index, 0), x[None])
            return path, x, mean, square, state

        state = [ops.convert_to_tensor(v) for v in self.aggregator.variables]
        zero = ops.zeros((2,))
        carry = (ops.zeros((self.steps, 2)), start[0], zero, zero, state)
        return ops.fori_loop(0, self.steps, step, carry)[0][None]


def descend(method, options):
    """Returns the trajectories `(starts, steps + 1, 2)` of a method."""
    keras.utils.set_random_seed(options.seed)
    model = Descent(aggregation.get(method), options)
    model.compile(jit_compile=keras.backend.backend() != "torch")
    starts = np.array(STARTS, "float32")[:, None]
    paths = [model.predict_on_batch(start) for start in starts]
    return np.concatenate([starts, np.concatenate(paths)], axis=1)


def pareto_set():
    """Points `(n, 2)` of the Pareto set, which is a curve of the lower half.

    Its points minimise w L1 + (1 - w) L2. There that is below(x2) times a sum of a
    function of x1, least at x1 = 14 w - 7 whatever x2 is, and one of x2: what is left
    is to find x2 on a grid.
    """
    x1 = np.linspace(-7.0, 7.0, 7001)
    x2 = np.linspace(-9.0, -8.0, 1001)
    bowl = ((49.0 - x1[:, None] ** 2) + 0.1 * (x2 + 8.0) ** 2) / 10.0 - 20.0
    best = np.argmin(bowl * np.tanh(-0.5 * x2), axis=1)
    return np.stack([x1, x2[best]], axis=1).astype("float32")


def losses_at(points):
    return ops.convert_to_numpy(losses_and_gradients(points)[0])


def gaps(points):
    """By how much both losses could fall together at each of `points` `(n, 2)`."""
    reach = losses_at(points)[:, None] - losses_at(pareto_set())[None]
    return np.maximum(reach.min(axis=-1).max(axis=1), 0.0)


def draw(trajectories, options):
    """Draws a panel for each method, over contours of the sum of the losses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["contour.negative_linestyle"] = "solid"
    columns = min(5, len(trajectories))
    rows = -(-len(trajectories) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.5 * columns + 0.4, 2.6 * rows + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    side = np.linspace(-10.5, 10.5, 211, dtype="float32")
    grid = np.stack(np.meshgrid(side, side), axis=-1)
    summed = losses_at(grid) @ np.array([options.scale, 1.0])
    curve = pareto_set()
    for axis in axes.flat[len(trajectories) :]:
        axis.axis("off")
    for axis, (method, paths) in zip(axes.flat, trajectories.items(), strict=False):
        axis.contour(side, side, summed, 14, colors="0.85", linewidths=0.6)
        axis.plot(*curve.T, color="0.6", lw=5, solid_capstyle="round")
        for path, colour, gap in zip(paths, COLOURS, gaps(paths[:, -1]), strict=True):
            thinned = path[:: max(1, len(path) // 1000)]
            axis.plot(*thinned.T, color=colour, lw=1.1)
            axis.plot(*path[0], "o", color=colour, mfc="white", ms=5)
            axis.plot(
                *path[-1],
                "o" if gap < ARRIVED else "X",
                color=colour,
                mec="black",
                mew=0.7,
                ms=6 if gap < ARRIVED else 7,
                zorder=3,
            )
        axis.set_title(method, fontsize=10)
        axis.set(xlim=(-10.5, 10.5), ylim=(-10.5, 10.5), aspect="equal")
        axis.tick_params(labelsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("x2", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("x1", fontsize=8)
    looks = [
        *(
            (f"from ({x1:g}, {x2:g})", {"color": colour})
            for (x1, x2), colour in zip(STARTS, COLOURS, strict=True)
        ),
        ("start", {"ls": "", "marker": "o", "mfc": "white", "color": "0.4"}),
        ("end, arrived", {"ls": "", "marker": "o", "color": "0.4"}),
        ("end, not arrived", {"ls": "", "marker": "X", "color": "0.4"}),
        ("Pareto set", {"color": "0.6", "lw": 5}),
    ]
    figure.legend(
        handles=[plt.Line2D([], [], label=label, **look) for label, look in looks],
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
    )
    figure.suptitle(
        f"factor {options.scale:g} on the first loss, {options.steps} steps of Adam",
        fontsize=10,
    )
    figure.savefig(options.picture, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=35_000)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--methods", nargs="+", default=aggregation.names(), choices=aggregation.names()
    )
    parser.add_argument("--picture", default="pareto_toy.png")
    parser.add_argument("--markdown", help="file to write the table to")
    options = parser.parse_args()

    columns = [f"({x1:g}, {x2:g})" for x1, x2 in STARTS]
    table = ResultsTable(
        digits={**dict.fromkeys(columns, 2), "arrived": 0, "seconds": 1},
        title=f"gap to the Pareto set by start, s = {options.scale:g}, "
        f"{options.steps} steps, {keras.backend.backend()}",
    )
    trajectories = {}
    for method in track(options.methods, "descending", transient=True):
        start = time.perf_counter()
        trajectories[method] = descend(method, options)
        seconds = time.perf_counter() - start
        left = gaps(trajectories[method][:, -1])
        table.add(
            method,
            {
                "arrived": np.sum(left < ARRIVED),
                **dict(zip(columns, left, strict=True)),
                "seconds": seconds,
            },
        )
    table.print()
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table.to_markdown() + "\n")
    draw(trajectories, options)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
