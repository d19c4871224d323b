"""The training step of the backend in use: the only backend-specific code.

Each backend's module has a mixin `TrainStep` for the model, `num_replicas()`,
`sum_over_replicas(tensor)`, `snapshot(tensor)` and `copy_of(tensor)`.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_mtl.engine.tensorflow import (
        TrainStep,
        copy_of,
        num_replicas,
        snapshot,
        sum_over_replicas,
    )
elif keras.backend.backend() == "jax":
    from keras_mtl.engine.jax import (
        TrainStep,
        num_replicas,
        snapshot,
        sum_over_replicas,
    )
    from keras_mtl.engine.jax_forward import copy_of
elif keras.backend.backend() == "torch":
    from keras_mtl.engine.torch import (
        TrainStep,
        copy_of,
        num_replicas,
        snapshot,
        sum_over_replicas,
    )
else:
    raise ImportError(
        "keras_mtl trains on the Keras backends 'tensorflow', 'jax' and 'torch'. "
        f"Received: KERAS_BACKEND={keras.backend.backend()!r}"
    )

__all__ = [
    "TrainStep",
    "copy_of",
    "num_replicas",
    "snapshot",
    "sum_over_replicas",
]
