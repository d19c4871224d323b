"""Which blocks of a network each task uses, learned with the network."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_count, check_number
from keras_mtl.layers.sharing.sharing_layer import SharingLayer
from keras_mtl.layers.sharing.straight_through import gumbel_choice
from keras_mtl.layers.task_structure import masks_of, same_shape
from keras_mtl.layers.wrapped_layer import call_with_mask


@keras.saving.register_keras_serializable("keras_mtl")
class TaskRouting(SharingLayer):
    """Residual blocks that each task runs or skips, by a learned choice.

    $$ h_t \\leftarrow h_t + u_{tl} \\, F_l(h_t), \\qquad u_{tl} \\in \\{0, 1\\}, \\quad
       P(u_{tl} = 1) = \\sigma(a_{tl}) = \\alpha_{tl} $$

    In training u is drawn in every step, for each task and block, by the
    straight-through Gumbel-softmax: hard forwards, smooth backwards, at a temperature
    that falls with the steps. At inference a block is run if \\( a_{tl} \\ge 0 \\),
    or if it is not routed yet. Two losses are added: for few blocks, and for tasks that
    agree, in lower blocks more than in upper ones:

    $$ \\lambda_1 \\sum_{l,t} \\log \\alpha_{tl} +
       \\lambda_2 \\sum_{l=0}^{L-1} \\frac{L - l}{L}
       \\sum_{s<t} |\\alpha_{sl} - \\alpha_{tl}| $$

    The paper warms up with all blocks run (`warmup_steps`), then routes the last block
    and one more from the end every `curriculum_steps`; last it takes the best of some
    drawn policies and trains the network again with that: pass it as `policy`.

    Args:
        blocks: List of L layers or models, whose outputs are of the shape of their
            inputs.
        task_names: List of T strings.
        sparsity: Float, lambda 1. Defaults to 0.05.
        sharing: Float, lambda 2. Defaults to 0.05.
        temperature: Float, tau of the first step. Defaults to 5.
        decay: Float, what tau is multiplied with every `decay_steps`. Defaults to
            0.965.
        decay_steps: Integer. Defaults to 100.
        warmup_steps: Integer, the number of steps in which all tasks run all blocks.
            Defaults to 0.
        curriculum_steps: Integer, after how many steps one more block is routed; 0
            routes all at once. Defaults to 0.
        policy: Array `(T, L)` of booleans: which blocks each task runs. With it
            nothing is learned or drawn, no loss is added, and a block is computed for
            the tasks that run it alone. Defaults to `None`.
        seed: Seed of the draws.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        One tensor `(B, ...)`, or a dict or list with one of the same shape for each
        task.

    Output shape:
        That of the input for each task: a dict, or a list if the input is one.

    Raises:
        ValueError: If a block changes the shape, or an argument is out of range.

    Example:

    ```python
    inputs = keras.Input((16,))
    h = keras.layers.Dense(32)(inputs)
    blocks = [keras.layers.Dense(32, "relu") for _ in range(3)]
    routing = keras_mtl.layers.TaskRouting(blocks, ["a", "b"])
    outputs = {t: keras.layers.Dense(1, name=t)(x) for t, x in routing(h).items()}
    model = keras_mtl.MultiTaskModel(inputs, outputs)
    assert routing.learned_policy().shape == (2, 3)
    ```

    Reference:
        Sun et al., "AdaShare: Learning What To Share For Efficient Deep Multi-Task
        Learning", NeurIPS 2020, https://arxiv.org/abs/1911.12423
    """

    keeps_tasks_apart = True
    """With an input for each task an output is made of its own alone."""

    def __init__(
        self,
        blocks: Sequence[keras.layers.Layer],
        task_names: Sequence[str],
        sparsity: float = 0.05,
        sharing: float = 0.05,
        temperature: float = 5.0,
        decay: float = 0.965,
        decay_steps: int = 100,
        warmup_steps: int = 0,
        curriculum_steps: int = 0,
        policy: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_names, **kwargs)
        valid = isinstance(blocks, list | tuple) and len(blocks) > 0
        if not valid or not all(isinstance(b, keras.layers.Layer) for b in blocks):
            raise ValueError(
                f"`blocks` must be a list of layers. Received: blocks={blocks!r}"
            )
        self.blocks = list(blocks)
        self.sparsity = check_number("sparsity", sparsity, at_least=0)
        self.sharing = check_number("sharing", sharing, at_least=0)
        self.temperature = check_number("temperature", temperature, above=0)
        self.decay = check_number("decay", decay, above=0, at_most=1)
        self.decay_steps = check_count("decay_steps", decay_steps)
        self.warmup_steps = check_count("warmup_steps", warmup_steps, at_least=0)
        self.curriculum_steps = check_count(
            "curriculum_steps", curriculum_steps, at_least=0
        )
        self.policy = self._check_policy(policy)
        self.seed = seed
        self.seed_generator = None
        if policy is None:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.logits = None
        self.steps = None

    def build(self, input_shape: Any) -> None:
        """Builds the blocks and creates the logits `(T, L)`."""
        shape = same_shape(self.structure_of(input_shape), input_shape)
        for block in self.blocks:
            if not block.built:
                block.build(shape)
            made = tuple(block.compute_output_shape(shape))
            if made != tuple(shape):
                raise ValueError(
                    "Blocks must not change the shape, since some tasks skip them. "
                    f"Received: {block.name!r}, which makes {made} of {tuple(shape)}"
                )
        if self.policy is not None:
            return
        self.logits = self.add_weight(
            name="logits",
            shape=(self.num_tasks, len(self.blocks)),
            initializer="zeros",
            autocast=False,
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

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        """Returns what each task's blocks make of its input."""
        structure = self.structure_of(inputs)
        masks = masks_of(structure, inputs, mask)
        streams = [ops.cast(x, self.compute_dtype) for x in structure.values(inputs)]
        runs = None
        if self.policy is None:
            runs = ops.cast(self._draw(bool(training)), self.compute_dtype)
        same = structure.is_one
        for index, block in enumerate(self.blocks):
            tasks = range(self.num_tasks)
            if self.policy is not None:
                tasks = [t for t in tasks if self.policy[t][index]]
            if not tasks:
                continue
            if same:
                # All tasks still have one input, so one pass serves all.
                one = None if masks is None else masks[0]
                made = dict.fromkeys(tasks, call_with_mask(block, streams[0], one))
            else:
                of_tasks = None if masks is None else [masks[t] for t in tasks]
                made = _run([streams[t] for t in tasks], of_tasks, block)
                made = dict(zip(tasks, made, strict=True))
            same = False
            for t, y in made.items():
                y = ops.cast(y, self.compute_dtype)
                if runs is not None:
                    y = y * runs[t, index]
                streams[t] = ops.add(streams[t], y)
        return structure.nest(streams)

    def learned_policy(self) -> np.ndarray:
        """Returns which blocks `(T, L)` each task runs at inference, booleans.

        Raises:
            ValueError: If the layer is not built.
        """
        if self.policy is not None:
            return np.array(self.policy)
        if self.logits is None:
            raise ValueError(
                "The layer has no policy before it is built: call it. "
                f"Received: {self.name!r}, which is not built"
            )
        return ops.convert_to_numpy(self._inferred()) > 0

    def compute_output_shape(self, input_shape: Any) -> Any:
        """For each task that of its input."""
        structure = self.structure_of(input_shape)
        shape = same_shape(structure, input_shape)
        return structure.nest([shape] * self.num_tasks)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "blocks": [keras.saving.serialize_keras_object(b) for b in self.blocks],
            "sparsity": self.sparsity,
            "sharing": self.sharing,
            "temperature": self.temperature,
            "decay": self.decay,
            "decay_steps": self.decay_steps,
            "warmup_steps": self.warmup_steps,
            "curriculum_steps": self.curriculum_steps,
            "policy": self.policy,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TaskRouting":
        """Creates the layer, without weights, from its config."""
        blocks = [keras.saving.deserialize_keras_object(b) for b in config["blocks"]]
        return cls(**{**config, "blocks": blocks})

    def _check_policy(self, policy: Any) -> list[list[bool]] | None:
        if policy is None:
            return None
        array = np.asarray(policy)
        if array.shape != (self.num_tasks, len(self.blocks)):
            raise ValueError(
                "`policy` must have a row for each task and a column for each block, "
                f"{(self.num_tasks, len(self.blocks))}. "
                f"Received: policy of shape {array.shape}"
            )
        return array.astype(bool).tolist()

    def _draw(self, training: bool) -> Any:
        """Returns which task runs which block, and in training adds the losses."""
        if not training:
            return self._inferred()
        logits = ops.cast(self.logits, "float32")
        steps = ops.copy(self.steps)
        self.steps.assign(steps + 1)
        falling = ops.power(self.decay, ops.floor(steps / self.decay_steps))
        # A temperature of 0 is no temperature.
        temperature = ops.maximum(self.temperature * falling, 0.05)
        pairs = ops.stack([logits, ops.zeros_like(logits)], axis=-1)
        drawn = gumbel_choice(pairs, temperature, self.seed_generator)[..., 0]
        probabilities = ops.sigmoid(logits)
        routed = self._routed(steps)
        self._add_losses(logits, probabilities, routed)
        return routed * drawn + (1 - routed)

    def _inferred(self) -> Any:
        """Returns which task runs which block at inference, zeros and ones `(T, L)`.

        A block that is not routed yet is run, as in training.
        """
        chosen = ops.cast(ops.cast(self.logits, "float32") >= 0, "float32")
        routed = self._routed(ops.convert_to_tensor(self.steps))
        return routed * chosen + (1 - routed)

    def _routed(self, steps: Any) -> Any:
        """Returns 1 for the blocks `(L,)` that are routed in a step."""
        after = steps - self.warmup_steps
        if not self.curriculum_steps:
            return ops.broadcast_to(
                ops.cast(after >= 0, "float32"), (len(self.blocks),)
            )
        from_last = np.arange(len(self.blocks))[::-1].astype("float32")
        from_last = ops.convert_to_tensor(from_last)
        return ops.cast(after >= from_last * self.curriculum_steps, "float32")

    def _add_losses(self, logits: Any, probabilities: Any, routed: Any) -> None:
        if self.sparsity:
            logarithms = -ops.softplus(-logits)  # log of the sigmoid
            self.add_loss(self.sparsity * ops.sum(routed * logarithms))
        if self.sharing and self.num_tasks > 1:
            count = len(self.blocks)
            factors = np.arange(count, 0, -1).astype("float32") / count
            apart = ops.abs(
                ops.expand_dims(probabilities, 0) - ops.expand_dims(probabilities, 1)
            )
            by_block = ops.sum(apart, axis=(0, 1)) / 2
            self.add_loss(self.sharing * ops.sum(routed * factors * by_block))


def _run(
    streams: list[Any], masks: list[Any] | None, block: keras.layers.Layer
) -> list[Any]:
    """Runs a block once over the rows of several tasks."""
    mask = None if masks is None else ops.concatenate(masks, axis=0)
    made = call_with_mask(block, ops.concatenate(streams, axis=0), mask)
    return ops.split(made, len(streams), axis=0)
