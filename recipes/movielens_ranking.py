"""Ranking films by several objectives: MMoE, PLE, and a tower for the position bias.

    python recipes/movielens_ranking.py --data-dir data

The case of a video recommender on MovieLens latest-small. Objectives are of engagement
(is the film watched?) and of satisfaction (how many stars, and are they four or more?),
the split is by time. What a user sees first is watched more often, whatever it is: here
positions are simulated, with a probability of (1 + p)^-eta that a user looks at
position p, in lists that show popular films first (keras_mtl.datasets.load_movielens).
The test is without that bias, so that it shows what the shallow tower is worth.

Compared, over seeds (of start, negatives and positions), on the test rows:

- a network for each objective alone;
- a shared bottom; MMoE; MMoE with a position tower beside the logit of "watched"; PLE.

The four have about the same number of parameters beside the embeddings; a single-task
network has those of a shared bottom with one head. All train for the same number of
epochs. A loss is a mean over the rows that have its label, which for "liked" and
"rating" is one row of ten: so that a row counts alike for every objective, they have a
tenth of the weight of "watched" (`--label-weight`).

Printed are AUC of "watched" and, of the films watched, AUC of "liked" and RMSE of the
rating; and NDCG@10 by user: of films watched, among those and four times as many
others; of those liked and of the stars, among the films watched.

Then, of the first seed: how much of each expert the gates use, printed and drawn; what
the tower has learned, beside the truth; and what ranking scores make of the objectives,
with weights set at serving time:

    score = watched^a * liked^b * stars^c

The data are a prepared file under --data-dir or the environment variable
KERAS_MTL_DATA; without one the loader fetches the public file, or says what to do.
"""

import argparse

import keras
import numpy as np
from sklearn.metrics import ndcg_score, roc_auc_score
from training_progress import TrainingProgress

import keras_mtl
from keras_mtl import layers
from keras_mtl.metrics import ResultsTable

TASKS = ("watched", "liked", "rating")
LOSSES = {
    "watched": "binary_crossentropy",
    "liked": "binary_crossentropy",
    "rating": "mse",
}
SINGLE = "single-task (3 networks)"
MODELS = ("shared bottom", "MMoE", "MMoE, position tower", "PLE")
SERVING = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1), (1, 3, 0))
"""Exponents of watched, liked and stars."""


def build(kind, meta, tasks, options):
    """Embeddings and features, then the kind of sharing, then a head for each task."""
    inputs = {
        "user": keras.Input((), dtype="int32", name="user"),
        "item": keras.Input((), dtype="int32", name="item"),
        "genres": keras.Input((len(meta["genres"]),), name="genres"),
        "year": keras.Input((1,), name="year"),
        "position": keras.Input((), dtype="int32", name="position"),
    }

    def embed(name, count):
        penalty = keras.regularizers.L2(options.embedding_penalty)
        return keras.layers.Embedding(
            count,
            options.embedding,
            embeddings_regularizer=penalty,
            name=f"{name}_embedding",
        )(inputs[name])

    x = keras.layers.Concatenate()(
        [
            embed("user", meta["num_users"]),
            embed("item", meta["num_items"]),
            inputs["genres"],
            inputs["year"],
        ]
    )
    gate = layers.SoftmaxGate(dropout=0.1)
    if kind in (SINGLE, "shared bottom"):
        h = keras.layers.Dense(128, "relu")(x)
        h = dict.fromkeys(tasks, keras.layers.Dense(64, "relu")(h))
    elif kind == "PLE":
        h = layers.ProgressiveLayeredExtraction(list(tasks), [48, 32], gate=gate)(x)
    else:
        h = layers.MixtureOfExperts(4, list(tasks), units=(48, 32), gate=gate)(x)
    outputs = {}
    for task in tasks:
        hidden = keras.layers.Dense(16, "relu")(h[task])
        logit = keras.layers.Dense(1, bias_initializer=start(task))(hidden)
        if task == "watched" and kind == "MMoE, position tower":
            shown = keras.layers.CategoryEncoding(
                len(meta["seen_probability"]), output_mode="one_hot"
            )(inputs["position"])
            logit = layers.PositionBiasTower(name="position_tower")(logit, shown)
        activation = "linear" if task == "rating" else "sigmoid"
        outputs[task] = keras.layers.Activation(activation, name=task)(logit)
    used = {name: x for name, x in inputs.items() if name != "position"}
    if kind == "MMoE, position tower":
        used = inputs
    return keras_mtl.MultiTaskModel(used, outputs)


def start(task):
    """Ratings start at their middle, not at 0."""
    return keras.initializers.Constant(3.5) if task == "rating" else "zeros"


def train(kind, data, tasks, options, callback):
    """Returns a model that is trained for all its epochs."""
    model = build(kind, data.meta, tasks, options)
    weights = dict.fromkeys(TASKS, options.label_weight) | {"watched": 1.0}
    model.compile(
        keras.optimizers.Adam(options.learning_rate),
        loss={task: LOSSES[task] for task in tasks},
        loss_weights={task: weights[task] for task in tasks if len(tasks) > 1},
    )
    model.fit(
        {name: data.train.x[name] for name in model.input},
        {task: data.train.y[task] for task in tasks},
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[callback],
    )
    return model


def predict(model, x):
    x = {name: x[name] for name in model.input}
    outputs = model.predict(x, batch_size=8192, verbose=0)
    return {task: y[:, 0].astype("float64") for task, y in outputs.items()}


def by_user(user, there):
    """Returns the rows of each user that are there."""
    rows = np.flatnonzero(there)
    rows = rows[np.argsort(user[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(user[rows])) + 1)


def ndcg(groups, relevance, score):
    """Mean of NDCG@10 over the users for whom the order matters."""
    found = [
        ndcg_score([relevance[rows]], [score[rows]], k=10)
        for rows in groups
        if len(rows) > 1 and np.ptp(relevance[rows]) > 0
    ]
    return float(np.mean(found))


def evaluate(predicted, split):
    """Returns the metrics of the objectives that are predicted."""
    user, y = split.x["user"], split.y
    watched = y["watched"] == 1
    everything, seen = by_user(user, np.ones_like(watched)), by_user(user, watched)
    found = {}
    if "watched" in predicted:
        score = predicted["watched"]
        found["watched AUC"] = roc_auc_score(watched, score)
        found["watched NDCG"] = ndcg(everything, y["watched"], score)
    if "liked" in predicted:
        score = predicted["liked"]
        found["liked AUC"] = roc_auc_score(y["liked"][watched], score[watched])
        found["liked NDCG"] = ndcg(seen, y["liked"], score)
    if "rating" in predicted:
        score = predicted["rating"]
        error = (score - y["rating"])[watched]
        found["rating RMSE"] = float(np.sqrt(np.mean(error**2)))
        found["rating NDCG"] = ndcg(seen, y["rating"], score)
    return found


def run_seed(data, seed, options, progress):
    """Trains all models, and returns their metrics, sizes and the models."""
    found, models = {}, {}
    alone, parameters = {}, 0
    for task in TASKS:
        keras.utils.set_random_seed(seed)
        callback = progress.callback(f"seed {seed}: {task} alone", options.epochs)
        model = train(SINGLE, data, [task], options, callback)
        alone.update(evaluate(predict(model, data.test.x), data.test))
        parameters += dense_parameters(model)
    found[SINGLE] = {**alone, "dense parameters": parameters}
    for kind in MODELS:
        keras.utils.set_random_seed(seed)
        callback = progress.callback(f"seed {seed}: {kind}", options.epochs)
        model = models[kind] = train(kind, data, TASKS, options, callback)
        results = evaluate(predict(model, data.test.x), data.test)
        found[kind] = {**results, "dense parameters": dense_parameters(model)}
    return found, models


def dense_parameters(model):
    """Trainable parameters beside the embeddings."""
    return sum(
        int(np.prod(v.shape))
        for v in model.trainable_variables
        if "_embedding" not in v.path
    )


def utilization(model):
    """Returns by gate the mean weight of experts for each task."""
    found = {}
    for layer in model.layers:
        gates = [layer.gate] if isinstance(layer, layers.MixtureOfExperts) else []
        if isinstance(layer, layers.ProgressiveLayeredExtraction):
            gates = [level.gate for level in layer.levels]
        for index, gate in enumerate(gates):
            name = f"level {index + 1}" if len(gates) > 1 else "gate"
            found[name] = keras.ops.convert_to_numpy(gate.utilization)
    return found


def print_utilization(kind, gates):
    for name, weights in gates.items():
        print(f"\n{kind}, {name}: mean weight of the experts (last batch of training)")
        for task, row in zip(TASKS, weights, strict=True):
            print(f"  {task:<8}" + "".join(f"{w:7.2f}" for w in row))


def draw_utilization(gates, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [
        (f"{kind}, {name}", weights)
        for kind, by_name in gates.items()
        for name, weights in by_name.items()
    ]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.9 * len(panels), 2.4), layout="constrained"
    )
    for axis, (title, weights) in zip(np.atleast_1d(axes), panels, strict=True):
        image = axis.imshow(weights, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for (row, column), weight in np.ndenumerate(weights):
            colour = "white" if weight > 0.5 else "black"
            axis.text(
                column,
                row,
                f"{weight:.2f}",
                ha="center",
                va="center",
                color=colour,
                fontsize=8,
            )
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(weights.shape[1]))
        axis.set_xlabel("expert", fontsize=8)
        axis.set_yticks(range(len(TASKS)), TASKS, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=110)


def print_tower(model, data):
    """Prints the probability of a watch at each position, relative to the first."""
    tower = model.get_layer("position_tower").tower[-1]
    bias = keras.ops.convert_to_numpy(tower.kernel)[:, 0]
    offset = float(keras.ops.convert_to_numpy(tower.bias)[0])
    x = {name: data.train.x[name][:50_000] for name in model.input}
    served = model.predict(x, batch_size=8192, verbose=0)["watched"][:, 0]
    logit = np.log(served / (1 - served)) + offset
    watched = [np.mean(1 / (1 + np.exp(-(logit + b)))) for b in bias]
    truth = data.meta["seen_probability"]
    print("\nposition tower: how often a film is watched, relative to position 0")
    print("  position" + "".join(f"{p:7d}" for p in range(len(bias))))
    print("  learned " + "".join(f"{w / watched[0]:7.2f}" for w in watched))
    print("  truth   " + "".join(f"{p:7.2f}" for p in truth))


def print_serving(model, split):
    """Prints what scores of several objectives rank first."""
    predicted = predict(model, split.x)
    y = split.y
    groups = by_user(split.x["user"], np.ones(len(y["watched"]), bool))
    liked = np.nan_to_num(y["liked"])
    stars = np.nan_to_num(y["rating"])
    print("\nscore = watched^a liked^b stars^c: NDCG@10 among all test films of a user")
    print(f"  {'a, b, c':<10}{'watched':>9}{'liked':>9}{'stars':>9}")
    for exponents in SERVING:
        powers = [
            predicted[task] ** power
            for task, power in zip(TASKS, exponents, strict=True)
        ]
        score = np.prod(powers, axis=0)
        cells = [ndcg(groups, r, score) for r in (y["watched"], liked, stars)]
        print(f"  {exponents!s:<10}" + "".join(f"{value:9.3f}" for value in cells))


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--label-weight", type=float, default=0.1)
    parser.add_argument("--embedding", type=int, default=16)
    parser.add_argument("--embedding-penalty", type=float, default=1e-6)
    parser.add_argument("--position-bias", type=float, default=1.0, help="eta")
    parser.add_argument("--picture", default="movielens_gates.png")
    parser.add_argument("--markdown", help="file to write the table to")
    return parser.parse_args()


def main():
    options = parse()
    columns = {
        "watched AUC": True,
        "watched NDCG": True,
        "liked AUC": True,
        "liked NDCG": True,
        "rating RMSE": False,
        "rating NDCG": True,
    }
    table = ResultsTable(
        columns,
        digits={**dict.fromkeys(columns, 4), "dense parameters": 0},
        title=f"MovieLens latest-small, {options.seeds} seeds, "
        f"{keras.backend.backend()}",
    )
    first = None
    total = options.seeds * (len(TASKS) + len(MODELS)) * options.epochs
    with TrainingProgress(total) as progress:
        for seed in range(options.seeds):
            data = keras_mtl.datasets.load_movielens(
                options.data_dir, position_bias=options.position_bias, seed=seed
            )
            found, models = run_seed(data, seed, options, progress)
            for kind, results in found.items():
                table.add(kind, results)
            first = first or (data, models)
    table.print()
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table.to_markdown() + "\n")
    data, models = first
    gates = {
        kind: utilization(model)
        for kind, model in models.items()
        if kind != "shared bottom"
    }
    for kind, by_name in gates.items():
        print_utilization(kind, by_name)
    draw_utilization(gates, options.picture)
    print(f"\npicture: {options.picture}")
    print_tower(models["MMoE, position tower"], data)
    print_serving(models["MMoE, position tower"], data.test)


if __name__ == "__main__":
    main()
