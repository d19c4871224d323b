"""What learns a task from its support: one learner a file."""

from keras_mtl.learners.class_probabilities import class_probabilities
from keras_mtl.learners.convolutional_encoder import ConvolutionalEncoder, conv4
from keras_mtl.learners.in_context_transformer import InContextTransformer
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.prototypical_network import PrototypicalNetwork

__all__ = [
    "ConvolutionalEncoder",
    "InContextTransformer",
    "Learner",
    "PrototypicalNetwork",
    "class_probabilities",
    "conv4",
]
