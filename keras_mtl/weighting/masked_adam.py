"""Adam on a vector with one entry a task, which passes over absent tasks."""

from typing import Any

from keras import ops

from keras_mtl.weighting.weighting import Weighting


class MaskedAdam:
    """Adam whose moments and step counts are kept for each task by itself.

    $$ m \\leftarrow \\beta_1 m + (1 - \\beta_1) g, \\quad
       v \\leftarrow \\beta_2 v + (1 - \\beta_2) g^2, \\quad
       \\Delta = \\eta \\frac{m / (1 - \\beta_1^n)}
                            {\\sqrt{v / (1 - \\beta_2^n)} + \\epsilon} $$

    A task that is absent keeps its moments and its count n bit by bit.

    Args:
        weighting: The weighting that owns the state; call it in its `build`.
        learning_rate: Float, the step size.
        beta_1: Float, the decay of the first moment. Defaults to `0.9`.
        beta_2: Float, the decay of the second moment. Defaults to `0.999`.
        epsilon: Float. Defaults to `1e-8`.

    Reference:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
        https://arxiv.org/abs/1412.6980
    """

    def __init__(
        self,
        weighting: Weighting,
        learning_rate: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.momentum = weighting.add_state("adam_momentum")
        self.velocity = weighting.add_state("adam_velocity")
        self.count = weighting.add_state("adam_count")

    def step(self, gradient: Any, present: Any) -> Any:
        """Moves the state and returns what to subtract, `(T,)`: 0 where absent.

        Args:
            gradient: Float tensor of shape `(T,)`, finite.
            present: Float tensor of shape `(T,)` of zeros and ones.
        """
        here = present > 0
        momentum = ops.where(
            here,
            self.beta_1 * self.momentum + (1.0 - self.beta_1) * gradient,
            self.momentum.value,
        )
        velocity = ops.where(
            here,
            self.beta_2 * self.velocity + (1.0 - self.beta_2) * ops.square(gradient),
            self.velocity.value,
        )
        count = self.count + present
        self.momentum.assign(momentum)
        self.velocity.assign(velocity)
        self.count.assign(count)
        count = ops.maximum(count, 1.0)
        mean = momentum / (1.0 - ops.power(self.beta_1, count))
        scale = ops.sqrt(velocity / (1.0 - ops.power(self.beta_2, count)))
        return present * self.learning_rate * mean / (scale + self.epsilon)
