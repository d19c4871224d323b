"""The training step on PyTorch."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import torch

from keras_mtl.engine.batch_part import first_rows, spread_rows
from keras_mtl.engine.forward import Forward
from keras_mtl.engine.gradient_probe import GradientProbe, ProbedBatch
from keras_mtl.engine.packing import unpack_batch
from keras_mtl.engine.stages import Backward, gradients_by_key
from keras_mtl.engine.task_gradients import AggregatedStep


def num_replicas() -> int:
    """Returns 1: Keras trains on one PyTorch process."""
    return 1


def sum_over_replicas(tensor: Any) -> Any:
    """Returns the tensor itself: there is one replica."""
    return tensor


def copy_of(tensor: Any) -> Any:
    """Returns a tensor of the same values, with a gradient of its own."""
    copy = tensor.view_as(tensor)
    copy._keras_mask = getattr(tensor, "_keras_mask", None)
    return copy


@torch.library.custom_op("keras_mtl::snapshot", mutates_args=())
def _snapshot(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone()


@_snapshot.register_fake
def _(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor)


def snapshot(tensor: Any) -> Any:
    """Returns a copy, which does not see later values of a variable.

    An operation that `torch.compile` cannot look into: it would compute a plain copy
    anew for the backward pass, from the value that the variable has by then.
    """
    tensor = keras.ops.convert_to_tensor(tensor)
    return _snapshot(tensor) if torch.compiler.is_compiling() else tensor.clone()


def _unpacking(function: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: function([unpack_batch(data[0])])


class TrainStep:
    """Steps of `MultiTaskModel`: Keras's own, unless the weighting wants more."""

    def make_train_function(self, force: bool = False) -> None:
        """Makes the function of a training step, as Keras."""
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = _unpacking(self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        """Makes the function of an evaluation step, as Keras."""
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = _unpacking(self.test_function)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one batch."""
        if self._gradient_probes:
            self._probe_gradients(data)
        if self.aggregator is not None:
            return self._step_with_aggregation(data)
        if self.weighting.needs_gradient_norms:
            return self._step_with_gradient_norms(data)
        if self.weighting.needs_losses_after_step:
            return self._step_with_losses_after(data)
        return super().train_step(data)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch."""
        return self._without_weights(super().test_step(data))

    @torch.compiler.disable
    def _step_with_aggregation(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        plan, stages = self._gradient_plan
        forward = Forward(stages, x, copy_of)
        with self._keep_task_losses() as kept:
            loss = self.compute_loss(x, y, forward.y_pred, sample_weight, training=True)
        losses, counts, weighted = kept
        unit = self.optimizer.scale_loss(torch.ones((), device=losses.device))
        variables = self.trainable_variables
        values = [variable.value for variable in variables]
        extras = [extra.sum() for extra in self.losses]
        by_extras = {}
        if extras:
            by_extras = dict(enumerate(_gradients(sum(extras) * unit, values)))
        backward = self._backward(forward, weighted.sum() * unit, x)
        with torch.no_grad():
            step = AggregatedStep(
                plan=plan,
                options=self._aggregation_options,
                aggregator=self.aggregator,
                backward=backward,
                variables=values,
                losses=losses.detach(),
                present=(counts > 0).float(),
                unit=unit.detach(),
                part=self._backward_of_part(x, y, sample_weight, unit),
            )
            gradients = step.gradients(by_extras)
            self.optimizer.apply(gradients, variables)
            self._report_loss(loss.detach(), x)
            self._report_gradients(step)
        return self.compute_metrics(x, y, forward.y_pred, sample_weight)

    def _backward(
        self, forward: Forward, scaled: Any, x: Any, plan_and_stages: Any = None
    ) -> Backward:
        """Differentiates the heads, and says how to go on down the trunk."""
        variables = self.trainable_variables
        plan, stages = plan_and_stages or self._gradient_plan
        positions = plan.of_heads
        copies = forward.differentiable_copies
        found = _gradients(
            scaled, [*copies, *(variables[position].value for position in positions)]
        )

        def pull(index, given, positions, through):
            values, outputs = forward.of_stages[index]
            sources = [variables[p].value for p in positions]
            sources += [values[key] for key in through]
            found = _gradients(
                [outputs[key] for key in given], sources, list(given.values())
            )
            return (
                dict(zip(positions, found, strict=False)),
                dict(zip(through, found[len(positions) :], strict=True)),
            )

        return Backward(
            stages,
            [functools.partial(pull, index) for index in range(len(stages.trunk))],
            gradients_by_key(
                stages.heads.inputs,
                forward.spread(found[: len(copies)]),
                len(self.task_names),
                functools.partial(self._by_rows, x),
            ),
            dict(zip(positions, found[len(copies) :], strict=True)),
        )

    def _backward_of_part(self, x, y, sample_weight, unit):
        fraction = self._aggregation_options.gramian_fraction
        if fraction == 1.0:
            return None

        def backward():
            part = first_rows((x, y, sample_weight), fraction)
            state = self._forward_state()
            before = [v.value.detach().clone() for v in state]
            with torch.enable_grad():
                forward = Forward(self._gradient_plan[1], part[0], copy_of)
                weighted = self._weighted_losses(*part, forward.y_pred)
                scaled = weighted.sum() * unit
            backward = self._backward(forward, scaled, part[0])
            with torch.no_grad():
                for variable, value in zip(state, before, strict=True):
                    variable.assign(value)
            return backward

        return backward

    @torch.compiler.disable
    def _probe_gradients(self, data: Any) -> None:
        """Lets the probes of callbacks look at a batch."""
        with torch.no_grad():
            for probe in self._gradient_probes:
                probe.due = probe.count_step()
                probe.update_state(functools.partial(self._probed_batch, probe, data))

    def _probed_batch(self, probe: GradientProbe, data: Any) -> ProbedBatch:
        x, y, sample_weight = spread_rows(
            keras.utils.unpack_x_y_sample_weight(data), probe.fraction
        )
        plan, stages = self._probed_plan
        random_state = _random_state()
        # What is done to states stays in the scopes.
        with (
            torch.enable_grad(),
            keras.StatelessScope(),
            _random_numbers_from(random_state),
        ):
            forward = Forward(stages, x, copy_of)
            losses, counts, summed = self._probed_losses(
                x, y, sample_weight, forward.y_pred, probe.weighted
            )
            unit = self.optimizer.scale_loss(torch.ones((), device=losses.device))
            scaled = summed.sum() * unit
        variables = self.trainable_variables

        def losses_with(values):
            mapping = [(variables[p], value) for p, value in values.items()]
            with (
                torch.no_grad(),
                keras.StatelessScope(state_mapping=mapping),
                _random_numbers_from(random_state),
            ):
                y_pred = self(x, training=True)
                return self._probed_losses(x, y, sample_weight, y_pred)[0]

        return ProbedBatch(
            plan,
            self._backward(forward, scaled, x, self._probed_plan),
            [variable.value.detach() for variable in variables],
            losses.detach(),
            (counts > 0).float(),
            unit.detach(),
            keras.ops.convert_to_tensor(self._learning_rate).detach(),
            functools.partial(_for_each, losses_with),
        )

    # Not compiled: what `torch.compile` makes of a forward pass allows for one
    # backward pass only.
    @torch.compiler.disable
    def _step_with_gradient_norms(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=True)
        self.zero_grad()
        with self._keep_task_losses() as kept:
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
        losses, counts, _ = kept
        kernel = self.gradient_norm_variable.value
        unit = self.optimizer.scale_loss(torch.ones((), device=losses.device))
        # A task's loss depends on its own predictions alone, so one backward pass
        # of the sum of the losses gives every task's gradient by its predictions;
        # from there each goes through its own head only.
        predictions = keras.tree.flatten(y_pred)
        by_prediction = torch.autograd.grad(
            losses.sum() * unit, predictions, retain_graph=True, allow_unused=True
        )
        norms = []
        for index, cotangent in self._task_cotangents(x, y_pred, by_prediction):
            gradient = None
            if cotangent is not None:
                (gradient,) = torch.autograd.grad(
                    predictions[index],
                    kernel,
                    grad_outputs=cotangent,
                    retain_graph=True,
                    allow_unused=True,
                )
            norms.append(
                torch.zeros_like(unit)
                if gradient is None
                else torch.linalg.vector_norm(gradient.float() / unit)
            )
        self.optimizer.scale_loss(loss).backward()
        variables = self.trainable_variables
        with torch.no_grad():
            gradients = [v.value.grad for v in variables]
            self.optimizer.apply(gradients, variables)
            present = (counts > 0).float()
            self.weighting.update_from_gradients(
                losses.detach(), present, torch.stack(norms).detach()
            )
            self._report_loss(loss.detach(), x)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _step_with_losses_after(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        state = self._forward_state()
        before = [v.value.detach().clone() for v in state]
        random_state = _random_state()
        logs = super().train_step(data)
        after = [v.value.detach().clone() for v in state]
        with torch.no_grad():
            # The same dropout masks and no second update of moving averages: the
            # forward pass starts from the state that the step started from.
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
            with _random_numbers_from(random_state):
                y_pred = self(x, training=True)
            losses, counts = self.compute_task_losses(
                x, y, y_pred, sample_weight, training=True
            )
            self.weighting.update_after_step(losses, (counts > 0).float())
            for variable, value in zip(state, after, strict=True):
                variable.assign(value)
        return logs

    def _report_loss(self, loss: Any, x: Any) -> None:
        rows = next(t for t in keras.tree.flatten(x) if t is not None).shape[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=rows)


def _for_each(function: Callable[[dict], Any], stacks: dict[int, Any]) -> Any:
    """Returns the results of a function of each value of some stacks, stacked.

    In one pass where `torch.vmap` has a rule for all that the function does, which on
    small networks is as quick as one value alone.
    """
    try:
        return torch.vmap(function, randomness="same")(stacks)
    except RuntimeError:  # No rule, such as for convolutions on channels last.
        values = zip(*stacks.values(), strict=True)
        return torch.stack(
            [function(dict(zip(stacks, each, strict=True))) for each in values]
        )


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns the state of PyTorch's generators, which Keras's dropout draws from."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), on_gpus


@contextlib.contextmanager
def _random_numbers_from(state: tuple[torch.Tensor, list[torch.Tensor]]) -> Iterator:
    """Draws what was drawn from a state, and leaves the generators as they are."""
    before = _random_state()
    _set_random_state(state)
    try:
        yield
    finally:
        _set_random_state(before)


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _gradients(outputs: Any, inputs: list[Any], cotangents: Any = None) -> list[Any]:
    """Returns the gradients by each input, None where there is none."""
    if not isinstance(outputs, list):
        outputs, cotangents = [outputs], [cotangents]
    pairs = zip(outputs, cotangents, strict=True)
    pairs = [(output, c) for output, c in pairs if output.requires_grad]
    wanted = [index for index, tensor in enumerate(inputs) if tensor.requires_grad]
    found: list[Any] = [None] * len(inputs)
    if pairs and wanted:
        gradients = torch.autograd.grad(
            [output for output, _ in pairs],
            [inputs[index] for index in wanted],
            grad_outputs=[c for _, c in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        for index, gradient in zip(wanted, gradients, strict=True):
            found[index] = gradient
    return found
