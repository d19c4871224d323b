"""A tree of layers whose branches are learned."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.independent_initializers import independent_initializers
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.sharing.straight_through import (
    gumbel_choice,
    one_hot_of_largest,
)
from keras_mtl.layers.stacked_dense import StackedDense
from keras_mtl.layers.task_structure import same_shape


@keras.saving.register_keras_serializable("keras_mtl")
class LearningToBranch(SharingLayer):
    """Levels of layers side by side, each of which picks its parent (LTB).

    $$ x_c = \\sum_p d_{cp} \\, f_p(x_p), \\qquad d_c = \\mathrm{onehot}, \\quad
       P(d_{cp} = 1) = \\mathrm{softmax}(a_c)_p $$

    Every level has `width` dense layers of one shape. Each layer of the next level,
    and at the end each task, picks one of them as its parent, in training by the
    straight-through Gumbel-softmax at a falling temperature, at inference the most
    probable. Tasks that pick the same parents share them: what is left is a tree, from
    hard sharing (all pick one) to independent networks.

    In the first `warmup_steps` the parents are averaged, at inference too, so that all
    are trained before a choice is made.

    Args:
        task_names: List of T strings.
        units: List of integers, the size of the layers of each level.
        width: Integer, the number of layers of a level. Defaults to `None`, T.
        activation: Activation of the layers. Defaults to `"relu"`.
        use_bias: Boolean, whether they have biases. Defaults to `True`.
        temperature: Float, tau of the first step. Defaults to 5.
        anneal_steps: Integer: tau is `temperature / sqrt(1 + steps / anneal_steps)`.
            Defaults to 100.
        warmup_steps: Integer, the number of steps in which parents are averaged.
            Defaults to 0.
        kernel_initializer: Initializer of the kernel of one layer. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of its bias. Defaults to `"zeros"`.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        seed: Seed of the draws.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ..., D)`; or a dict or list with one of the same shape for each
        task, which the first level has a layer for each of.

    Output shape:
        `(B, ..., units[-1])` for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If there is no level, or an argument is out of range.

    Example:

    ```python
    inputs = keras.Input((16,))
    branching = keras_mtl.layers.LearningToBranch(["a", "b", "c"], units=[32, 16])
    h = branching(inputs)
    outputs = {t: keras.layers.Dense(1, name=t)(x) for t, x in h.items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    parents = branching.branches()
    assert [len(level) for level in parents] == [3, 3]  # of level 1, and of the tasks
    ```

    Reference:
        Guo et al., "Learning to Branch for Multi-Task Learning", ICML 2020,
        https://arxiv.org/abs/2006.01895
    """

    def __init__(
        self,
        task_names: Sequence[str],
        units: Sequence[int],
        width: int | None = None,
        activation: Any = "relu",
        use_bias: bool = True,
        temperature: float = 5.0,
        anneal_steps: int = 100,
        warmup_steps: int = 0,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        if isinstance(units, int) or not units:
            raise ValueError(
                "`units` must be a list with the size of each level. "
                f"Received: units={units!r}"
            )
        self.units = tuple(check_count("units", size) for size in units)
        self.width = None if width is None else check_count("width", width)
        self.temperature = check_number("temperature", temperature, above=0)
        self.anneal_steps = check_count("anneal_steps", anneal_steps)
        self.warmup_steps = check_count("warmup_steps", warmup_steps, at_least=0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.levels = [
            StackedDense(
                width or self.num_tasks,
                (size,),
                activation,
                use_bias=use_bias,
                kernel_initializer=initializer,
                bias_initializer=bias_initializer,
                kernel_regularizer=kernel_regularizer,
                dtype=self.dtype_policy,
                name=f"{self.name}_level_{level}",
            )
            for level, (size, initializer) in enumerate(
                zip(
                    self.units,
                    independent_initializers(self.kernel_initializer, len(self.units)),
                    strict=True,
                )
            )
        ]
        self.logits = []
        self.steps = None

    def build(self, input_shape: Any) -> None:
        """Creates the levels, and for each the logits of its children."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape)
        if not structure.is_one and self.levels[0].num_stacks != self.num_tasks:
            raise ValueError(
                "With an input for each task the first level has a layer for each: "
                f"`width` must be {self.num_tasks}. Received: width={self.width}"
            )
        for depth, level in enumerate(self.levels):
            if not level.built:
                level.build(shape)
            shape = (*shape[:-1], self.units[depth])
            last = depth == len(self.levels) - 1
            children = self.num_tasks if last else level.num_stacks
            self.logits.append(
                self.add_weight(
                    name=f"logits_{depth}",
                    shape=(children, level.num_stacks),
                    initializer="zeros",
                    autocast=False,
                )
            )
        self.steps = self.add_weight(
            name="steps",
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the output of the parent of each task."""
        structure = self.structure_of(inputs)
        repeated = not structure.is_one
        x = ops.stack(structure.values(inputs)) if repeated else inputs
        steps = ops.copy(self.steps)
        if training:
            self.steps.assign(steps + 1)
        for level, logits in zip(self.levels, self.logits, strict=True):
            h = ops.moveaxis(level(x, repeated=repeated), -2, 0)  # (width, B, ..., n)
            shape = ops.shape(h)
            choice = self._choice(logits, steps, bool(training))
            x = ops.matmul(choice, ops.reshape(h, (shape[0], -1)))
            x = ops.reshape(x, (choice.shape[0], *shape[1:]))
            repeated = True
        return structure.nest(ops.unstack(x, self.num_tasks))

    def branches(self) -> list[np.ndarray]:
        """Returns for each level which of its layers the children pick at inference.

        The children of the last level are the tasks.

        Raises:
            ValueError: If the layer is not built.
        """
        if not self.logits:
            raise ValueError(
                "The layer has no branches before it is built: call it. "
                f"Received: {self.name!r}, which is not built"
            )
        return [
            np.argmax(ops.convert_to_numpy(logits), axis=-1) for logits in self.logits
        ]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of its input, with the last of `units` as last axis."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape)
        return structure.nest([(*shape[:-1], self.units[-1])] * self.num_tasks)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        dense = self.levels[0].get_dense_config()
        del dense["hidden_activation"]
        return {
            **super().get_config(),
            **dense,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "units": self.units,
            "width": self.width,
            "temperature": self.temperature,
            "anneal_steps": self.anneal_steps,
            "warmup_steps": self.warmup_steps,
            "seed": self.seed,
        }

    def _choice(self, logits: Any, steps: Any, training: bool) -> Any:
        """Returns how much of each parent a child has, `(children, parents)`."""
        logits = ops.cast(logits, "float32")
        if training:
            temperature = self.temperature / ops.sqrt(1 + steps / self.anneal_steps)
            drawn = gumbel_choice(logits, temperature, self.seed_generator)
        else:
            drawn = one_hot_of_largest(logits)
        average = ops.ones_like(drawn) / drawn.shape[-1]
        warm = ops.cast(steps < self.warmup_steps, "float32")
        return ops.cast(warm * average + (1 - warm) * drawn, self.compute_dtype)
