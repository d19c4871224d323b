"""The sum of the task losses."""

from typing import Any

import keras
from keras import ops

from keras_mtl.weighting.weighting import Weighting


@keras.saving.register_keras_serializable("keras_mtl")
class Equal(Weighting):
    """The sum of the task losses: every weight is 1.

    $$ L = \\sum_k L_k $$

    The convention of the whole package is the sum, not the mean: a task more
    adds its gradient and leaves those of the others as they are. Of libraries
    that take the mean, the learning rate is T times as large.

    Set against equal weights with well chosen regularisation and learning rate
    (and against weights found by search), the adaptive methods often gain
    little: see the references before leaving this one. It has no state, and
    losses may be of any sign.

    Args:
        name: String, optional. Name of the layer.

    Example:

    ```python
    weighting = keras_mtl.weighting.Equal()
    weighting(np.array([0.5, 20.0], "float32"))  # [0.5, 20.0]
    ```

    Reference:
        - Kurin et al., "In Defense of the Unitary Scalarization for Deep
          Multi-Task Learning", NeurIPS 2022, https://arxiv.org/abs/2201.04122
        - Xin et al., "Do Current Multi-Task Optimization Methods in Deep
          Learning Even Help?", NeurIPS 2022, https://arxiv.org/abs/2209.11379
        - Royer et al., "Scalarization for Multi-Task and Multi-Domain Learning
          at Scale", NeurIPS 2023, https://arxiv.org/abs/2310.08910
    """

    def task_weights(self, losses: Any, present: Any, training: bool) -> Any:
        """Returns ones."""
        return ops.ones_like(losses)
