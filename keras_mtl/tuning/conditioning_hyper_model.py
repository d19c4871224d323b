"""A Keras Tuner hypermodel that searches for where and how a network is conditioned."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mtl.argument_checks import check_count
from keras_mtl.layers import TaskEmbedding
from keras_mtl.tuning.hyperparameters import choose
from keras_mtl.tuning.recorded_hyper_model import (
    RecordedHyperModel,
    call_with,
    of_its_own,
)
from keras_mtl.tuning.training_choices import (
    CONDITIONING,
    NONE,
    check_ways,
    choose_conditioning,
)
from keras_mtl.tuning.width import with_width

ONE_HOT = "one_hot"


class ConditioningHyperModel(RecordedHyperModel):
    """Builds networks with one output that are told the task, and trains them.

    $$ y = h(b_n(\\dots b_1(x \\mid z_i) \\dots \\mid z_i) \\mid z_i) $$

    Before each block, and before the head, the features are conditioned on the task
    descriptor $z_i$ or not, in any of the ways of `choose_conditioning`: by the
    hyperparameters `"conditioning_0"` to `"conditioning_<number of blocks>"`.

    An ordinary `keras_tuner.HyperModel`: any tuner takes it.

    Args:
        inputs: Dict by name of `keras.Input`s, one of which says the task: such as
            `{"x": ..., "task": ...}`, the inputs of a `data.TaskMixture` with
            `layout="task_index"`.
        blocks: List of functions of hyperparameters that return a layer, or of layers:
            the network from input to head.
        head: Function that returns a layer, or a layer.
        loss: As in `keras.Model.compile`.
        metrics: As in `keras.Model.compile`. Defaults to none.
        task: Name of the input that says the task. Defaults to `"task"`.
        num_tasks: Integer, where that input is the index of a task or one-hot. Defaults
            to `None`: it is a raw descriptor.
        embedding_dim: List of sizes of a learned vector for each task, by the
            hyperparameter `"embedding_dim"`, of which `"one_hot"` is the one-hot form
            itself. For `num_tasks`. Defaults to `["one_hot"]`.
        how: List of ways, see `choose_conditioning`. Defaults to all.
        places: List of numbers of blocks before which a choice is made, the number of
            blocks for the head. Defaults to all of them.
        stem: Layer, which is copied, or function, from the dict of the other inputs (of
            one input: from its tensor) to the tensor that the first block reads.
            Defaults to `None`, for one input.
        width: As in `SharingHyperModel`.
        max_parameters: As in `SharingHyperModel`.
        optimizer: As in `SharingHyperModel`.
        sampling: As in `SharingHyperModel`.
        stop_hopeless_after: As in `SharingHyperModel`.
        compile_arguments: Dict of further arguments of `keras.Model.compile`.
        name: String, optional. Name of the hypermodel.

    Raises:
        ValueError: If an argument is out of range, at once.

    Example:

    ```python
    import keras_tuner

    space = keras_mtl.tuning.ConditioningHyperModel(
        {"x": keras.Input((8,)), "task": keras.Input((), dtype="int32")},
        blocks=[lambda: keras.layers.Dense(16, "relu")] * 2,
        head=lambda: keras.layers.Dense(1),
        loss="mse",
        num_tasks=3,
        embedding_dim=["one_hot", 4],
    )
    model = space.build(keras_tuner.HyperParameters())
    x = {"x": np.zeros((2, 8)), "task": np.array([0, 2])}
    assert model(x).shape == (2, 1)
    ```
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        blocks: Sequence[Any],
        head: Any,
        loss: Any,
        metrics: Any = None,
        task: str = "task",
        num_tasks: int | None = None,
        embedding_dim: Sequence[int | str] = (ONE_HOT,),
        how: Sequence[str] = tuple(CONDITIONING),
        places: Sequence[int] | None = None,
        stem: Callable[[Any], Any] | None = None,
        width: Sequence[float] = (1.0,),
        max_parameters: int | None = None,
        optimizer: Callable[[Any], Any] | None = None,
        sampling: Sequence[str | float] | None = None,
        stop_hopeless_after: int | None = None,
        compile_arguments: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            blocks,
            width,
            max_parameters,
            optimizer,
            sampling,
            stop_hopeless_after,
            compile_arguments,
            name,
        )
        if not isinstance(inputs, Mapping) or task not in inputs or len(inputs) < 2:
            raise ValueError(
                f"`inputs` must be a dict with the task's input, {task!r}, and others. "
                f"Received: inputs={inputs!r}"
            )
        if len(inputs) > 2 and stem is None:
            raise ValueError(
                "The first block reads one tensor: give a `stem` that makes it of "
                f"several inputs. Received: inputs {sorted(inputs)}"
            )
        if not embedding_dim or isinstance(embedding_dim, str):
            raise ValueError(
                "`embedding_dim` must be a list of integers and 'one_hot'. "
                f"Received: embedding_dim={embedding_dim!r}"
            )
        for dim in embedding_dim:
            if dim != ONE_HOT:
                check_count("embedding_dim", dim)
        if num_tasks is not None:
            check_count("num_tasks", num_tasks)
        if num_tasks is None and list(embedding_dim) != [ONE_HOT]:
            raise ValueError(
                "`embedding_dim` is of the index of a task, which needs `num_tasks`. "
                f"Received: embedding_dim={embedding_dim!r}, num_tasks=None"
            )
        every = range(len(blocks) + 1)
        places = list(every if places is None else places)
        if not places or any(place not in every for place in places):
            raise ValueError(
                f"`places` must be a list of some of {list(every)}: before which "
                "block, the last of them the head. "
                f"Received: places={places!r}"
            )
        check_ways(how)
        self.inputs = dict(inputs)
        self.head = head
        self.loss = loss
        self.metrics = metrics
        self.task = task
        self.num_tasks = num_tasks
        self.embedding_dim = list(embedding_dim)
        self.how = list(how)
        self.places = sorted(set(places))
        self.stem = stem

    def about(self, model: keras.Model) -> dict[str, Any]:
        """Returns where and how a model is conditioned, as text."""
        return {"sharing": getattr(model, "conditioning", None)}

    def build(self, hp: Any) -> keras.Model:
        """Returns the compiled model that hyperparameters say."""
        inputs = {
            name: keras.Input(given.shape[1:], dtype=given.dtype, name=name)
            for name, given in self.inputs.items()
        }
        others = {name: x for name, x in inputs.items() if name != self.task}
        x = others if len(others) > 1 else next(iter(others.values()))
        if self.stem is not None:
            x = of_its_own(self.stem)(x)
        z = self._embedding(hp)(inputs[self.task])
        condition = choose_conditioning(hp, self.places, self.how)
        width = self.choose_width(hp)
        for place, block in enumerate(self.blocks):
            layer = call_with(block, hp)
            config = with_width(layer.get_config(), width)
            config["name"] = f"block_{place}"
            x = type(layer).from_config(config)(condition(place, x, z))
        x = condition(len(self.blocks), x, z)
        head = of_its_own(call_with(self.head, hp))
        model = keras.Model(inputs, head(x))
        model.conditioning = self._said(hp)
        model.compile(
            self.make_optimizer(hp),
            loss=self.loss,
            metrics=self.metrics,
            **self.compile_arguments,
        )
        return model

    def _embedding(self, hp: Any) -> TaskEmbedding:
        if self.num_tasks is None:
            return TaskEmbedding()
        names = [str(dim) for dim in self.embedding_dim]
        chosen = names[0] if len(names) == 1 else choose(hp, "embedding_dim", names)
        dim = self.embedding_dim[names.index(chosen)]
        return TaskEmbedding(self.num_tasks, None if dim == ONE_HOT else dim)

    def _said(self, hp: Any) -> str:
        """Returns where and how, a line for each place."""
        ways = {place: hp.values[f"conditioning_{place}"] for place in self.places}
        where = [f"block {place}" for place in range(len(self.blocks))] + ["head"]
        lines = [
            f"before {where[place]}: {way}"
            for place, way in ways.items()
            if way != NONE
        ]
        return "\n".join(lines) or "nowhere"
