import keras
import numpy as np
import pytest
from keras import ops
from layer_check import (
    check_half_precision_gradients,
    check_jit,
    check_layer,
    check_mask,
    check_padding,
    masked,
    slow_to_compile,
)

import keras_mtl
from keras_mtl.layers import MixtureOfExperts, MultiHead, RelationshipPrior, SoftmaxGate
from keras_mtl.layers.stacked_dense import StackedDense

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
IMAGES = RNG.normal(size=(10, 4, 4, 2)).astype("float32")
BY_TASK = {name: RNG.normal(size=(10, 5)).astype("float32") for name in TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


def str_of_kind(inputs):
    return type(inputs).__name__ + str(getattr(inputs, "ndim", ""))


def convolutions():
    return [keras.layers.Conv2D(3, 3, activation="relu") for _ in range(2)]


def by_hand(layer, x_of):
    """The mixture written out expert by expert, on a dict of rows by task."""
    kernels = [to_numpy(k) for k in layer.experts.kernels]
    biases = [to_numpy(b) for b in layer.experts.biases]
    gates = to_numpy(layer.gate.logits.kernels[0])
    outputs = {}
    for t, name in enumerate(layer.task_names):
        x, total = x_of[name], 0.0
        logits = x @ gates[t]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        for e in range(layer.num_experts):
            h = x
            for depth, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
                own = kernel[:, e] if depth == 0 else kernel[e]
                h = np.maximum(h @ own + bias[e], 0)
            total = total + weights[..., e : e + 1] * h
        outputs[name] = total
    return outputs


@pytest.mark.parametrize(
    "inputs",
    [X, STEPS, BY_TASK, list(BY_TASK.values())],
    ids=["one", "steps", "dict", "list"],
)
def test_layer(inputs):
    check_layer(lambda: MixtureOfExperts(4, TASKS, units=(6, 3)), (inputs,))


@pytest.mark.parametrize(
    "inputs",
    [IMAGES, {name: IMAGES + i for i, name in enumerate(TASKS)}],
    ids=["one", "dict"],
)
def test_layers_as_experts(inputs):
    check_layer(lambda: MixtureOfExperts(convolutions(), TASKS), (inputs,))


def test_layer_with_every_argument():
    def make():
        return MixtureOfExperts(
            3,
            ("only",),
            units=4,
            activation="tanh",
            use_bias=False,
            expert_dropout=0.3,
            gate=SoftmaxGate(
                top_k=2,
                hidden_units=(5,),
                use_bias=True,
                dropout=0.1,
                load_balance=0.01,
                seed=1,
                kernel_initializer="he_normal",
            ),
            kernel_initializer=keras.initializers.HeNormal(seed=3),
            bias_initializer="ones",
            kernel_regularizer="l2",
            seed=2,
        )

    check_layer(make, (X,))


def test_mask():
    steps = STEPS.copy()
    steps[2:5, 1:] = 0
    check_mask(lambda: MixtureOfExperts(2, TASKS, units=3), (steps,))
    check_mask(
        lambda: MixtureOfExperts(2, ["a", "b"], units=3),
        ({"a": steps, "b": STEPS},),
    )


@pytest.mark.parametrize("inputs", [STEPS, {"a": STEPS, "b": STEPS + 1}])
def test_padding_changes_nothing(inputs):
    def make():
        recurrent = [keras.layers.GRU(3, bias_initializer="normal") for _ in range(2)]
        gate = SoftmaxGate(load_balance=0.1)
        return MixtureOfExperts(recurrent, ["a", "b"], gate=gate)

    check_padding(make, inputs)


@pytest.mark.parametrize("inputs", [STEPS, {"a": STEPS, "b": STEPS + 1}])
def test_padding_is_not_in_the_statistics(inputs):
    layer = MixtureOfExperts(3, ["a", "b"], units=2)
    layer(inputs, training=True)
    expected = [to_numpy(v) for v in (layer.gate.utilization, layer.gate.entropy)]
    layer(masked(inputs, 3), training=True)
    found = [to_numpy(v) for v in (layer.gate.utilization, layer.gate.entropy)]
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-6)


HEADS = {
    "linear": lambda: MultiHead(1, TASKS, bias_initializer="normal"),
    "one unit first": lambda: MultiHead(2, TASKS, "tanh", hidden_units=(1,)),
    "hidden": lambda: MultiHead(2, TASKS, hidden_units=(4,), hidden_activation="tanh"),
}


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(
    "inputs", [X, STEPS, BY_TASK, list(BY_TASK.values())], ids=str_of_kind
)
def test_heads_inside_are_those_after(heads, inputs):
    layer = MixtureOfExperts(4, TASKS, units=(6, 3), heads=HEADS[heads]())
    outputs = layer(inputs)
    after = MixtureOfExperts(4, TASKS, units=(6, 3))
    after(inputs)
    after.experts.set_weights(layer.experts.get_weights())
    after.gate.set_weights(layer.gate.get_weights())
    expected = layer.heads(after(inputs))
    if isinstance(outputs, list):
        outputs = dict(zip(TASKS, outputs, strict=True))
    for name in TASKS:
        np.testing.assert_allclose(
            to_numpy(outputs[name]), to_numpy(expected[name]), atol=1e-5
        )


@pytest.mark.parametrize("heads", HEADS)
def test_layer_with_heads(heads):
    check_layer(lambda: MixtureOfExperts(4, TASKS, units=3, heads=HEADS[heads]()), (X,))


def test_layers_as_experts_with_heads():
    def make():
        experts = [keras.layers.Dense(3, "tanh"), keras.layers.Dense(3, "relu")]
        return MixtureOfExperts(experts, TASKS, heads=MultiHead(1, TASKS))

    check_layer(make, (BY_TASK,))


def test_heads_with_a_prior_add_its_loss():
    heads = RelationshipPrior(1, TASKS, weight=1.0)
    layer = MixtureOfExperts(4, TASKS, units=3, heads=heads)
    layer(X, training=True)
    kernel = to_numpy(heads.kernels[0])
    expected = 0.5 * np.sum(kernel**2)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_stack_of_layers_is_an_expert():
    def make():
        return MixtureOfExperts(
            [[keras.layers.Dense(4, "relu"), keras.layers.Dense(3)] for _ in range(2)],
            TASKS,
        )

    check_layer(make, (X,))


def test_a_hidden_activation_runs_along_the_units_of_one_expert():
    layer = StackedDense(2, (4, 3), hidden_activation="softmax")
    outputs = to_numpy(layer(X))
    kernels = [to_numpy(k) for k in layer.kernels]
    for s in range(2):
        h = np.exp(X @ kernels[0][s])
        expected = h / h.sum(axis=-1, keepdims=True) @ kernels[1][s]
        np.testing.assert_allclose(outputs[:, s], expected, atol=1e-5)


@slow_to_compile
def test_jit():
    check_jit(lambda: MixtureOfExperts(4, TASKS, units=(6, 3)), (X,))


def test_half_precision():
    # Without relu, which half precision can turn on or off at 0.
    check_half_precision_gradients(
        lambda: MixtureOfExperts(4, TASKS, units=3, activation="linear"), (X,)
    )


@pytest.mark.parametrize("x", [X, STEPS], ids=["rows", "steps"])
def test_is_the_sum_of_experts_by_gates(x):
    layer = MixtureOfExperts(4, TASKS, units=(6, 3), bias_initializer="normal")
    outputs = layer(x)
    for name, expected in by_hand(layer, dict.fromkeys(TASKS, x)).items():
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)


def test_a_task_with_an_input_of_its_own_mixes_what_experts_make_of_it():
    layer = MixtureOfExperts(4, TASKS, units=(6, 3), bias_initializer="normal")
    outputs = layer(BY_TASK)
    for name, expected in by_hand(layer, BY_TASK).items():
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)
    same = layer(dict.fromkeys(TASKS, X))
    for name, expected in layer(X).items():
        np.testing.assert_allclose(to_numpy(same[name]), to_numpy(expected), atol=1e-5)


def test_layers_as_experts_are_mixed_by_the_gate_of_the_mean():
    layer = MixtureOfExperts(convolutions(), TASKS)
    outputs = layer(IMAGES)
    weights = to_numpy(layer.gate(IMAGES.mean(axis=(1, 2))))
    experts = [to_numpy(e(IMAGES)) for e in layer.experts.layers]
    for t, name in enumerate(TASKS):
        expected = sum(
            weights[:, t, e, None, None, None] * y for e, y in enumerate(experts)
        )
        np.testing.assert_allclose(to_numpy(outputs[name]), expected, atol=1e-5)
    by_task = layer(dict.fromkeys(TASKS, IMAGES))
    for name in TASKS:
        np.testing.assert_allclose(
            to_numpy(by_task[name]), to_numpy(outputs[name]), atol=1e-5
        )


def test_one_expert_is_hard_sharing():
    layer = MixtureOfExperts(1, TASKS, units=3)
    outputs = layer(X)
    kernel = to_numpy(layer.experts.kernels[0])[:, 0]
    for name in TASKS:
        np.testing.assert_allclose(
            to_numpy(outputs[name]), np.maximum(X @ kernel, 0), atol=1e-5
        )


def test_expert_dropout_keeps_the_expectation():
    layer = MixtureOfExperts(8, TASKS, units=3, expert_dropout=0.25, seed=1)
    x = np.repeat(X[:1], 20_000, axis=0)
    dropped = layer(x, training=True)
    for name, expected in layer(x[:1]).items():
        rows = to_numpy(dropped[name])
        spread = rows.std(axis=0) / np.sqrt(len(rows))
        assert (rows.std(axis=0) > 1e-3).any()
        difference = np.abs(rows.mean(axis=0) - to_numpy(expected)[0])
        assert (difference < 5 * spread + 1e-6).all()


def test_expert_dropout_is_the_same_for_all_tasks():
    layer = MixtureOfExperts(2, TASKS, units=3, expert_dropout=0.5, seed=1)
    layer.build(X.shape)
    zero = [np.zeros(k.shape) for k in layer.gate.logits.kernels]
    layer.gate.logits.set_weights(zero)  # all gates alike
    outputs = layer(X, training=True)
    by_task = layer(dict.fromkeys(TASKS, X), training=True)
    for made in (outputs, by_task):
        for name in TASKS:
            np.testing.assert_allclose(
                to_numpy(made[name]), to_numpy(made["a"]), atol=1e-6
            )
    assert not np.allclose(to_numpy(outputs["a"]), to_numpy(layer(X)["a"]))


def test_gradients_of_a_gate_are_of_its_own_task():
    """And all tasks train the experts."""
    inputs = keras.Input((5,))
    layer = MixtureOfExperts(4, TASKS, units=3)
    model = keras.Model(inputs, layer(inputs)["a"])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = [w.copy() for w in layer.get_weights()]
    model.train_on_batch(X, np.ones((10, 3)))
    named = dict(
        zip(
            [w.path.split("/")[-2:][0] + "/" + w.name for w in layer.weights],
            zip(before, layer.get_weights(), strict=True),
            strict=True,
        )
    )
    old, new = named["logits/kernel_0"]
    moved = [not np.array_equal(o, n) for o, n in zip(old, new, strict=True)]
    assert moved == [False, True, False]


def test_sharing_summary_tells_experts_from_gates():
    inputs = keras.Input((5,))
    layer = MixtureOfExperts(4, TASKS, units=3, name="moe")
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    rows = {row.layer: row for row in model.sharing_summary(print_fn=lambda line: None)}
    assert rows["moe_experts"].kind == "shared"
    assert rows[layer.gate.name].kind == "stacked"
    assert len(model.shared_variables) == 2


def test_a_collapsed_gate_is_seen_in_the_logs():
    inputs = keras.Input((5,))
    layer = MixtureOfExperts(4, TASKS, units=3)
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    kernel = np.zeros((3, 5, 4), "float32")
    kernel[0, :, 1] = 1e3  # the gate of "b" has one expert for rows with a sum above 0
    layer.gate.logits.set_weights([kernel])
    x = np.abs(X)
    y = {name: np.zeros(10) for name in TASKS}
    logs = model.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert logs["b_gate_entropy"][0] == pytest.approx(0, abs=1e-5)
    assert logs["b_gate_top_share"][0] == pytest.approx(1)
    assert logs["a_gate_entropy"][0] == pytest.approx(1)
    assert logs["a_gate_top_share"][0] == pytest.approx(0.25)
    assert "val_a_gate_entropy" not in logs
    np.testing.assert_allclose(to_numpy(layer.gate.utilization)[0], [0, 1, 0, 0])


@pytest.mark.parametrize("inside", [False, True])
def test_an_aggregator_combines_the_gradients_of_experts_alone(inside):
    """The mean of three tasks is a third of the sum, where it is taken."""
    inputs = keras.Input((5,))
    if inside:
        heads = MultiHead(1, TASKS)
        layer = MixtureOfExperts(4, TASKS, units=3, heads=heads)
        outputs = layer(inputs)
    else:
        layer = MixtureOfExperts(4, TASKS, units=3)
        outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    y = {name: X[:, :1] * i for i, name in enumerate(TASKS)}

    def step(**arguments):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        model.compile(keras.optimizers.SGD(0.1), "mse", **arguments)
        model.train_on_batch(X, y)
        trained = map(to_numpy, model.trainable_variables)
        return [new - old for new, old in zip(trained, start, strict=True)]

    start = [to_numpy(v).copy() for v in model.trainable_variables]
    plain = step()
    aggregated = step(aggregator="mean", aggregate_at="parameters")
    experts = {v.path for v in layer.experts.trainable_variables}
    assert any(np.abs(change).max() > 1e-3 for change in plain)
    for variable, mean, total in zip(
        model.trainable_variables, aggregated, plain, strict=True
    ):
        expected = total / 3 if variable.path in experts else total
        np.testing.assert_allclose(mean, expected, atol=1e-6)


def test_the_representation_of_tasks_with_mixtures_of_their_own_is_refused():
    inputs = keras.Input((5,))
    layer = MixtureOfExperts(4, TASKS, units=3)
    outputs = {n: keras.layers.Dense(1)(h) for n, h in layer(inputs).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    with pytest.raises(ValueError, match="Aggregate at 'parameters'"):
        model.compile("sgd", "mse", aggregator="upgrad", aggregate_at="representation")


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"experts": 0}, "`experts` must be a whole number of at least 1"),
        ({"experts": 2, "units": None}, "Dense experts need `units`"),
        ({"experts": 2, "units": (3, 0)}, "`units` must be a whole number"),
        (
            {"experts": [], "units": None},
            "`experts` must be a number, or a list of layers",
        ),
        ({"experts": ["dense"], "units": None}, "`experts` must be a number, or a"),
        ({"experts": [keras.layers.Dense(2)]}, "`units` is the size of dense experts"),
        ({"experts": 2, "expert_dropout": 1.0}, "`expert_dropout` must be less than 1"),
        ({"experts": 2, "task_names": "ab"}, "`task_names` must be a list of strings"),
        ({"experts": 2, "task_names": ["a", "a"]}, "must not hold a name twice"),
        ({"experts": 2, "task_names": []}, "must hold 1 or more names"),
        ({"experts": 2, "gate": "softmax"}, "`gate` must be a gate"),
    ],
)
def test_refuses(arguments, match):
    arguments = {"task_names": TASKS, "units": 3, **arguments}
    with pytest.raises(ValueError, match=match) as error:
        MixtureOfExperts(**arguments)
    assert "Received: " in str(error.value)


def test_refuses_one_expert_twice():
    expert = keras.layers.Dense(3)
    with pytest.raises(ValueError, match=r"must not hold a layer twice.*Received"):
        MixtureOfExperts([expert, expert], TASKS)


def test_refuses_experts_of_other_shapes():
    layer = MixtureOfExperts([keras.layers.Dense(3), keras.layers.Dense(2)], TASKS)
    with pytest.raises(ValueError, match=r"outputs of one shape. Received: shapes"):
        layer(X)


@pytest.mark.parametrize(
    "inputs, match",
    [
        ({"a": X, "b": X}, "must be a dict with the keys"),
        ([X, X], "must be a list with one tensor for each of"),
        ({"a": X, "b": X, "c": X[:, :3]}, "must have one shape"),
        ({"a": X, "b": X, "c": {"d": X}}, "not a nest of them"),
    ],
)
def test_refuses_inputs(inputs, match):
    with pytest.raises(ValueError, match=match) as error:
        MixtureOfExperts(2, TASKS, units=3)(inputs)
    assert "Received: " in str(error.value)


def test_refuses_a_gate_of_another_layer():
    gate = SoftmaxGate()
    MixtureOfExperts(2, TASKS, units=3, gate=gate)
    with pytest.raises(ValueError, match=r"a gate of its own. Received"):
        MixtureOfExperts(3, TASKS, units=3, gate=gate)
