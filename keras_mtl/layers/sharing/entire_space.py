"""Outputs of events that follow each other, all learned from all rows."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.task_structure import (
    check_task_names,
    shape_of_each,
    shapes_of,
)


@keras.saving.register_keras_serializable("keras_mtl")
class EntireSpace(SharingLayer):
    """Probabilities of a chain of events, each given the one before (ESMM).

    $$ P(\\text{click}, \\text{conversion} \\mid x) =
       P(\\text{click} \\mid x) \\; P(\\text{conversion} \\mid \\text{click}, x) $$

    A conversion is seen only after a click: learned from clicked rows alone, its
    probability is biased towards them, and they are few. Its product with the
    probability of a click has a label on every row, "clicked and converted", so it is
    learned from the whole space, and the conversion's network with it. Give a loss to
    the first event and to the products; the conditional probability is an output
    without one, for serving.

    Args:
        task_names: List of the events in their order, each given those before: the
            keys of the inputs and of the outputs.
        joint_names: List of the keys of the products, one for each event but the
            first. Defaults to the names joined by "_and_", such as
            `"click_and_conversion"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Dict (or list) of probabilities `(B, ...)` of one shape, one for each event.

    Output shape:
        The inputs and the products `(B, ...)`: a dict, or a list with the products
        last.

    Raises:
        ValueError: If there are fewer than two events, or a name comes twice.

    Example:

    ```python
    inputs = keras.Input((16,))
    p = {
        "click": keras.layers.Dense(1, "sigmoid")(inputs),
        "conversion": keras.layers.Dense(1, "sigmoid")(inputs),
    }
    outputs = keras_mtl.layers.EntireSpace(["click", "conversion"])(p)
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    losses = dict.fromkeys(["click", "click_and_conversion"], "binary_crossentropy")
    model.compile("adam", loss=losses)
    click, bought = np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])
    y = {"click": click, "click_and_conversion": click * bought}
    history = model.fit(np.ones((4, 16)), y, verbose=0)
    ```

    Reference:
        Ma et al., "Entire Space Multi-Task Model", SIGIR 2018,
        https://arxiv.org/abs/1804.07931
    """

    def __init__(
        self,
        task_names: Sequence[str],
        joint_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        # Products of small probabilities are no numbers of half precision.
        super().__init__(
            check_task_names(task_names, at_least=2), autocast=False, **kwargs
        )
        if joint_names is None:
            joint_names = [
                "_and_".join(self.task_names[: count + 1])
                for count in range(1, self.num_tasks)
            ]
        self.joint_names = list(joint_names)
        names = [*self.task_names, *self.joint_names]
        if len(self.joint_names) != self.num_tasks - 1 or len(set(names)) < len(names):
            raise ValueError(
                "`joint_names` must hold a new name for each event but the first. "
                f"Received: task_names={self.task_names}, joint_names={joint_names}"
            )

    def build(self, input_shape: Any) -> None:
        """Checks the shapes: there is nothing to create."""
        shape_of_each(self.structure_of(input_shape), input_shape)

    def call(self, inputs: Any) -> Any:
        """Returns the inputs and the products."""
        structure = self.structure_of(inputs)
        shape_of_each(structure, shapes_of(inputs))
        given = list(map(ops.convert_to_tensor, structure.values(inputs)))
        products = [ops.cast(given[0], _at_least_float32(given[0]))]
        for probability in given[1:]:
            probability = ops.cast(probability, _at_least_float32(probability))
            products.append(ops.multiply(products[-1], probability))
        return structure.nest([*given, *products[1:]], self.joint_names)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None."""
        return None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Those of the inputs, and for each product that of the first."""
        structure = self.structure_of(input_shape)
        shape = shape_of_each(structure, input_shape)
        count = self.num_tasks + len(self.joint_names)
        return structure.nest([shape] * count, self.joint_names)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Checks the inputs and returns the specs of the outputs."""
        structure = self.structure_of(inputs)
        shape = shape_of_each(structure, shapes_of(inputs))
        given = structure.values(inputs)
        dtypes = [p.dtype for p in given]
        dtypes += [_at_least_float32(*given[: n + 1]) for n in range(1, len(given))]
        specs = [keras.KerasTensor(shape, dtype=dtype) for dtype in dtypes]
        return structure.nest(specs, self.joint_names)

    def inputs_behind(self, inputs: Any, index: int) -> list[int]:
        """Returns the places of the inputs that an output is made of."""
        kind = self.structure_of(inputs).kind
        names = self.task_names if kind == "list" else sorted(self.task_names)
        output = self.output_names(inputs)[index]
        events = [output]
        if output in self.joint_names:
            events = self.task_names[: self.joint_names.index(output) + 2]
        return [names.index(event) for event in events]

    def output_names(self, inputs: Any) -> list[str]:
        """Returns the keys of the outputs in the order that Keras flattens them in."""
        names = [*self.task_names, *self.joint_names]
        return names if self.structure_of(inputs).kind == "list" else sorted(names)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "joint_names": self.joint_names}


def _at_least_float32(*tensors: Any) -> str:
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in tensors]
    return keras.backend.result_type("float32", *dtypes)
