"""What a regression learner says of a number that it has not seen."""

from keras_mtl.distributions.bar import Bar
from keras_mtl.distributions.distribution import Distribution, get
from keras_mtl.distributions.gaussian import Gaussian

__all__ = ["Bar", "Distribution", "Gaussian", "get"]
