"""Weights of experts for each task: what all gates have in common."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.independent_initializers import with_seeds_of_its_own


class Gate(keras.layers.Layer):
    """Base of gates: layers that weigh E experts for each of T tasks.

    A subclass gives the weights in `compute_weights`; the base drops some of them in
    training and keeps two figures by which a collapsed gate is seen, both of the last
    batch of training, as non-trainable weights:

    - `utilization` `(T, E)`: the mean weight of each expert, 1 / E if all are used
      alike, and 1 for the one expert that a collapsed gate is left with;
    - `entropy` `(T,)`: the mean entropy of the weights of a row, in units of that of
      equal weights: 1 if a row uses all experts alike, 0 if it uses one.

    A low entropy with an even utilization is no collapse: rows use different experts.

    Args:
        dropout: Float, the part of the weights that is set to zero in training; the
            others of the row are scaled to the same sum. If none is left, all stay.
            Defaults to 0.
        load_balance: Float, the factor of a loss that is 1 if all experts are used
            alike and E if one takes all: `E * sum_e share_e * mean_weight_e`, the mean
            over tasks, where `share_e` is the part of the rows whose largest weight
            expert e has. Defaults to 0.
        seed: Seed of the dropout.
        num_experts: Integer, E. The layer that a gate is given to sets it.
        task_names: List of T strings. The layer that a gate is given to sets it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(B, ..., D)`, or with `repeated` `(T, B, ..., D)`, an input for each task.

    Output shape:
        `(B, ..., T, E)`.

    Reference:
        Zhao et al., "Recommending What Video to Watch Next", RecSys 2019,
        https://doi.org/10.1145/3298689.3346997 (dropout of gates); Fedus et al.,
        "Switch Transformers", JMLR 23, 2022, https://arxiv.org/abs/2101.03961 (load
        balance)
    """

    stacked_by_task = True
    """Axis 0 of every variable runs over the tasks."""

    sums_to_one = True
    """Whether the weights of a row and task do."""

    def __init__(
        self,
        dropout: float = 0.0,
        load_balance: float = 0.0,
        seed: int | None = None,
        num_experts: int | None = None,
        task_names: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dropout = check_number("dropout", dropout, at_least=0)
        if self.dropout >= 1:
            raise ValueError(
                f"`dropout` must be less than 1. Received: dropout={dropout}"
            )
        self.load_balance = check_number("load_balance", load_balance, at_least=0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if dropout else None
        self.num_experts = num_experts
        self.task_names = None if task_names is None else list(task_names)
        self.utilization = None
        self.entropy = None
        self.supports_masking = True

    @property
    def num_tasks(self) -> int:
        """Number of tasks, T."""
        return len(self.task_names)

    def set_size(self, num_experts: int, task_names: Any) -> None:
        """Says how many experts there are, and for which tasks.

        Raises:
            ValueError: If the gate already has another size, as one that is given to
                two layers has.
        """
        found = num_experts, list(task_names)
        for name, value in zip(("num_experts", "task_names"), found, strict=True):
            known = getattr(self, name)
            if known is not None and known != value:
                raise ValueError(
                    f"`gate` is for {name}={known}, but the layer has {value}. Give "
                    f"every layer a gate of its own. Received: gate={self!r}"
                )
        self.num_experts, self.task_names = found

    def copy(self, name: str, place: int) -> "Gate":
        """Returns a new gate with the same arguments, without a size.

        Args:
            name: Its name.
            place: Which copy it is. Integer seeds are other ones at each place but 0.
        """
        own = {"num_experts": None, "task_names": None, "name": name}
        config = with_seeds_of_its_own(self.get_config(), place)
        return type(self).from_config({**config, **own})

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights that keep utilization and entropy."""
        if self.num_experts is None or self.task_names is None:
            raise ValueError(
                "A gate by itself needs `num_experts` and `task_names`. "
                f"Received: num_experts={self.num_experts}, "
                f"task_names={self.task_names}"
            )
        check_count("num_experts", self.num_experts)
        shape = (self.num_tasks, self.num_experts)
        self.utilization = self.add_weight(
            name="utilization",
            shape=shape,
            initializer=keras.initializers.Constant(1 / self.num_experts),
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",
        )
        self.entropy = self.add_weight(
            name="entropy",
            shape=shape[:1],
            initializer="ones",
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",
        )

    def compute_weights(
        self, inputs: Any, repeated: bool, training: bool, keep: Any
    ) -> Any:
        """Returns the weights `(B, ..., T, E)` in float32, none of them negative.

        Args:
            inputs: What the gates read.
            repeated: Whether axis 0 of `inputs` runs over the tasks.
            training: Whether the model is trained.
            keep: Booleans `(B, ..., T, E)`, which weights are not dropped, or `None`.
                Those of a row that are kept have the sum that all would have.
        """
        raise NotImplementedError

    def call(
        self,
        inputs: Any,
        repeated: bool = False,
        mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Returns the weights of the experts, `(B, ..., T, E)`.

        Args:
            inputs: What the gates read.
            repeated: Whether axis 0 of `inputs` runs over the tasks.
            mask: Booleans `(B, ...)`, or with `repeated` `(B, ..., T)`: the positions
                that count in utilization, entropy and load balance. Optional.
            training: Whether weights are dropped, and utilization and entropy kept.
        """
        keep = None
        if training and self.dropout:
            rows = ops.shape(inputs)[1 if repeated else 0 : -1]
            drawn = keras.random.uniform(
                (*rows, self.num_tasks, self.num_experts), seed=self.seed_generator
            )
            keep = drawn >= self.dropout
        weights = self.compute_weights(inputs, repeated, bool(training), keep)
        if training:
            self._watch(weights, self._parts_of_mean(mask, repeated))
        return ops.cast(weights, self.compute_dtype)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of one input, with tasks and experts as last axes."""
        return (*input_shape[:-1], self.num_tasks, self.num_experts)

    def compute_output_spec(
        self,
        inputs: Any,
        repeated: bool = False,
        mask: Any = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Returns the spec of the weights."""
        shape = tuple(inputs.shape)[1:] if repeated else tuple(inputs.shape)
        return keras.KerasTensor(
            self.compute_output_shape(shape), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "dropout": self.dropout,
            "load_balance": self.load_balance,
            "seed": self.seed,
            "num_experts": self.num_experts,
            "task_names": self.task_names,
        }

    def _parts_of_mean(self, mask: Any, repeated: bool) -> Any:
        """Returns what each row `(rows, T or 1, 1)` has of a mean, or None for all."""
        if mask is None:
            return None
        rows = ops.cast(mask, "float32")
        rows = ops.reshape(rows, (-1, self.num_tasks if repeated else 1, 1))
        return rows / ops.maximum(ops.sum(rows, axis=0), 1.0)

    def _watch(self, weights: Any, parts: Any) -> None:
        """Keeps utilization and entropy, and adds the loss of the load balance."""
        weights = ops.reshape(weights, (-1, self.num_tasks, self.num_experts))

        def mean(x):
            return ops.mean(x, axis=0) if parts is None else ops.sum(parts * x, axis=0)

        if self.load_balance:
            largest = ops.one_hot(ops.argmax(weights, axis=-1), self.num_experts)
            shares = ops.stop_gradient(mean(ops.cast(largest, "float32")))
            imbalance = ops.mean(ops.sum(shares * mean(weights), axis=-1))
            self.add_loss(self.load_balance * self.num_experts * imbalance)
        # Few operations: they are in every step, for whoever looks at them.
        weights = ops.stop_gradient(weights)
        self.utilization.assign(mean(weights))
        if self.num_experts > 1:
            if not self.sums_to_one:
                total = ops.sum(weights, axis=-1, keepdims=True)
                weights = weights / ops.maximum(total, keras.config.epsilon())
            logarithms = ops.log(ops.maximum(weights, 1e-30))
            entropies = ops.sum(mean(weights * logarithms), axis=-1)
            self.entropy.assign(entropies * (-1 / math.log(self.num_experts)))


def get_gate(gate: Any) -> Gate:
    """Returns a gate, by default one of `SoftmaxGate`.

    Raises:
        ValueError: If it is no gate.
    """
    from keras_mtl.layers.sharing.softmax_gate import SoftmaxGate

    if gate is None:
        return SoftmaxGate()
    if not isinstance(gate, Gate):
        raise ValueError(
            "`gate` must be a gate, such as keras_mtl.layers.SoftmaxGate() or "
            f"DSelectK(k=2). Received: gate={gate!r}"
        )
    return gate
