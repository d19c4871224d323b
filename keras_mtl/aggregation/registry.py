"""Aggregators by name."""

import inspect

import keras

from keras_mtl.aggregation.aggregator import Aggregator
from keras_mtl.aggregation.aligned_mtl import AlignedMTL
from keras_mtl.aggregation.cagrad import CAGrad
from keras_mtl.aggregation.con_fig import ConFIG
from keras_mtl.aggregation.db_mtl import DBMTL
from keras_mtl.aggregation.dual_proj import DualProj
from keras_mtl.aggregation.excess_mtl import ExcessMTL
from keras_mtl.aggregation.fair_grad import FairGrad
from keras_mtl.aggregation.grad_drop import GradDrop
from keras_mtl.aggregation.grad_vac import GradVac
from keras_mtl.aggregation.imtl_g import IMTLG
from keras_mtl.aggregation.mean import Mean
from keras_mtl.aggregation.meta_balance import MetaBalance
from keras_mtl.aggregation.mgda import MGDA
from keras_mtl.aggregation.moco import MoCo
from keras_mtl.aggregation.modo import MoDo
from keras_mtl.aggregation.nash_mtl import NashMTL
from keras_mtl.aggregation.pcgrad import PCGrad
from keras_mtl.aggregation.sdm_grad import SDMGrad
from keras_mtl.aggregation.sum import Sum
from keras_mtl.aggregation.upgrad import UPGrad

# The wrappers have no names: they are nothing without what they go round.
AGGREGATORS = {
    "aligned_mtl": AlignedMTL,
    "cagrad": CAGrad,
    "con_fig": ConFIG,
    "db_mtl": DBMTL,
    "dual_proj": DualProj,
    "excess_mtl": ExcessMTL,
    "fair_grad": FairGrad,
    "grad_drop": GradDrop,
    "grad_vac": GradVac,
    "imtl_g": IMTLG,
    "mean": Mean,
    "meta_balance": MetaBalance,
    "mgda": MGDA,
    "moco": MoCo,
    "modo": MoDo,
    "nash_mtl": NashMTL,
    "pcgrad": PCGrad,
    "sdm_grad": SDMGrad,
    "sum": Sum,
    "upgrad": UPGrad,
}


def names() -> list[str]:
    """Returns the names of the aggregators that `get` knows, sorted.

    Example:

    ```python
    keras_mtl.aggregation.names()[0]  # "aligned_mtl"
    ```
    """
    return sorted(AGGREGATORS)


def get(identifier: str | dict | Aggregator) -> Aggregator:
    """Returns an aggregator by name, from its config, or as it is.

    Args:
        identifier: One of `names()`, or the name of the class, in upper or lower
            case; a dict made by `keras.saving.serialize_keras_object`; or an
            aggregator, which is returned as it is.

    Raises:
        ValueError: If the name is unknown, or if a class or anything else is given.

    Example:

    ```python
    keras_mtl.aggregation.get("cagrad").c  # 0.4
    ```
    """
    if isinstance(identifier, Aggregator):
        return identifier
    if isinstance(identifier, str):
        name = identifier.lower().replace("-", "_").replace(" ", "_")
        by_class_name = {cls.__name__.lower(): cls for cls in AGGREGATORS.values()}
        cls = AGGREGATORS.get(name) or by_class_name.get(name.replace("_", ""))
        if cls is None:
            raise ValueError(
                f"`aggregator` must be one of {names()}. "
                f"Received: aggregator={identifier!r}"
            )
        return cls()
    if isinstance(identifier, dict):
        classes = {cls.__name__: cls for cls in AGGREGATORS.values()}
        aggregator = keras.saving.deserialize_keras_object(identifier, classes)
        if isinstance(aggregator, Aggregator):
            return aggregator
    if inspect.isclass(identifier) and issubclass(identifier, Aggregator):
        raise ValueError(
            "`aggregator` must be an instance, not a class: instantiate it, "
            f"`{identifier.__name__}(...)`. Received: aggregator={identifier}"
        )
    raise ValueError(
        "`aggregator` must be a name, a config or an instance of "
        f"`keras_mtl.aggregation.Aggregator`. Received: aggregator={identifier!r}"
    )
