"""A model that learns to learn: it reads a support set and answers queries."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mtl.argument_checks import check_count
from keras_mtl.engine.inference import compiled
from keras_mtl.learners.class_probabilities import logits_of
from keras_mtl.learners.learner import Learner
from keras_mtl.losses import NegativeLogLikelihood
from keras_mtl.models.episode_metrics import (
    EpisodeMetrics,
    mean_of_present,
    resolve_metrics,
)
from keras_mtl.models.loss_arguments import loss_arguments, serialize_losses
from keras_mtl.models.saved_seeds import SavedSeeds
from keras_mtl.models.task_arrays import TaskArrays, checked_queries
from keras_mtl.models.task_reader import TaskReader

_KEYS = ("support_x", "support_y", "query_x")
_OF_PROBABILITIES = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
)


class _Training:
    """What `compile` sets, hidden from Keras's tracking of attributes."""

    arguments: dict[str, Any]
    uses_logits: bool
    episodes: EpisodeMetrics


@keras.saving.register_keras_serializable("keras_mtl")
class MetaModel(SavedSeeds, keras.Model):
    """Learns, over many small tasks, to learn a new one from its support.

    $$ \\min_\\theta \\sum_i L\\big(D_i^{ts}, \\phi_i\\big), \\qquad
       \\phi_i = f_\\theta(D_i^{tr}) $$

    Each episode is a task i with a support $D_i^{tr}$ and queries $D_i^{ts}$. `fit`
    learns θ, the weights of the learner and of the encoder, on the loss at the queries:
    the mean over episodes of the mean over the queries of each. After that `adapt`
    infers φ for a new task, and `predict_query` answers queries with it.

    The encoder turns examples into vectors, one by one. Support and queries of all
    episodes of a batch go through it in one call.

    Args:
        learner: A `keras_mtl.learners.Learner`.
        encoder: A layer or model from examples `(n, ...)` to features `(n, D)`, such
            as `keras_mtl.learners.conv4()`. Defaults to `None`: the learner gets
            the examples themselves.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Dict of `support_x` `(B, S, ...)`, `support_y` `(B, S)` or
            `(B, S, N)`, `query_x` `(B, Q, ...)`, and optionally
            `support_mask` `(B, S)`, whether each example is there.

    Output shape:
        That of the learner: probabilities `(B, Q, N)`, or means and scales
        `(B, Q, Dy, 2)`.

    Raises:
        ValueError: If the learner has no `adapt` and `predict`, or inputs are missing
            or do not fit.

    Example:

    ```python
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8)).astype("float32")
    labels = np.repeat(np.arange(20), 10)
    train = keras_mtl.data.Episodes(x, labels, ways=3, shots=2, queries=4)
    model = keras_mtl.MetaModel(keras_mtl.learners.InContextTransformer(ways=3))
    model.compile("adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, steps_per_epoch=2, verbose=0)
    phi = model.adapt(x[:6], np.array([0, 0, 1, 1, 2, 2]))
    probabilities = model.predict_query(phi, x[:50])
    assert probabilities.shape == (50, 3)
    ```

    Reference:
        Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016,
        https://arxiv.org/abs/1606.04080 (episodes)
    """

    def __init__(
        self, learner: Learner, encoder: keras.layers.Layer | None = None, **kwargs: Any
    ) -> None:
        # Labels of the support stay in float32: layers cast what they read.
        super().__init__(autocast=False, **kwargs)
        for method in ("adapt", "predict"):
            if not callable(getattr(learner, method, None)):
                raise ValueError(
                    "`learner` must have the methods `adapt` and `predict`, such as "
                    f"a `keras_mtl.learners.Learner`. Received: learner={learner!r}"
                )
        if encoder is not None and not callable(encoder):
            raise ValueError(
                "`encoder` must be a layer, a model or None. "
                f"Received: encoder={encoder!r}"
            )
        self.learner = learner
        self.encoder = encoder
        self._training_state: _Training | None = None
        self._example_shape: tuple[int | None, ...] | None = None
        self._local = threading.local()
        self._adapt_function: Callable | None = None
        self._query_function: Callable | None = None
        self._sample_function: Callable | None = None

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Adapts to the supports and answers the queries."""
        support_x, support_y, support_mask, query_x = self._unpack(inputs)
        self._example_shape = tuple(support_x.shape[2:])
        support_x, query_x = self._reader.features(support_x, support_mask, query_x)
        return self.learner(
            {
                "support_x": support_x,
                "support_y": support_y,
                "support_mask": support_mask,
                "query_x": query_x,
            }
        )

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configures training, as `keras.Model.compile`.

        Sample weights say which queries are there, so that `metrics` are weighted by
        them as `weighted_metrics` are. Categorical cross-entropies are computed from
        the logits of the learner, so that a query that is very wrong has a gradient.

        Args:
            optimizer: As in Keras.
            loss: A loss for the predictions of queries; for a learner that returns
                distributions a `keras_mtl.losses.NegativeLogLikelihood`.
            metrics: A list of metrics.
            weighted_metrics: More metrics.
            run_eagerly: As in Keras.
            steps_per_execution: As in Keras.
            jit_compile: As in Keras.
            auto_scale_loss: As in Keras.

        Raises:
            ValueError: If the loss or a metric does not fit what the learner returns,
                or a metric takes no sample weights.
        """
        training = _Training()
        training.arguments = dict(
            optimizer=keras.optimizers.get(optimizer),
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        resolved = keras.losses.get(loss)
        self._check_loss(resolved, loss)
        of_logits = _of_logits(resolved)
        training.uses_logits = of_logits is not None
        used = resolved if of_logits is None else of_logits
        every = resolve_metrics([metrics, weighted_metrics])
        self._check_metrics(every)
        training.episodes = EpisodeMetrics(used, every)
        self._training_state = training
        super().compile(
            optimizer=training.arguments["optimizer"],
            loss=used,
            weighted_metrics=every,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        training.arguments["optimizer"] = self.optimizer

    def get_compile_config(self) -> dict[str, Any]:
        """Returns what `compile` was given, serialised."""
        if self._training_state is None:
            return {}
        arguments = dict(self._training_state.arguments)
        loss = serialize_losses(arguments.pop("loss"))
        config = {
            key: keras.saving.serialize_keras_object(value)
            for key, value in arguments.items()
        }
        return {**config, "loss": loss}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says, and builds the optimiser."""
        self.compile(
            **{
                key: keras.saving.deserialize_keras_object(value)
                for key, value in config.items()
            }
        )
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the mean over episodes of the mean over the queries of each.

        Args:
            x: The inputs.
            y: Labels of the queries `(B, Q, ...)`.
            y_pred: Predictions `(B, Q, ...)`.
            sample_weight: Weights `(B, Q)`, 0 for queries that are padding.
            training: Whether the model is in training.
        """
        if training and getattr(self.learner, "has_objective", False):
            return self._objective(x, y, sample_weight)
        if self._uses_logits:
            y_pred = logits_of(y_pred)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            sample_weight = sample_weight * mean_of_present(sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _objective(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """Returns the learner's own loss, with the penalties of the layers."""
        support_x, support_y, support_mask, query_x = self._unpack(x)
        # Outside of `call` Keras tells no layer that this is training.
        support_x, query_x = self._reader.features(
            support_x, support_mask, query_x, {"training": True}
        )
        if sample_weight is None:
            sample_weight = ops.ones(ops.shape(query_x)[:2], "float32")
        inputs = {
            "support_x": support_x,
            "support_y": support_y,
            "support_mask": support_mask,
            "query_x": query_x,
        }
        loss = self.learner.objective(inputs, y, sample_weight, self._loss_of)
        return loss + sum(ops.sum(penalty) for penalty in self.losses)

    def _loss_of(self, y: Any, y_pred: Any, weight: Any) -> Any:
        """Returns the mean over episodes of the mean over those that are there."""
        if self._uses_logits:
            y_pred = logits_of(y_pred)
        return self._training_state.episodes.loss(y, y_pred, weight)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics, and when testing their means over episodes."""
        if self._testing:
            loss_pred = logits_of(y_pred) if self._uses_logits else y_pred
            self._training_state.episodes.update_state(
                y, y_pred, loss_pred, sample_weight
            )
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the metrics; when testing, means over episodes and intervals."""
        ours = {id(mean) for mean in self._episode_means}
        results: dict[str, Any] = {}
        for metric in self.metrics:
            if id(metric) in ours and not self._testing:
                continue
            value = metric.result()
            named = value if isinstance(value, dict) else {metric.name: value}
            if metric.name == "loss" and id(metric) in ours:
                # The loss itself has the penalties of the layers as well.
                named = {"loss_ci95": named["loss_ci95"]}
            results.update(named)
        return results

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Every metric, with the means over episodes."""
        return [*super().metrics, *self._episode_means]

    def test_step(self, *args: Any) -> Any:
        """Evaluates a batch of episodes."""
        with self._as_testing():
            return super().test_step(*args)

    def evaluate(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        """Evaluates on episodes, as `keras.Model.evaluate`.

        Each metric that is a mean over queries (`"accuracy"`, not an AUC) is averaged
        over episodes, and comes with half the width of its 95 % confidence interval,
        as `<metric>_ci95`. The number of observations is that of episodes.

        Args:
            *args: Arguments of `keras.Model.evaluate`.
            return_dict: Boolean, whether to return a dict. Defaults to `True`.
            **kwargs: Arguments of `keras.Model.evaluate`.

        Returns:
            Dict such as `{"loss": 0.1, "accuracy": 0.97, "accuracy_ci95": 0.003,
            "loss_ci95": 0.01}`.
        """
        with self._as_testing():
            return super().evaluate(*args, return_dict=return_dict, **kwargs)

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any = None) -> Any:
        """Infers φ, what is known of a task, from its support.

        Args:
            support_x: Examples of one task `(S, ...)` or of a batch `(B, S, ...)`.
            support_y: Their labels `(S,)` or `(S, N)`, or with the axis of tasks.
            support_mask: Whether each example is there, `(S,)` or `(B, S)`. Defaults
                to `None`, all are.

        Returns:
            φ as plain data: a nest of NumPy arrays, the first axis of each that of
            tasks (1 for one task). It can be pickled, saved and concatenated.

        Raises:
            ValueError: If shapes do not fit, labels are out of range, numbers are not
                finite, or a support is empty.
        """
        task = TaskArrays(support_x, support_y, support_mask)
        if not self.built:
            self._build_on(task)
        inputs = task.checked(self._example_shape, self.learner)
        if self._adapt_function is None:
            self._adapt_function = compiled(self, self._reader.adapt)
        return _as_arrays(self._adapt_function(*inputs))

    def predict_query(self, phi: Any, query_x: Any, batch_size: int = 1024) -> Any:
        """Answers queries with φ; the support is not read again.

        Args:
            phi: What `adapt` returned.
            query_x: Queries of one task `(Q, ...)`, or of every task of phi
                `(B, Q, ...)`.
            batch_size: Integer, queries that are answered at a time. Defaults to 1024.

        Returns:
            Array of predictions `(Q, ...)` or `(B, Q, ...)`.

        Raises:
            ValueError: If the queries do not fit the model or phi.
        """
        check_count("batch_size", batch_size)
        phi, query_x, one_task = self._check_queries(phi, query_x)
        if self._query_function is None:
            self._query_function = compiled(self, self._reader.predict)
        tasks, queries = query_x.shape[:2]
        step = max(1, min(queries, batch_size // tasks))
        if getattr(self.learner, "sequential_queries", False):
            step = queries
        answers = []
        for start in range(0, queries, step):
            part = query_x[:, start : start + step]
            there = part.shape[1]
            if there < step:
                # Of one shape, so that nothing is compiled for the last part.
                padding = [(0, 0), (0, step - there)] + [(0, 0)] * (part.ndim - 2)
                part = np.pad(part, padding, mode="edge")
            answer = self._query_function(phi, part)
            answers.append(ops.convert_to_numpy(answer)[:, :there])
        predicted = np.concatenate(answers, axis=1)
        return predicted[0] if one_task else predicted

    def sample(self, phi: Any, query_x: Any, n: int, seed: int | None = None) -> Any:
        """Draws functions of a latent learner, such as `NeuralProcess`.

        Args:
            phi: What `adapt` returned.
            query_x: Queries of one task `(Q, ...)`, or of every task of phi
                `(B, Q, ...)`.
            n: Integer, how many functions.
            seed: Integer, optional: the same seed draws the same functions.

        Returns:
            Array of their values `(n, Q, Dy)` or `(n, B, Q, Dy)`.

        Raises:
            ValueError: If the learner has no latent variable, or the queries do not
                fit.
        """
        check_count("n", n)
        if not callable(getattr(self.learner, "functions", None)):
            raise ValueError(
                "`sample` needs a learner with a latent variable, such as "
                f"`NeuralProcess`. Received: learner={self.learner!r}"
            )
        phi, query_x, one_task = self._check_queries(phi, query_x)
        shape = (len(query_x), n, self.learner.latent_size)
        noise = np.random.default_rng(seed).normal(size=shape).astype("float32")
        if self._sample_function is None:
            self._sample_function = compiled(self, self._reader.sample)
        drawn = ops.convert_to_numpy(self._sample_function(phi, query_x, noise))
        return drawn[:, 0] if one_task else drawn

    def _unpack(self, inputs: Any) -> tuple[Any, Any, Any, Any]:
        missing = [key for key in _KEYS if key not in inputs]
        if missing:
            raise ValueError(
                f"`inputs` must be a dict with the keys {list(_KEYS)} and optionally "
                f"'support_mask'. Received: {sorted(inputs)}, without {missing}"
            )
        support_x, support_y, query_x = (inputs[key] for key in _KEYS)
        support_mask = inputs.get("support_mask")
        if support_mask is None:
            support_mask = ops.ones(ops.shape(support_x)[:2], "bool")
        if tuple(support_x.shape[2:]) != tuple(query_x.shape[2:]):
            raise ValueError(
                "`support_x` and `query_x` must hold examples of the same shape. "
                f"Received: support_x of shape {tuple(support_x.shape)}, query_x of "
                f"shape {tuple(query_x.shape)}"
            )
        return support_x, support_y, ops.cast(support_mask, "bool"), query_x

    def _build_on(self, task: TaskArrays) -> None:
        """Builds the model on the support, in place of queries as well."""
        support_x, support_y, mask = task.batched()
        self(
            {
                "support_x": support_x,
                "support_y": support_y,
                "support_mask": mask,
                "query_x": support_x[:, :1],
            }
        )

    def _check_queries(self, phi: Any, query_x: Any) -> tuple[Any, np.ndarray, bool]:
        """Returns phi and queries with an axis of tasks, and whether they had none."""
        if not self.built:
            raise ValueError(
                "Queries need a model that has been fitted, loaded or adapted. "
                "Received: a model that is not built"
            )
        query_x, one_task = checked_queries(query_x, self._example_shape, phi)
        return keras.tree.map_structure(ops.convert_to_tensor, phi), query_x, one_task

    def _check_loss(self, resolved: Any, given: Any) -> None:
        distribution = getattr(self.learner, "distribution", None)
        plain = isinstance(resolved, keras.losses.Loss) and not isinstance(
            resolved, NegativeLogLikelihood
        )
        named = isinstance(given, str)
        if distribution is not None and (
            named or (plain and _of_keras(type(resolved)))
        ):
            raise ValueError(
                "The learner returns distributions: `loss` must be a "
                "`keras_mtl.losses.NegativeLogLikelihood`, or the learner be made with "
                f"`distribution=None`. Received: loss={given!r}"
            )
        if isinstance(resolved, NegativeLogLikelihood) and distribution is None:
            raise ValueError(
                "`loss` is of distributions, and the learner returns none. "
                f"Received: loss={given!r}, learner={self.learner!r}"
            )

    def _check_metrics(self, metrics: list[keras.metrics.Metric]) -> None:
        if getattr(self.learner, "distribution", None) is None:
            return
        for metric in metrics:
            if _of_keras(getattr(metric, "_fn", type(metric))):
                raise ValueError(
                    "The learner returns distributions: `metrics` must be of "
                    "distributions, such as `keras_mtl.metrics.SquaredErrorOfMean`, or "
                    "the learner be made with `distribution=None`. "
                    f"Received: metric '{metric.name}'"
                )

    @property
    def _reader(self) -> TaskReader:
        return TaskReader(self.learner, self.encoder, self.compute_dtype)

    @property
    def _uses_logits(self) -> bool:
        return self._training_state.uses_logits

    @property
    def _episode_means(self) -> list[keras.metrics.Metric]:
        state = self._training_state
        return [] if state is None else state.episodes.means

    @property
    def _testing(self) -> bool:
        return getattr(self._local, "testing", False)

    @contextmanager
    def _as_testing(self) -> Iterator[None]:
        before = self._testing
        self._local.testing = True
        try:
            yield
        finally:
            self._local.testing = before

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "learner": keras.saving.serialize_keras_object(self.learner),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "MetaModel":
        """Returns the model of `get_config`."""
        config = dict(config)
        for part in ("learner", "encoder"):
            config[part] = keras.saving.deserialize_keras_object(
                config[part], custom_objects
            )
        return cls(**config)


def _of_logits(loss: Any) -> keras.losses.Loss | None:
    """Returns the same loss of logits, for a loss of class probabilities."""
    named = {
        keras.losses.categorical_crossentropy: keras.losses.CategoricalCrossentropy,
        keras.losses.sparse_categorical_crossentropy: (
            keras.losses.SparseCategoricalCrossentropy
        ),
    }
    if not isinstance(loss, keras.losses.Loss):
        return named[loss](from_logits=True) if loss in named else None
    if type(loss) not in _OF_PROBABILITIES:
        return None
    arguments = loss_arguments(loss)
    if arguments.get("from_logits"):
        raise ValueError(
            "A learner returns probabilities: `loss` must be made with "
            f"from_logits=False. Received: loss={loss!r}"
        )
    return type(loss).from_config({**arguments, "from_logits": True})


def _of_keras(source: Any) -> bool:
    """Returns whether a class or function is Keras's own."""
    return getattr(source, "__module__", "").startswith("keras.")


def _as_arrays(phi: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_numpy, phi)
