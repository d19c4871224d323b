"""Times a step of sharing architectures against hand-written Keras, side by side.

    python benchmarks/sharing.py
    python benchmarks/sharing.py --backend jax --case mmoe

Every backend runs in a process of its own, all rows of a case take turns, and printed
are medians over rounds: ms a step of `fit`, and the ratio to the first row of the same
round. All models are plain `keras.Model`, with the mean squared error and Adam.

- `mmoe`: 8 experts of 128 units, 2 tasks, 64 features, batches of 512. By hand: a loop
  over `Dense` experts and gates, as one writes it; and "stacked", all experts as one
  `Dense` of 8 x 128 units and an einsum, the best form that we know.
- `many`: the same with 32 experts and 16 tasks. Goal: three times as fast as the loop
  on TensorFlow without XLA.
- `tasks`: a `MultiTaskModel` of 8 experts for 2 and for 32 tasks, with linear heads in
  one `MultiHead`, within `MixtureOfExperts` or after it. Goal: 1.6 times at most.
- `ple`: two levels, two experts of 128 units for each of two tasks, and two shared.
- `cross_stitch`: four tasks, three layers of 128 units, stitched after each.

With `--peers` the Python of another environment that has PyTorch, LibMTL and DeepCTR,
the `mmoe` case also runs there:

    python -m venv peers
    peers/bin/pip install torch scikit-learn tqdm requests
    peers/bin/pip install --no-deps LibMTL deepctr-torch

(A CPU build of PyTorch is enough. `deepctr-torch` is DeepCTR's own port to PyTorch; its
TensorFlow package wants a TensorFlow that Python 3.11 has no wheels of.)
"""

import argparse
import functools
import json
import os
import pathlib

import side_by_side

CASES = ("mmoe", "many", "tasks", "ple", "cross_stitch")
FEATURES, BATCH = 64, 512


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=30, help="steps of a round")
    parser.add_argument("--jit", choices=["both", "on", "off"], default="both")
    parser.add_argument("--peers", help="Python of an environment with the peers")
    parser.add_argument(
        "--json",
        help="file to append the figures to; those that it has are not measured again",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side_by_side.print_result(measure(json.loads(arguments.worker)))
        return
    settings = side_by_side.settings(arguments.backend, arguments.jit)
    for case in arguments.case:
        job = {"case": case, "rounds": arguments.rounds, "steps": arguments.steps}
        cells = {}
        for setting in settings:
            backend, jit = setting
            column = backend + (" XLA" if jit and backend == "tensorflow" else "")
            rows = side_by_side.run_backend(__file__, setting, job, arguments.json)
            for name, (ms, ratio) in rows.items():
                cells.setdefault(name, {})[column] = side_by_side.cell(ms, ratio)
        if case == "mmoe" and arguments.peers:
            script = pathlib.Path(__file__).with_name("sharing_peers.py")
            command = [arguments.peers, str(script), json.dumps(job)]
            job = {"backend": "peers", **job}
            rows = side_by_side.run_worker(
                command, dict(os.environ), job, arguments.json
            )
            for name, (ms, ratio) in rows.items():
                cells.setdefault(name, {})["peers"] = side_by_side.cell(ms, ratio)
        side_by_side.print_table(f"{case}: ms a step (ratio to the first row)", cells)


def measure(job):
    """Returns by row the medians of ms a step and of the ratio to the first row."""
    import numpy as np
    import workloads

    models = CASE_MODELS[job["case"]](job["jit"])
    generator = np.random.default_rng(0)
    rows = BATCH * job["steps"]
    x = generator.normal(size=(rows, FEATURES)).astype("float32")
    turns = {}
    for name, model in models.items():
        y = {
            task: generator.normal(size=(rows, 1)).astype("float32")
            for task in model.output
        }
        turns[name] = functools.partial(workloads.seconds_a_step, model, x, y, BATCH)
    times = side_by_side.in_turns(turns, job["rounds"])
    return side_by_side.medians(times, next(iter(models)))


def task_names(count):
    return [f"task_{index}" for index in range(count)]


def compiled(body, tasks, jit):
    """Returns a model of a body, which makes a dict of features, and linear heads."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((FEATURES,))
    features = body(inputs, tasks)
    outputs = {t: keras.layers.Dense(1)(h) for t, h in features.items()}
    model = keras.Model(inputs, outputs)
    model.compile("adam", dict.fromkeys(tasks, "mse"), jit_compile=jit)
    return model


def mmoe_loop(experts, units):
    """As one writes it: a loop over experts, and one over gates."""

    def body(x, tasks):
        import keras
        from keras import ops

        outputs = [keras.layers.Dense(units, "relu")(x) for _ in range(experts)]
        stacked = ops.stack(outputs, axis=1)
        features = {}
        for task in tasks:
            gate = keras.layers.Dense(experts, "softmax", use_bias=False)(x)
            features[task] = ops.sum(ops.expand_dims(gate, -1) * stacked, axis=1)
        return features

    return body


def mmoe_stacked(experts, units):
    """All experts in one layer, all gates in another, and one contraction."""

    def body(x, tasks):
        import keras
        from keras import ops

        wide = keras.layers.Dense(experts * units, "relu")(x)
        stacked = ops.reshape(wide, (-1, experts, units))
        logits = keras.layers.Dense(len(tasks) * experts, use_bias=False)(x)
        gates = ops.softmax(ops.reshape(logits, (-1, len(tasks), experts)))
        mixed = ops.einsum("bte,beu->btu", gates, stacked)
        return {task: mixed[:, index] for index, task in enumerate(tasks)}

    return body


def mmoe_layer(experts, units):
    def body(x, tasks):
        from keras_mtl import layers

        return layers.MixtureOfExperts(experts, tasks, units)(x)

    return body


def mmoe(jit):
    tasks = task_names(2)
    return {
        "loop over Dense": compiled(mmoe_loop(8, 128), tasks, jit),
        "stacked by hand": compiled(mmoe_stacked(8, 128), tasks, jit),
        "MixtureOfExperts": compiled(mmoe_layer(8, 128), tasks, jit),
    }


def many(jit):
    tasks = task_names(16)
    return {
        "loop over Dense": compiled(mmoe_loop(32, 128), tasks, jit),
        "stacked by hand": compiled(mmoe_stacked(32, 128), tasks, jit),
        "MixtureOfExperts": compiled(mmoe_layer(32, 128), tasks, jit),
    }


def few_and_many_tasks(jit):
    """With linear heads in the layer itself, and stacked after it."""
    import keras

    import keras_mtl
    from keras_mtl import layers, models

    def make(count, inside):
        keras.utils.set_random_seed(0)
        inputs, tasks = keras.Input((FEATURES,)), task_names(count)
        heads = layers.MultiHead(1, tasks)
        if inside:
            model = models.mixture_of_experts(inputs, heads, experts=8, units=128)
        else:
            mixtures = layers.MixtureOfExperts(8, tasks, units=128)(inputs)
            model = keras_mtl.MultiTaskModel(inputs, heads(mixtures))
        model.compile("adam", "mse", jit_compile=jit)
        return model

    return {
        f"T = {count}, {where}": make(count, where == "heads inside")
        for where in ("heads inside", "heads after")
        for count in (2, 32)
    }


def ple_by_hand(levels, experts, units):
    """Experts and gates of every stream in loops, as the formula has them."""

    def body(x, tasks):
        import keras
        from keras import ops

        def mix(gate_input, outputs):
            gate = keras.layers.Dense(len(outputs), "softmax", use_bias=False)
            stacked = ops.stack(outputs, axis=1)
            return ops.sum(ops.expand_dims(gate(gate_input), -1) * stacked, axis=1)

        streams = {name: x for name in (*tasks, "shared")}
        for level in range(levels):
            outputs = {
                name: [keras.layers.Dense(units, "relu")(h) for _ in range(experts)]
                for name, h in streams.items()
            }
            mixed = {
                task: mix(streams[task], outputs[task] + outputs["shared"])
                for task in tasks
            }
            if level < levels - 1:
                everything = [y for ys in outputs.values() for y in ys]
                mixed["shared"] = mix(streams["shared"], everything)
            streams = mixed
        return streams

    return body


def ple(jit):
    tasks = task_names(2)

    def layer(x, tasks):
        from keras_mtl import layers

        return layers.ProgressiveLayeredExtraction(tasks, [128, 128], 2, 2)(x)

    return {
        "loops over Dense": compiled(ple_by_hand(2, 2, 128), tasks, jit),
        "ProgressiveLayeredExtraction": compiled(layer, tasks, jit),
    }


def cross_stitch_by_hand(depth, units):
    """Layers of each task, and a layer with a matrix of the weights between."""
    import keras
    from keras import ops

    class Stitch(keras.layers.Layer):
        def build(self, shapes):
            count = len(shapes)
            identity = 0.9 * keras.ops.eye(count)
            self.matrix = self.add_weight(
                shape=(count, count),
                initializer=lambda *_, **__: (
                    identity + 0.1 / (count - 1) * (1 - keras.ops.eye(count))
                ),
            )

        def call(self, xs):
            stacked = ops.stack(xs, axis=0)
            mixed = ops.einsum("ts,sbn->tbn", self.matrix, stacked)
            return ops.unstack(mixed, len(xs), axis=0)

        def compute_output_shape(self, shapes):
            return shapes

    def body(x, tasks):
        hs = [x for _ in tasks]
        for _ in range(depth):
            hs = Stitch()([keras.layers.Dense(units, "relu")(h) for h in hs])
        return dict(zip(tasks, hs, strict=True))

    return body


def cross_stitch_layer(depth, units):
    def body(x, tasks):
        import keras

        from keras_mtl import layers

        hs = dict.fromkeys(tasks, x)
        for _ in range(depth):
            hs = {t: keras.layers.Dense(units, "relu")(h) for t, h in hs.items()}
            hs = layers.CrossStitch()(hs)
        return hs

    return body


def cross_stitch(jit):
    tasks = task_names(4)
    return {
        "stitched by hand": compiled(cross_stitch_by_hand(3, 128), tasks, jit),
        "CrossStitch": compiled(cross_stitch_layer(3, 128), tasks, jit),
    }


CASE_MODELS = {
    "mmoe": mmoe,
    "many": many,
    "tasks": few_and_many_tasks,
    "ple": ple,
    "cross_stitch": cross_stitch,
}


if __name__ == "__main__":
    main()
