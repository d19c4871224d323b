"""What `SoftmaxGate` and `DSelectK` have in common, and each by itself."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from layer_check import check_jit, check_layer, slow_to_compile

import keras_mtl
from keras_mtl.layers import (
    DSelectK,
    MixtureOfExperts,
    ProgressiveLayeredExtraction,
    SoftmaxGate,
)

RNG = np.random.default_rng(0)
TASKS = ["b", "a", "c"]
X = RNG.normal(size=(10, 5)).astype("float32")
STEPS = RNG.normal(size=(10, 4, 5)).astype("float32")
SIZE = {"num_experts": 4, "task_names": TASKS}


def to_numpy(x):
    return ops.convert_to_numpy(x)


GATES = {
    "softmax": lambda **kwargs: SoftmaxGate(**SIZE, **kwargs),
    "hidden": lambda **kwargs: SoftmaxGate(
        hidden_units=(6,), use_bias=True, **SIZE, **kwargs
    ),
    "top 2": lambda **kwargs: SoftmaxGate(top_k=2, **SIZE, **kwargs),
    "dselect": lambda **kwargs: DSelectK(k=2, **SIZE, **kwargs),
    "dselect by example": lambda **kwargs: DSelectK(
        k=2, by_example=True, gamma=3.0, **SIZE, **kwargs
    ),
}


@pytest.mark.parametrize(
    "name, x", [("softmax", X), ("hidden", STEPS), ("top 2", X)], ids=str
)
def test_layer(name, x):
    check_layer(GATES[name], (x,))


@pytest.mark.parametrize("x", [X, STEPS], ids=["rows", "steps"])
@pytest.mark.parametrize("by_example", [False, True])
def test_dselect_layer(by_example, x):
    def make():
        return DSelectK(
            k=2, by_example=by_example, gamma=20.0, entropy_weight=1e-3, **SIZE
        )

    check_layer(make, (x,))


@slow_to_compile
@pytest.mark.parametrize("name", ["top 2", "dselect by example"])
def test_jit(name):
    check_jit(GATES[name], (X,))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", GATES)
def test_weights_of_a_row_and_task_sum_to_one(name, dropout, training):
    weights = to_numpy(GATES[name](dropout=dropout, seed=1)(X, training=training))
    assert weights.shape == (10, 3, 4)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    if dropout and training and name != "top 2":
        assert (weights == 0).mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("name", GATES)
def test_inputs_of_each_task(name):
    gate = GATES[name]()
    inputs = RNG.normal(size=(3, 10, 5)).astype("float32")
    weights = to_numpy(gate(inputs, repeated=True))
    for t in range(3):
        np.testing.assert_allclose(
            weights[:, t], to_numpy(gate(inputs[t]))[:, t], atol=1e-6
        )


def test_dropout_leaves_a_row_that_would_lose_all_weights_as_it_is():
    gate = SoftmaxGate(dropout=0.9, seed=1, num_experts=2, task_names=["a"])
    x = RNG.normal(size=(2000, 5)).astype("float32")
    plain = to_numpy(gate(x))
    dropped = to_numpy(gate(x, training=True))
    as_before = np.isclose(dropped, plain).all(axis=(1, 2))
    assert as_before.mean() == pytest.approx(0.81, abs=0.04)
    np.testing.assert_allclose(dropped[~as_before].max(-1), 1, atol=1e-5)


def test_top_k_keeps_the_largest():
    gate, plain = GATES["top 2"](), GATES["softmax"]()
    gate(X), plain(X)
    plain.set_weights(gate.get_weights())
    weights, all_weights = to_numpy(gate(X)), to_numpy(plain(X))
    kept = np.sort(all_weights, axis=-1)[..., 2:].sum(-1, keepdims=True)
    expected = np.where(
        all_weights >= np.sort(all_weights, axis=-1)[..., 2:3], all_weights / kept, 0
    )
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_statistics_of_training():
    gate = SoftmaxGate(num_experts=4, task_names=["a", "b"])
    gate(X)
    kernel = np.zeros((2, 5, 4), "float32")
    kernel[0, :, 1] = 1e3
    gate.logits.set_weights([kernel])
    x = np.abs(X)
    gate(x)
    np.testing.assert_allclose(to_numpy(gate.utilization), 0.25)  # as at the start
    gate(x, training=True)
    np.testing.assert_allclose(
        to_numpy(gate.utilization), [[0, 1, 0, 0], [0.25] * 4], atol=1e-6
    )
    np.testing.assert_allclose(to_numpy(gate.entropy), [0, 1], atol=1e-5)


@pytest.mark.parametrize("collapsed, expected", [(True, 4.0), (False, 1.0)])
def test_load_balance(collapsed, expected):
    """1 where all experts are used alike, E where one takes all."""
    gate = SoftmaxGate(load_balance=0.5, num_experts=4, task_names=["a"])
    x = np.repeat(np.eye(4, dtype="float32"), 5, axis=0)
    gate(x)
    kernel = 1e3 * np.eye(4, dtype="float32")[None]
    if collapsed:
        kernel = np.zeros((1, 4, 4), "float32")
        kernel[..., 2] = 1e3
    gate.logits.set_weights([kernel])
    gate(x, training=True)
    (loss,) = gate.losses
    assert float(loss) == pytest.approx(0.5 * expected, rel=1e-5)


def test_training_on_load_balance_spreads_the_weights():
    inputs = keras.Input((5,))
    gate = SoftmaxGate(load_balance=1.0, num_experts=4, task_names=["a"])
    model = keras.Model(inputs, gate(inputs))
    model.compile(keras.optimizers.SGD(1.0), "mse", loss_weights=0.0)
    kernel = np.zeros((1, 5, 4), "float32")
    kernel[..., 2] = 2.0
    gate.logits.set_weights([kernel])
    x = np.abs(X)
    before = to_numpy(gate(x)).mean(axis=0).max()
    model.fit(x, np.zeros((10, 1, 4)), epochs=30, verbose=0)
    assert before > 0.9
    assert to_numpy(gate(x)).mean(axis=0).max() < 0.5


# DSelectK


def smooth_step(t, gamma):
    if t <= -gamma / 2:
        return 0.0
    if t >= gamma / 2:
        return 1.0
    return -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5


@pytest.mark.parametrize("experts", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_dselect_is_what_its_formula_says(experts, gamma):
    k = min(2, experts)
    gate = DSelectK(k=k, gamma=gamma, num_experts=experts, task_names=["a", "b"])
    gate(X)
    bits = gate.num_bits
    z = RNG.normal(size=(2, k * bits)).astype("float32")
    w = RNG.normal(size=(2, k)).astype("float32")
    gate.selectors.assign(z)
    gate.mixture.assign(w)
    weights = to_numpy(gate(X))
    for t in range(2):
        mixture = np.exp(w[t]) / np.exp(w[t]).sum()
        for e in range(experts):
            expected = 0.0
            for i in range(k):
                r = 1.0
                for j in range(bits):
                    s = smooth_step(float(z[t, i * bits + j]), gamma)
                    r *= s if e >> j & 1 else 1 - s
                expected += mixture[i] * r
            np.testing.assert_allclose(weights[:, t, e], expected, atol=1e-5)
    np.testing.assert_allclose(gate.selected_experts(), weights[0], atol=1e-6)


def test_dselect_starts_near_equal_weights():
    gate = DSelectK(k=2, **SIZE)
    np.testing.assert_allclose(to_numpy(gate(X)), 0.25, atol=0.02)


def test_penalty_of_codes_without_an_expert():
    gate = DSelectK(k=1, entropy_weight=0.0, num_experts=3, task_names=["a"])
    gate(X, training=True)
    (loss,) = gate.losses
    assert float(loss) == pytest.approx(1 / to_numpy(gate(X))[0].sum(), rel=1e-4)
    power_of_two = DSelectK(k=1, entropy_weight=0.0, num_experts=4, task_names=["a"])
    power_of_two(X, training=True)
    assert not power_of_two.losses


@pytest.mark.parametrize("experts", [8, 6])
def test_dselect_selects_k_experts_at_convergence(experts):
    """Tasks that are linear in different features, and experts that see one each."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(512, experts)).astype("float32")
    tasks = {"a": (1, 4), "b": (2, 5)}
    y = {
        n: x[:, list(places)].sum(axis=1, keepdims=True) for n, places in tasks.items()
    }
    inputs = keras.Input((experts,))

    def see(feature):
        return keras.layers.Lambda(lambda h: 2 * h[:, feature : feature + 1])

    gate = DSelectK(k=2, entropy_weight=0.05, seed=1)
    keras.utils.set_random_seed(2)
    layer = MixtureOfExperts([see(e) for e in range(experts)], list(tasks), gate=gate)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.Adam(0.02), dict.fromkeys(tasks, "mse"))
    model.fit(x, y, batch_size=128, epochs=150, verbose=0)
    weights = gate.selected_experts()
    assert ((weights > 1e-3).sum(axis=-1) <= 2).all(), weights
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)
    found = {
        n: set(np.flatnonzero(row > 1e-3))
        for n, row in zip(tasks, weights, strict=True)
    }
    assert all(1 <= len(chosen) <= 2 for chosen in found.values()), found
    assert any(found[n] == set(places) for n, places in tasks.items()), found


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: SoftmaxGate(dropout=1.0), "`dropout` must be less than 1"),
        (lambda: SoftmaxGate(load_balance=-1), "`load_balance` must be a finite"),
        (lambda: SoftmaxGate(top_k=0), "`top_k` must be a whole number of at least 1"),
        (lambda: SoftmaxGate(top_k=5, **SIZE)(X), "`top_k` must be at most"),
        (lambda: SoftmaxGate()(X), "needs `num_experts` and `task_names`"),
        (lambda: DSelectK(k=0), "`k` must be a whole number of at least 1"),
        (lambda: DSelectK(k=5, **SIZE)(X), "`k` must be at most the number"),
        (lambda: DSelectK(k=1, gamma=0), "`gamma` must be a finite number greater"),
        (
            lambda: DSelectK(k=1, by_example=True, **SIZE).selected_experts(),
            "each row makes a choice of its own",
        ),
    ],
)
def test_refuses(make, match):
    with pytest.raises(ValueError, match=match) as error:
        make()
    assert "Received: " in str(error.value)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("difference", [7.0, 50.0, 1e4])
@pytest.mark.parametrize("make", [SoftmaxGate, functools.partial(SoftmaxGate, top_k=3)])
def test_dropout_of_a_dominant_weight(make, difference, policy):
    """What is left takes its place, and all gradients are finite."""
    gate = make(dropout=0.5, seed=1, num_experts=4, task_names=["a"], dtype=policy)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, gate(inputs))
    kernel = np.zeros((1, 1, 4), "float32")
    kernel[..., 1] = difference
    gate.logits.set_weights([kernel])
    x = np.ones((256, 1), "float32")
    weights = to_numpy(ops.cast(gate(x, training=True), "float32"))[:, 0]
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=5e-3)
    dropped = weights[:, 1] == 0
    assert 64 < dropped.sum() < 192
    # Those left are alike, whatever their share was.
    left = weights[dropped]
    expected = (left > 0) / (left > 0).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(left, expected, rtol=5e-3)
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    model.train_on_batch(x, np.zeros((256, 1, 4)))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_dropout_of_a_dominant_selector():
    """Where a millionth is left, the row stays as it is."""
    gate = DSelectK(k=1, dropout=0.5, seed=1, num_experts=4, task_names=["a"])
    x = np.ones((256, 1), "float32")
    gate(x)
    near = 0.5 - 3e-5  # of the smooth step: the others have 3e-9 of the weight
    gate.selectors.assign(np.array([[near, near]]))
    weights = to_numpy(gate(x, training=True))[:, 0]
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(weights[:, 3], 1, atol=1e-5)


def test_copies_of_a_seeded_gate_draw_independently():
    layer = ProgressiveLayeredExtraction(
        ["a", "b"],
        units=[5, 5, 5],
        gate=SoftmaxGate(kernel_initializer=keras.initializers.HeNormal(seed=1)),
    )
    layer(X)
    first, second, _ = (
        to_numpy(level.gate.logits.kernels[0]) for level in layer.levels
    )
    assert np.abs(first - second).min() > 1e-6


def test_gates_of_one_name_have_logs_of_their_own():
    inputs = h = keras.Input((5,))
    for _ in range(2):
        h = MixtureOfExperts(2, ["a", "b"], units=5, gate=SoftmaxGate(name="g"))(h)
    outputs = {n: keras.layers.Dense(1)(x) for n, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    model.compile("sgd", "mse")
    y = {"a": np.ones((10, 1)), "b": np.ones((10, 1))}
    logs = model.fit(X, y, verbose=0).history
    assert {"a_g_0_entropy", "a_g_1_entropy", "b_g_1_top_share"} <= set(logs)
