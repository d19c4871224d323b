import numpy as np
import pytest

from keras_mtl.metrics import RelativeImprovement

# Single-task and linear-scalarisation rows of Nash-MTL (Navon et al., ICML 2022),
# which reports a mean over all metrics of which lower is better. The rows are
# rounded: the absolute error 0.0125 alone leaves 0.2 open.
CITYSCAPES = {
    "miou": (74.01, 75.18, True),
    "accuracy": (93.16, 93.49, True),
    "absolute": (0.0125, 0.0155, False),
    "relative": (27.77, 46.77, False),
}
NYUV2 = {
    "miou": (38.30, 39.29, True),
    "accuracy": (63.76, 65.33, True),
    "absolute": (0.6754, 0.5493, False),
    "relative": (0.2780, 0.2263, False),
    "mean": (25.01, 28.15, False),
    "median": (19.21, 23.96, False),
    "within 11.25": (30.14, 22.09, True),
    "within 22.5": (57.20, 47.50, True),
    "within 30": (69.15, 61.08, True),
}


def published(rows, **arguments):
    improvement = RelativeImprovement(
        {name: row[0] for name, row in rows.items()},
        {name: row[2] for name, row in rows.items()},
        **arguments,
    )
    return improvement, {name: row[1] for name, row in rows.items()}


@pytest.mark.parametrize(("rows", "printed"), [(CITYSCAPES, 22.60), (NYUV2, 5.59)])
def test_published_tables(rows, printed):
    improvement, results = published(rows, negative_is_better=True)
    np.testing.assert_allclose(improvement(results), printed, atol=0.03)
    improvement, results = published(rows)
    np.testing.assert_allclose(improvement(results), -printed, atol=0.03)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_closed_form(scale):
    improvement = RelativeImprovement(
        {"auc": 0.8 * scale, "mae": 5.0 * scale}, {"auc": True, "mae": False}
    )
    results = {"auc": 0.84 * scale, "mae": 5.5 * scale, "loss": 3.0}
    assert improvement.per_metric(results) == pytest.approx({"auc": 5.0, "mae": -10.0})
    assert improvement(results) == pytest.approx(-2.5)


def test_the_baselines_themselves_are_no_improvement():
    baselines = {"a": 0.3, "b": -2.0}
    assert RelativeImprovement(baselines, True)(baselines) == 0.0


def test_a_negative_baseline_keeps_the_direction():
    improvement = RelativeImprovement({"r2": -0.5}, True)
    assert improvement({"r2": 0.0}) == pytest.approx(100.0)


def test_metrics_are_averaged_within_a_task_first():
    improvement = RelativeImprovement(
        {"a_auc": 1.0, "b_mae": 1.0, "b_rmse": 1.0},
        {"a_auc": True, "b_mae": False, "b_rmse": False},
        tasks={"a": ["a_auc"], "b": ["b_mae", "b_rmse"]},
    )
    results = {"a_auc": 1.1, "b_mae": 0.8, "b_rmse": 1.0}
    assert improvement.per_task(results) == pytest.approx({"a": 10.0, "b": 10.0})
    assert improvement(results) == pytest.approx(10.0)
    flat = RelativeImprovement(
        {"a_auc": 1.0, "b_mae": 1.0, "b_rmse": 1.0},
        {"a_auc": True, "b_mae": False, "b_rmse": False},
    )
    assert flat(results) == pytest.approx(10.0)
    results["b_rmse"] = 0.4
    assert improvement(results) == pytest.approx(25.0)
    assert flat(results) == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baselines": {}}, r"`baselines` must have.*Received: {}"),
        ({"baselines": {"a": 0.0}}, r"not zero.*Received: {'a': 0.0}"),
        ({"baselines": {"a": float("nan")}}, r"finite.*Received: {'a': nan}"),
        ({"higher_is_better": {}}, r"`higher_is_better` must.*nothing about \['a'\]"),
        ({"tasks": {"t": []}}, r"`tasks` must hold every baseline.*Received"),
        ({"tasks": {"t": ["a", "b"]}}, r"`tasks` must hold.*Received"),
        ({"tasks": {"t": ["a"], "u": ["a"]}}, r"`tasks` must hold.*Received"),
        ({"tasks": {"t": ["a"], "u": []}}, r"`tasks` must hold.*Received"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        RelativeImprovement(
            **{"baselines": {"a": 1.0}, "higher_is_better": True, **arguments}
        )


def test_results_without_a_metric():
    with pytest.raises(ValueError, match=r"`results` must.*\['b'\], without \['a'\]"):
        RelativeImprovement({"a": 1.0}, True)({"b": 1.0})
