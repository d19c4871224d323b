"""The contract of everything that learns a task from its support."""

from typing import Any

import keras

from keras_mtl import distributions
from keras_mtl.argument_checks import check_count
from keras_mtl.learners.answers import Answers, ClassAnswers, NumberAnswers


@keras.saving.register_keras_serializable("keras_mtl")
class Learner(keras.layers.Layer):
    """A function of a whole data set: it reads a support, then answers queries.

    $$ \\phi = f_\\theta(D^{tr}), \\qquad \\hat y = g_\\theta(x, \\phi) $$

    `adapt` reads the supports of a batch of tasks, and `predict` answers queries with
    what it made of them, each query by itself. A learner of your own is a subclass with
    these two methods; `MetaModel` trains it.

    With `ways` or `output_dim` the base class reads labels (`read_labels`) and turns
    raw outputs into predictions (`answer`); a learner may do without.

    Args:
        ways: Integer, the number of classes of a task, for classification.
        output_dim: Integer, the numbers of a label, for regression.
        distribution: With `output_dim`, what is predicted: `"gaussian"` for a mean
            and a scale, a `keras_mtl.distributions.Distribution`, or `None` for a
            plain number. Defaults to `"gaussian"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Dict of `support_x` `(B, S, ...)`, `support_y` `(B, S)` or
            `(B, S, label_size)`, `support_mask` `(B, S)` and `query_x` `(B, Q, ...)`.

    Output shape:
        `(B, Q, ways)`, probabilities; or `(B, Q, output_dim, 2)`, mean and scale.

    Raises:
        ValueError: If both `ways` and `output_dim` are given, or one is no positive
            integer.

    Example:

    ```python
    class NearestMean(keras_mtl.learners.Learner):
        def adapt(self, support_x, support_y, support_mask):
            labels, seen = self.read_labels(support_y, support_mask)
            means = ops.einsum("bsn,bsd->bnd", labels, support_x)
            counts = ops.sum(labels, axis=1)[..., None]
            return {"means": means / ops.maximum(counts, 1), **seen}

        def predict(self, phi, query_x):
            difference = ops.expand_dims(query_x, 2) - phi["means"][:, None]
            return self.answer(-ops.sum(difference**2, axis=-1), phi)


    learner = NearestMean(ways=2)
    x = np.array([[[0.0], [1.0]]], "float32")
    phi = learner.adapt(x, np.array([[0, 1]]), np.ones((1, 2)))
    learner.predict(phi, np.array([[[0.2]]], "float32"))  # class 0: 0.65
    ```

    Reference:
        Finn, "Learning to Learn with Gradients", PhD thesis, Berkeley 2018,
        https://www2.eecs.berkeley.edu/Pubs/TechRpts/2018/EECS-2018-105.html
    """

    ignores_order = False
    """Whether the order of the support changes nothing."""

    permutes_labels = False
    """Whether other names for the classes rename the answers, and no more."""

    needs_support = True
    """Whether a task without a single example is an error."""

    def __init__(
        self,
        ways: int | None = None,
        output_dim: int | None = None,
        distribution: Any = "gaussian",
        **kwargs: Any,
    ) -> None:
        # What a layer casts by itself it casts in `call` alone, and `adapt` and
        # `predict` are also called without it: the layers in a learner cast.
        super().__init__(autocast=False, **kwargs)
        if ways is not None and output_dim is not None:
            raise ValueError(
                "A learner is for classification, with `ways`, or for regression, with "
                f"`output_dim`. Received: ways={ways}, output_dim={output_dim}"
            )
        self.ways = None if ways is None else check_count("ways", ways, at_least=2)
        self.output_dim = (
            None if output_dim is None else check_count("output_dim", output_dim)
        )
        self.distribution = None
        self._answers: Answers | None = None
        if ways is not None:
            self._answers = ClassAnswers(ways)
        elif output_dim is not None:
            self.distribution = distributions.get(distribution)
            self._answers = NumberAnswers(output_dim, self.distribution)

    def build(self, input_shape: Any) -> None:
        """Builds nothing: parts are built where `adapt` and `predict` call them."""

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns phi, what is known of each task: a nest of tensors `(B, ...)`.

        Args:
            support_x: Features `(B, S, ...)`.
            support_y: Labels `(B, S)` or `(B, S, label_size)`.
            support_mask: Whether each example is there `(B, S)`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have the methods `adapt` and `predict`"
        )

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns predictions `(B, Q, ...)`, each from its own query alone.

        Args:
            phi: What `adapt` returned.
            query_x: Features `(B, Q, ...)`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have the methods `adapt` and `predict`"
        )

    def call(self, inputs: dict[str, Any]) -> Any:
        """Adapts to the supports and answers the queries."""
        phi = self.adapt(
            inputs["support_x"], inputs["support_y"], inputs["support_mask"]
        )
        return self.predict(phi, inputs["query_x"])

    def read_labels(
        self, support_y: Any, support_mask: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Returns labels as numbers, and what `answer` has to know of them.

        Args:
            support_y: Class indices `(B, S)`, one-hot labels `(B, S, n)`, or numbers
                `(B, S, output_dim)`.
            support_mask: Whether each example is there `(B, S)`.

        Returns:
            Labels `(B, S, label_size)` in float32, zero where none is, and a dict to
            be part of phi.
        """
        return self._checked_answers().encode(support_y, support_mask)

    def answer(self, raw: Any, phi: dict[str, Any]) -> Any:
        """Returns predictions of raw outputs.

        Args:
            raw: `(B, Q, output_size)`: logits, or the raw numbers of a distribution.
            phi: A dict with what `read_labels` returned.
        """
        return self._checked_answers().decode(raw, phi)

    @property
    def label_size(self) -> int:
        """Numbers that `read_labels` makes of a label."""
        return self._checked_answers().label_size

    @property
    def output_size(self) -> int:
        """Raw numbers that `answer` takes for a query."""
        return self._checked_answers().output_size

    def _checked_answers(self) -> Answers:
        if self._answers is None:
            raise ValueError(
                f"{type(self).__name__} must be given `ways` or `output_dim`. "
                "Received: neither"
            )
        return self._answers

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        if self.ways is not None:
            config["ways"] = self.ways
        if self.output_dim is not None:
            config["output_dim"] = self.output_dim
            config["distribution"] = keras.saving.serialize_keras_object(
                self.distribution
            )
        return config
