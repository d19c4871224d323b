"""Losses of predictive distributions."""

from keras_mtl.losses.gaussian_negative_log_likelihood import (
    GaussianNegativeLogLikelihood,
)
from keras_mtl.losses.negative_log_likelihood import NegativeLogLikelihood

__all__ = ["GaussianNegativeLogLikelihood", "NegativeLogLikelihood"]
