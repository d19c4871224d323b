"""How alike the representations of two networks are."""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_mtl.argument_checks import check_count
from keras_mtl.engine.packing import exchanged
from keras_mtl.models import MultiTaskModel


def linear_cka(x: Any, y: Any) -> float:
    """Returns the linear centred kernel alignment of two representations.

    $$ \\text{CKA}(X, Y) = \\frac{|X_c^T Y_c|_F^2}{|X_c^T X_c|_F \\, |Y_c^T Y_c|_F} $$

    of the same rows, with features centred: 1 where one is the other but for a
    rotation, a shift and a factor, 0 where nothing of one is a linear function of the
    other.

    Args:
        x: Features `(rows, ...)`, flattened.
        y: Features of the same rows, not necessarily as many.

    Returns:
        A float from 0 to 1; NaN if one of them is the same for all rows.

    Raises:
        ValueError: If rows differ, or there are fewer than 2.

    Example:

    ```python
    x = np.random.default_rng(0).normal(size=(50, 3))
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    print(round(keras_mtl.analysis.linear_cka(x, 5 * x @ rotation + 1), 6))  # 1.0
    ```

    Reference:
        Kornblith et al., "Similarity of Neural Network Representations Revisited",
        ICML 2019, https://arxiv.org/abs/1905.00414
    """
    first, second = (np.asarray(each, "float64") for each in (x, y))
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            "`x` and `y` must be of the same rows, 2 or more. "
            f"Received: shapes {first.shape} and {second.shape}"
        )
    return alignment(_centred_kernel(first), _centred_kernel(second))


def alignment(kernel: np.ndarray, other: np.ndarray) -> float:
    """Returns the cosine of two centred kernels `(rows, rows)`, as vectors."""
    norms = np.linalg.norm(kernel) * np.linalg.norm(other)
    return float((kernel * other).sum() / norms) if norms > 0 else float("nan")


def centred_kernels(model: MultiTaskModel, x: Any, rows: int) -> dict[str, np.ndarray]:
    """Returns the centred kernels of what the layers of a model make of some rows.

    Of each layer with variables that is called once and returns one tensor, in order.

    Args:
        model: The model.
        x: Inputs, of which the first rows are taken: arrays, or a dataset of batches.
        rows: Integer, how many at most.

    Returns:
        Dict of `kernel_<i>` `(rows, rows)`, float32, each scaled to a norm of 1.
    """
    check_count("rows", rows, at_least=2)
    x = first_rows_of(x, rows)
    found: dict[int, list[Any]] = {}
    layers = [layer for layer in _innermost(model) if layer.weights]

    def noting(place: int, call: Any) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            found.setdefault(place, []).append(output)
            return output

        return note

    with contextlib.ExitStack() as stack:
        for place, layer in enumerate(layers):
            note = noting(place, layer.call)
            stack.enter_context(exchanged(layer, "call", note))
        model(x, training=False)
    kernels = {}
    for place in range(len(layers)):
        outputs = found.get(place, [])
        if len(outputs) != 1 or keras.tree.is_nested(outputs[0]):
            continue
        features = keras.ops.convert_to_numpy(keras.ops.stop_gradient(outputs[0]))
        kernel = _centred_kernel(features.astype("float64"))
        norm = np.linalg.norm(kernel)
        kernels[f"kernel_{place}"] = (kernel / (norm or 1)).astype("float32")
    return kernels


def first_rows_of(x: Any, rows: int) -> Any:
    """Returns the first rows of inputs.

    Args:
        x: Arrays, or a dataset of batches `(x, ...)`.
        rows: Integer, how many at most.
    """
    if isinstance(x, keras.utils.PyDataset):
        x = x[0][0]
    elif hasattr(x, "element_spec"):
        x = next(iter(x))[0]
    return keras.tree.map_structure(
        lambda each: keras.ops.convert_to_tensor(each[:rows]), x
    )


def _innermost(model: MultiTaskModel) -> list[keras.layers.Layer]:
    """Returns the layers in which variables are, from the input on."""
    of_layers = [use.layer for use in model._layer_uses()]
    found: dict[int, keras.layers.Layer] = {}
    for layer in of_layers:
        for part in layer._flatten_layers():
            inner = [p for p in part._flatten_layers(include_self=False) if p.weights]
            if not inner:
                found.setdefault(id(part), part)
    return list(found.values())


def _centred_kernel(features: np.ndarray) -> np.ndarray:
    features = features.reshape(len(features), -1)
    features = features - features.mean(axis=0)
    return features @ features.T
