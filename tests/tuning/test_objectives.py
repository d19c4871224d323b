"""Objectives, by hand."""

import pytest

from keras_mtl import tuning
from keras_mtl.metrics import RelativeImprovement

IMPROVEMENT = RelativeImprovement(
    {"a_auc": 0.8, "b_mae": 2.0}, higher_is_better={"a_auc": True, "b_mae": False}
)
LOGS = {"val_a_auc": 0.84, "val_b_mae": 2.2, "val_a_loss": 1.0, "val_b_loss": 3.0}


@pytest.mark.parametrize(
    "objective, value, direction",
    [
        (tuning.metric_objective("val_a_auc", "max"), 0.84, "max"),
        (tuning.weighted_loss_objective({"a": 0.5, "b": 2.0}), 6.5, "min"),
        (tuning.mean_metric_objective(["val_a_loss", "val_b_loss"], "min"), 2.0, "min"),
        (tuning.relative_improvement_objective(IMPROVEMENT), (5 - 10) / 2, "max"),
        (tuning.worst_task_objective(IMPROVEMENT), -10, "max"),
    ],
)
def test_values(objective, value, direction):
    assert objective.direction == direction
    assert objective.has_value(LOGS)
    assert objective.get_value(LOGS) == pytest.approx(value)
    assert not objective.has_value({"loss": 1.0})


@pytest.mark.parametrize("direction, sign", [("min", 1), ("max", -1)])
def test_a_doubling_costs_its_price(direction, sign):
    objective = tuning.mean_metric_objective(
        ["val_a_loss"], direction, cost={"parameters": 0.5, "step_seconds": 2.0}
    )
    assert not objective.has_value(LOGS)
    small = {**LOGS, "parameters": 1000, "step_seconds": 0.1}
    large = {**LOGS, "parameters": 2000, "step_seconds": 0.2}
    difference = objective.get_value(large) - objective.get_value(small)
    assert difference == pytest.approx(sign * 2.5)


def test_what_is_missing_is_named():
    objective = tuning.relative_improvement_objective(IMPROVEMENT)
    with pytest.raises(KeyError, match="val_b_mae"):
        objective.get_value({"val_a_auc": 1.0})


def test_arguments():
    with pytest.raises(ValueError, match="`direction` must be"):
        tuning.metric_objective("val_loss", "up")
    with pytest.raises(ValueError, match="`weights` must have a task"):
        tuning.weighted_loss_objective({})
    with pytest.raises(ValueError, match="`metrics` must be a list"):
        tuning.mean_metric_objective("val_loss", "min")
    with pytest.raises(ValueError, match="`baselines` must be"):
        tuning.worst_task_objective({"a_auc": 0.8})
    with pytest.raises(ValueError, match="`cost` must be"):
        tuning.weighted_loss_objective({"a": 1.0}, cost={"time": 1.0})
