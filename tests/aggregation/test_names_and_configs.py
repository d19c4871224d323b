"""Aggregators by name, from configs, and what is refused."""

import keras
import numpy as np
import pytest

from keras_mtl import aggregation


def test_names_are_sorted_and_make_an_aggregator_each():
    assert aggregation.names() == sorted(aggregation.names())
    for name in aggregation.names():
        assert isinstance(aggregation.get(name), aggregation.Aggregator)


@pytest.mark.parametrize("name", ["PCGrad", "pcgrad", "nash-mtl", "NashMTL", "IMTLG"])
def test_names_of_classes_are_names_too(name):
    made = aggregation.get(name)
    assert type(made).__name__.lower() == name.lower().replace("-", "")


def test_an_instance_is_returned_as_it_is():
    aggregator = aggregation.CAGrad(c=0.2)
    assert aggregation.get(aggregator) is aggregator


@pytest.mark.parametrize("given", ["pc_grads", 3, aggregation.MGDA, None])
def test_anything_else_is_refused(given):
    with pytest.raises(ValueError, match="`aggregator` must be"):
        aggregation.get(given)


ARGUMENTS = {
    "aligned_mtl": {"scale": "rmse"},
    "cagrad": {"c": 0.2, "rescale": "linear"},
    "db_mtl": {"beta": 0.5, "decay": 0.1, "epsilon": 1e-6},
    "dual_proj": {"regularization": 1e-3},
    "excess_mtl": {"learning_rate": 0.5, "warmup_steps": 2, "epsilon": 1e-6},
    "fair_grad": {"alpha": 2.0},
    "grad_drop": {"leak": 0.25, "seed": 3},
    "grad_vac": {"beta": 0.5, "seed": 3},
    "meta_balance": {"main_task": 1, "relaxation": 0.5, "beta": 0.5},
    "moco": {"beta": 0.2, "learning_rate": 0.3, "decay": 0.1, "regularization": 0.4},
    "modo": {"learning_rate": 0.2, "regularization": 0.3},
    "nash_mtl": {"max_norm": 2.0},
    "pcgrad": {"seed": 3},
    "sdm_grad": {"regularization": 0.5},
    "upgrad": {"regularization": 1e-3},
}


@pytest.mark.parametrize("name", aggregation.names())
def test_configs_keep_every_argument(name):
    arguments = ARGUMENTS.get(name, {})
    made = type(aggregation.get(name))(**arguments)
    again = aggregation.get(keras.saving.serialize_keras_object(made))
    assert type(again) is type(made)
    for argument, value in arguments.items():
        assert getattr(again, argument) == value
    assert again.get_config() == made.get_config()


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        ("AlignedMTL", {"scale": "max"}),
        ("CAGrad", {"c": -0.1}),
        ("CAGrad", {"rescale": 1}),
        ("DBMTL", {"beta": 1.0}),
        ("DualProj", {"regularization": 0.0}),
        ("ExcessMTL", {"warmup_steps": -1}),
        ("FairGrad", {"alpha": 0.0}),
        ("GradDrop", {"leak": 1.5}),
        ("GradVac", {"beta": 0.0}),
        ("MetaBalance", {"main_task": 1.5}),
        ("MoCo", {"beta": 2.0}),
        ("MoDo", {"learning_rate": 0.0}),
        ("NashMTL", {"max_norm": float("nan")}),
        ("SDMGrad", {"regularization": -1.0}),
        ("UPGrad", {"regularization": -1.0}),
        ("EveryKSteps", {"aggregator": "mgda", "k": 0}),
        ("GradientNormalization", {"aggregator": "mgda", "mode": "l1"}),
        ("WeightAveraging", {"aggregator": "mgda", "momentum": 1.0}),
        ("WeightAveraging", {"aggregator": "grad_drop"}),
        ("EveryKSteps", {"aggregator": "moco", "k": 2}),
    ],
)
def test_arguments_out_of_range(cls, arguments):
    with pytest.raises(ValueError, match="Received: "):
        getattr(aggregation, cls)(**arguments)


def test_shapes():
    aggregator = aggregation.MGDA()
    with pytest.raises(ValueError, match="`gramian` must be square"):
        aggregator.weights(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"`jacobian` must have the static shape"):
        aggregation.MGDA()(np.zeros(3))
    aggregator.weights(np.eye(2))
    with pytest.raises(ValueError, match="as when the aggregator was built"):
        aggregator.weights(np.eye(3))
    with pytest.raises(ValueError, match="`present` must have the shape"):
        aggregator.weights(np.eye(2), present=np.ones(3))
    with pytest.raises(ValueError, match="`losses` must have the shape"):
        aggregator.weights(np.eye(2), losses=np.ones(3))


def test_losses_that_are_needed():
    with pytest.raises(ValueError, match="DBMTL needs `losses`"):
        aggregation.DBMTL()(np.eye(2))
    wrapped = aggregation.GradientNormalization("mgda", "loss")
    with pytest.raises(ValueError, match="needs `losses`"):
        wrapped.weights(np.eye(2))


def test_a_main_task_that_there_is_not():
    for main in (2, -1, "income"):
        with pytest.raises(ValueError, match="`main_task` must be a task"):
            aggregation.MetaBalance(main)(np.eye(2))
    aggregator = aggregation.MetaBalance("b")
    aggregator.set_task_names(["a", "b"])
    aggregator(np.eye(2))
