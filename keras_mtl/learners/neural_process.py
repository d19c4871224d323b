"""Latent neural processes."""

import math
from typing import Any

import keras
from keras import ops

from keras_mtl.argument_checks import check_choice, check_count
from keras_mtl.distributions import Gaussian
from keras_mtl.learners.context_decoder import ContextDecoder
from keras_mtl.learners.feature_vectors import (
    check_vectors,
    joined,
    multi_layer_perceptron,
)
from keras_mtl.learners.latent_path import LatentPath, divergence
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.masked_pooling import masked_mean

OBJECTIVES = ("evidence_bound", "maximum_likelihood")


@keras.saving.register_keras_serializable("keras_mtl")
class NeuralProcess(Learner):
    """A conditional neural process with a latent variable for each task.

    $$ p(y \\mid x, D) = \\int p(y \\mid x, r, z)\\, q(z \\mid D)\\, dz $$

    What is not known of the task is in z, so that one z gives a whole function:
    `sample` draws functions, that `ConditionalNeuralProcess` has none of. phi is r and
    the mean and scale of z.

    **Training.** The objective takes the place of the loss that `compile` is given,
    which then is that of `evaluate`:

    - `"evidence_bound"`, the larger the better and divided by the number of queries:
      $E_{q(z | T)} \\sum \\log p(y | x, z) - KL(q(z | T) \\| q(z | C))$, with z from
      the queries T, which should hold the support C (`queries_with_support=True`
      of `RegressionEpisodes`);
    - `"maximum_likelihood"`: $\\log \\frac{1}{L} \\sum_l \\prod p(y | x, z_l)$ with L
      samples of $q(z | C)$.

    **Prediction.** Mean and scale are those of the mixture over `num_samples` z, the
    same ones for every query.

    Args:
        output_dim: Integer, the numbers of a label.
        width: Integer, units of every layer. Defaults to 128.
        encoder_depth: Integer, layers of the encoders. Defaults to 3.
        decoder_depth: Integer, hidden layers of the decoder. Defaults to 3.
        latent_dim: Integer, numbers of z. Defaults to `None`, the width.
        objective: `"evidence_bound"` or `"maximum_likelihood"`. Defaults to
            `"evidence_bound"`.
        deterministic_path: Boolean, whether there is r beside z. Defaults to `True`.
        num_samples: Integer L. Defaults to 16.
        min_scale: Number, the least scale of a prediction. Defaults to 0.01.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    learner = keras_mtl.learners.NeuralProcess(output_dim=1, width=32)
    x = np.zeros((2, 10, 1), "float32")
    phi = learner.adapt(x, x, np.ones((2, 10), "bool"))
    assert learner.predict(phi, x).shape == (2, 10, 1, 2)  # mean and scale
    assert learner.sample(phi, x, 5).shape == (5, 2, 10, 1)
    ```

    Reference:
        Garnelo et al., "Neural Processes", 2018, https://arxiv.org/abs/1807.01622;
        Foong et al., "Meta-Learning Stationary Stochastic Process Prediction with
        Convolutional Neural Processes", NeurIPS 2020,
        https://arxiv.org/abs/2007.01332 (maximum likelihood)
    """

    ignores_order = True
    needs_support = False
    has_objective = True

    def __init__(
        self,
        output_dim: int,
        width: int = 128,
        encoder_depth: int = 3,
        decoder_depth: int = 3,
        latent_dim: int | None = None,
        objective: str = "evidence_bound",
        deterministic_path: bool = True,
        num_samples: int = 16,
        min_scale: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            output_dim=output_dim, distribution=Gaussian(min_scale), **kwargs
        )
        self.width = check_count("width", width)
        self.encoder_depth = check_count("encoder_depth", encoder_depth)
        self.decoder_depth = check_count("decoder_depth", decoder_depth)
        self.latent_dim = latent_dim
        size = width if latent_dim is None else check_count("latent_dim", latent_dim)
        self.trained_on = check_choice("objective", objective, OBJECTIVES)
        self.deterministic_path = deterministic_path
        self.num_samples = check_count("num_samples", num_samples)
        self.min_scale = min_scale
        dtype = self.dtype_policy
        self.latent = LatentPath(width, encoder_depth, size, num_samples, dtype=dtype)
        self.encoder = None
        if deterministic_path:
            self.encoder = multi_layer_perceptron([width] * encoder_depth, dtype=dtype)
        self.decoder = ContextDecoder(
            width, decoder_depth, self.output_size, dtype=dtype
        )

    def adapt(self, support_x: Any, support_y: Any, support_mask: Any) -> Any:
        """Returns mean and scale of z, and the deterministic representation."""
        check_vectors(support_x, "support_x")
        labels, _ = self.read_labels(support_y, support_mask)
        phi = {"latent": self.latent(support_x, labels, support_mask)}
        if self.deterministic_path:
            phi["path"] = self.represent(support_x, labels, support_mask)
        return phi

    def represent(self, x: Any, labels: Any, mask: Any) -> Any:
        """Returns what the deterministic path keeps of a support."""
        return {"mean": masked_mean(self.encoder(joined(x, labels)), mask)}

    def context(self, path: Any, query_x: Any) -> Any:
        """Returns what the path says to each query, `(B, Q or 1, width)`."""
        return path["mean"][:, None]

    def predict(self, phi: Any, query_x: Any) -> Any:
        """Returns mean and scale of the mixture, `(B, Q, Dy, 2)`."""
        check_vectors(query_x, "query_x")
        each = self._given(phi, query_x, self.latent.fixed_samples(phi["latent"]))
        mean = ops.mean(each[..., 0], axis=1)  # B, Q, Dy
        spread = ops.mean((each[..., 0] - mean[:, None]) ** 2, axis=1)
        variance = spread + ops.mean(each[..., 1] ** 2, axis=1)
        return ops.stack([mean, ops.sqrt(variance)], axis=-1)

    def sample(self, phi: Any, query_x: Any, n: int, seed: Any = None) -> Any:
        """Draws functions, and returns their values without noise `(n, B, Q, Dy)`.

        Args:
            phi: What `adapt` returned.
            query_x: Features `(B, Q, D)`.
            n: Integer, how many functions.
            seed: Integer or `keras.random.SeedGenerator`, optional.
        """
        seed = self.latent.seed_generator if seed is None else seed
        shape = (ops.shape(query_x)[0], n, self.latent_size)
        return self.functions(phi, query_x, keras.random.normal(shape, seed=seed))

    @property
    def latent_size(self) -> int:
        """Numbers of z."""
        return self.latent.latent_dim

    def functions(self, phi: Any, query_x: Any, noise: Any) -> Any:
        """Returns the functions that standard normal noise stands for.

        Args:
            phi: What `adapt` returned.
            query_x: Features `(B, Q, D)`.
            noise: `(B, n, latent_size)`.

        Returns:
            Values without noise `(n, B, Q, Dy)`.
        """
        means = self._given(phi, query_x, self.latent.at(phi["latent"], noise))[..., 0]
        return ops.transpose(means, (1, 0, 2, 3))

    def log_likelihood(
        self,
        phi: Any,
        query_x: Any,
        query_y: Any,
        query_mask: Any,
        n: int | None = None,
        seed: Any = None,
    ) -> Any:
        """Returns the joint log-likelihood of the queries of each task, `(B,)`.

        $$ \\log \\frac{1}{n} \\sum_l \\prod_q p(y_q \\mid x_q, z_l) $$

        Args:
            phi: What `adapt` returned.
            query_x: Features `(B, Q, D)`.
            query_y: Labels `(B, Q, Dy)`.
            query_mask: Whether each is there `(B, Q)`.
            n: Integer, samples of z. Defaults to `None`, `num_samples`.
            seed: Integer or `keras.random.SeedGenerator`, optional.
        """
        n = self.num_samples if n is None else n
        query_y, _ = self.read_labels(query_y, query_mask)
        latents = self.latent.samples(phi["latent"], n, seed)
        of_sample = self._log_likelihoods(phi, query_x, query_y, query_mask, latents)
        return ops.logsumexp(of_sample, axis=1) - math.log(n)

    def objective(
        self, inputs: dict[str, Any], query_y: Any, query_mask: Any, loss: Any
    ) -> Any:
        """Returns what is minimised in training: see the class.

        Args:
            inputs: As of `call`.
            query_y: Labels of the queries.
            query_mask: Whether each is there `(B, Q)`.
            loss: The loss of `compile`, which is not used.
        """
        query_x = inputs["query_x"]
        phi = self.adapt(
            inputs["support_x"], inputs["support_y"], inputs["support_mask"]
        )
        query_y, _ = self.read_labels(query_y, query_mask)
        query_mask = ops.cast(query_mask, "float32")
        count = ops.maximum(ops.sum(query_mask, axis=1), 1.0)
        if self.trained_on == "maximum_likelihood":
            found = self.log_likelihood(phi, query_x, query_y, query_mask)
            return -ops.mean(found / count)
        posterior = self.latent(query_x, query_y, query_mask)
        latents = self.latent.samples(posterior, 1)
        found = self._log_likelihoods(phi, query_x, query_y, query_mask, latents)[:, 0]
        bound = found - divergence(posterior, phi["latent"])
        return -ops.mean(bound / count)

    def _log_likelihoods(
        self, phi: Any, query_x: Any, query_y: Any, query_mask: Any, latents: Any
    ) -> Any:
        """Returns those of all queries given each z, `(B, L)`."""
        given = self._given(phi, query_x, latents)
        each = ops.sum(self.distribution.log_prob(query_y[:, None], given), axis=-1)
        there = ops.cast(query_mask, "float32")[:, None] > 0
        return ops.sum(ops.where(there, each, 0.0), axis=-1)

    def _given(self, phi: Any, query_x: Any, latents: Any) -> Any:
        """Returns mean and scale given each z `(B, L, Q, Dy, 2)`."""
        latents = latents[:, None]  # B, 1, L, d
        queries = ops.shape(query_x)[1]
        if self.deterministic_path:
            path = ops.cast(self.context(phi["path"], query_x), "float32")[:, :, None]
            shape = (-1, queries, ops.shape(latents)[2], path.shape[-1])
            path = path + ops.zeros((1, queries, ops.shape(latents)[2], 1))
            latents = latents + ops.zeros((1, queries, 1, 1))
            context = ops.concatenate([ops.reshape(path, shape), latents], axis=-1)
        else:
            context = latents
        raw = self.decoder(query_x, context)  # B, Q, L, output_size
        raw = ops.transpose(ops.cast(raw, "float32"), (0, 2, 1, 3))
        shape = (-1, ops.shape(latents)[2], queries, self.output_dim, 2)
        return self.distribution.parameters(ops.reshape(raw, shape))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {
            **super().get_config(),
            "width": self.width,
            "encoder_depth": self.encoder_depth,
            "decoder_depth": self.decoder_depth,
            "latent_dim": self.latent_dim,
            "objective": self.trained_on,
            "deterministic_path": self.deterministic_path,
            "num_samples": self.num_samples,
            "min_scale": self.min_scale,
        }
        del config["distribution"]
        return config
