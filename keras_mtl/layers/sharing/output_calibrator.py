"""A penalty for probabilities that contradict the order of events."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_number
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.task_structure import (
    check_task_names,
    shape_of_each,
    shapes_of,
)


@keras.saving.register_keras_serializable("keras_mtl")
class OutputCalibrator(SharingLayer):
    """Penalises a later event that is more probable than the one it follows (AITM).

    $$ \\frac{\\lambda}{B} \\sum_b \\sum_t
       \\max(\\hat y_{b,t+1} - \\hat y_{b,t}, 0) $$

    Its outputs are its inputs. Here each probability is that of the event itself, such
    as "impression, click, application, approval", not one given the event before; for
    those see `EntireSpace`, whose products are in order by themselves.

    Args:
        task_names: List of the events in their order.
        weight: Float, the factor of the penalty. Defaults to 0.6.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Dict (or list) of probabilities `(B, ...)` of one shape, one for each event.

    Output shape:
        As the input.

    Raises:
        ValueError: If there are fewer than two events.

    Example:

    ```python
    inputs = keras.Input((16,))
    p = {
        "click": keras.layers.Dense(1, "sigmoid")(inputs),
        "purchase": keras.layers.Dense(1, "sigmoid")(inputs),
    }
    outputs = keras_mtl.layers.OutputCalibrator(["click", "purchase"])(p)
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    ```

    Reference:
        Xi et al., "Modeling the Sequential Dependence among Audience Multi-step
        Conversions with Multi-task Learning in Targeted Display Advertising" (AITM),
        KDD 2021, https://arxiv.org/abs/2105.08489
    """

    keeps_tasks_apart = True
    """With an input for each task an output is made of its own alone."""

    def __init__(
        self, task_names: Sequence[str], weight: float = 0.6, **kwargs: Any
    ) -> None:
        # The outputs are the inputs, to the last digit.
        super().__init__(
            check_task_names(task_names, at_least=2), autocast=False, **kwargs
        )
        self.weight = check_number("weight", weight, at_least=0)

    def build(self, input_shape: Any) -> None:
        """Checks the shapes: there is nothing to create."""
        shape_of_each(self.structure_of(input_shape), input_shape)

    def call(self, inputs: Any) -> Any:
        """Returns the inputs, and adds the penalty."""
        structure = self.structure_of(inputs)
        shape_of_each(structure, shapes_of(inputs))
        given = list(map(ops.convert_to_tensor, structure.values(inputs)))
        in_float32 = [ops.cast(p, "float32") for p in given]
        for before, after in itertools.pairwise(in_float32):
            self.add_loss(self.weight * ops.mean(ops.relu(after - before)))
        return structure.nest(given)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Those of the inputs."""
        structure = self.structure_of(input_shape)
        shape = shape_of_each(structure, input_shape)
        return structure.nest([shape] * self.num_tasks)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Checks the inputs and returns the specs of the outputs."""
        structure = self.structure_of(inputs)
        shape = shape_of_each(structure, shapes_of(inputs))
        specs = [
            keras.KerasTensor(shape, dtype=p.dtype) for p in structure.values(inputs)
        ]
        return structure.nest(specs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "weight": self.weight}
