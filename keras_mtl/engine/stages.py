"""A forward pass in stages, each of which can be differentiated by itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Key = int
"""Names a tensor that passes from one stage to another."""


@dataclass(frozen=True)
class Stage:
    """A part of the trunk, which is differentiated once for each task.

    Attributes:
        run: Called with the inputs of the model and the tensors named by `inputs`;
            returns the list of tensors named by `outputs`.
        inputs: Tensors that it reads of the model's inputs and of earlier stages.
        outputs: Tensors that it makes for later stages.
        tasks: The tasks that it serves, by position.
        variables: Returns its trainable variables.
        floating: Those of `inputs` that earlier stages make and that have gradients.
        parting: Those of `outputs` where its tasks part: the representation.
        copies: Returns the copies of its inputs that an earlier stage has read in its
            place, on backends that run a model once for both.
        again: Whether it runs what an earlier stage has run, on backends that run each
            stage by itself.
        dense: Its dense layers with a bias that are called once, on a matrix, and have
            their variables for themselves.
        run_watched: As `run`, but returns the inputs of `dense` as well.
    """

    run: Callable[[Any, list[Any]], list[Any]]
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    tasks: tuple[int, ...]
    variables: Callable[[], list[Any]]
    floating: tuple[Key, ...] = ()
    parting: tuple[Key, ...] = ()
    copies: Callable[[], list[Any]] | None = None
    again: bool = False
    dense: tuple[Any, ...] = ()
    run_watched: Callable[[Any, list[Any]], tuple[list[Any], list[Any]]] | None = None


@dataclass(frozen=True)
class HeadInput:
    """A tensor that the heads read, in a copy whose gradient is told by task.

    Attributes:
        key: The tensor.
        tasks: The tasks that the gradient by the copy belongs to, by position: of one
            task; of each of several, where the copy is `repeated`, with None for one
            that is not trained; or of each row's task, where the copy is by `rows`.
            Without tasks there is no gradient.
        repeated: Whether the copy has the tensor once for each task, along axis 0.
        rows: Whether each row belongs to one of the tasks.
    """

    key: Key
    tasks: tuple[int | None, ...] = ()
    repeated: bool = False
    rows: bool = False


@dataclass(frozen=True)
class Heads:
    """The last stage: what each task has for itself, differentiated once for all.

    Attributes:
        run: Called with the copies of `inputs`; returns the predictions.
        inputs: What the heads read.
        variables: Returns their trainable variables.
    """

    run: Callable[[list[Any]], Any]
    inputs: tuple[HeadInput, ...]
    variables: Callable[[], list[Any]] = list


@dataclass(frozen=True)
class Stages:
    """A forward pass: `enter`, then the stages of the trunk in order, then the heads.

    Attributes:
        enter: Called with the inputs of the model; returns them by key.
        trunk: The stages that several tasks share, and what comes before them.
        heads: The rest.
    """

    enter: Callable[[Any], Mapping[Key, Any]]
    trunk: tuple[Stage, ...]
    heads: Heads

    @property
    def parting(self) -> tuple[Key, ...]:
        """Tensors where tasks part."""
        return tuple(key for stage in self.trunk for key in stage.parting)


@dataclass
class Backward:
    """A forward pass that is differentiated as far as the copies that the heads read.

    All gradients are times the factor of the loss scaling.

    Attributes:
        stages: The stages.
        pulls: For each stage of the trunk, a function that is called with gradients by
            its outputs, positions of variables and keys of its inputs, and returns
            the gradients by those variables and by those inputs, two dicts. A gradient
            by a variable may be an `OuterProduct`.
        by_key: For each task, the gradients of its loss by tensors of the trunk.
        gradients: By position, gradients by the variables of the heads, and by those
            outside all stages.
    """

    stages: Stages
    pulls: list[Callable[..., tuple[dict[int, Any], dict[Key, Any]]]]
    by_key: list[dict[Key, Any]]
    gradients: dict[int, Any] = field(default_factory=dict)

    def stages_from_last(self) -> Iterator[tuple[int, Stage, Callable[..., Any]]]:
        """Returns position, stage and pull of each stage of the trunk, in reverse."""
        for index in reversed(range(len(self.pulls))):
            yield index, self.stages.trunk[index], self.pulls[index]


@dataclass(frozen=True)
class OuterProduct:
    """The gradient `A^T D` by the kernel of a dense layer, not multiplied out.

    Attributes:
        inputs: A, the inputs of the layer, `(rows, n)`: one tensor for all tasks.
        cotangent: D, the gradient by what the kernel makes of them, `(rows, m)`.
    """

    inputs: Any
    cotangent: Any


def gradients_by_key(
    inputs: Sequence[HeadInput],
    gradients: Sequence[Any],
    num_tasks: int,
    of_rows: Callable[[Any], Sequence[Any]],
) -> list[dict[Key, Any]]:
    """Sorts gradients by the copies that heads read into those of each task.

    Args:
        inputs: What the heads read.
        gradients: The gradients by their copies, None where there is none.
        num_tasks: T.
        of_rows: Splits a gradient into those of the rows of each task.
    """
    by_key: list[dict[Key, Any]] = [{} for _ in range(num_tasks)]
    for item, gradient in zip(inputs, gradients, strict=True):
        if gradient is None or not item.tasks:
            continue
        if item.rows:
            parts = of_rows(gradient)
        elif item.repeated:
            parts = [gradient[index] for index in range(len(item.tasks))]
        else:
            parts = [gradient]
        for task, part in zip(item.tasks, parts, strict=True):
            if task is not None:
                add_to(by_key[task], {item.key: part})
    return by_key


def add_to(total: dict[Any, Any], more: Mapping[Any, Any]) -> None:
    """Adds the entries of a dict to those of another, leaving out None."""
    for key, value in more.items():
        if value is not None:
            total[key] = value if total.get(key) is None else total[key] + value
