"""Weights drawn anew at each step."""

import functools
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice
from keras_mtl.weighting.present_tasks import softmax_over_present
from keras_mtl.weighting.weighting import Weighting


@keras.saving.register_keras_serializable("keras_mtl")
class RandomWeighting(Weighting):
    """Weights drawn anew at each training step (RLW).

    $$ L = \\sum_k w_k L_k, \\qquad w = \\mathrm{softmax}(\\xi), \\quad
       \\xi \\sim \\mathcal N(0, I) \\quad \\text{or} \\quad
       w \\sim \\mathrm{Dirichlet}(1, \\dots, 1) $$

    The litmus test of the others: a method that does no better than random
    weights has learned nothing from the losses. The weights of the K tasks that
    are present sum to 1, so the effective learning rate is 1/K of that of
    `Equal`. In evaluation nothing is drawn: every present task has weight 1/K,
    the mean of the draws. Losses may be of any sign.

    The state of the generator is a variable of the layer, saved and restored
    with the model: a resumed run draws what the uninterrupted one would have.

    Args:
        distribution: `"normal"` (softmax of normal draws) or `"dirichlet"`
            (uniform on the simplex). Defaults to `"normal"`.
        seed: Integer, optional. Seed of the draws; by default one is drawn.
        name: String, optional. Name of the layer.

    Raises:
        ValueError: If `distribution` is unknown.

    Example:

    ```python
    weighting = keras_mtl.weighting.RandomWeighting(seed=0)
    losses = np.array([0.5, 20.0], "float32")
    _, weights = weighting(losses, training=True, return_weights=True)
    float(ops.sum(weights))  # 1.0
    ```

    Reference:
        Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test
        for Multi-Task Learning", TMLR 2022, https://arxiv.org/abs/2111.10603
    """

    def __init__(
        self, distribution: str = "normal", seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.distribution = check_choice(
            "distribution", distribution, ("normal", "dirichlet")
        )
        self.seed = seed

    def build(self, losses_shape: tuple[int, ...]) -> None:
        """Creates the state of the generator."""
        super().build(losses_shape)
        generator = keras.random.SeedGenerator(self.seed)
        # Keras does not save the state of a generator that a layer holds as an
        # attribute; it does save a variable.
        self.seed_state = generator.state
        if self.distribution == "normal":
            draw = keras.random.normal
        else:
            draw = functools.partial(keras.random.uniform, minval=1e-30)
        self._draw = functools.partial(draw, (self.num_tasks,), seed=generator)

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns random weights in training, equal ones in evaluation."""
        if not training:
            return present / ops.maximum(ops.sum(present), 1.0)
        draw = self._draw(dtype="float32")
        if self.distribution == "dirichlet":
            # Normalised exponential variables are uniform on the simplex.
            draw = ops.log(-ops.log(draw))
        return softmax_over_present(draw, present)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "distribution": self.distribution,
            "seed": self.seed,
        }
