"""What learns a task from its support: one learner a file."""

from keras_mtl.learners.anil import ANIL
from keras_mtl.learners.attentive_neural_process import AttentiveNeuralProcess
from keras_mtl.learners.cavia import CAVIA
from keras_mtl.learners.class_probabilities import class_probabilities
from keras_mtl.learners.conditional_neural_process import ConditionalNeuralProcess
from keras_mtl.learners.convolutional_encoder import ConvolutionalEncoder, conv4
from keras_mtl.learners.convolutional_neural_process import ConvolutionalNeuralProcess
from keras_mtl.learners.deep_set import DeepSet
from keras_mtl.learners.hyper_network import HyperNetwork
from keras_mtl.learners.in_context_transformer import InContextTransformer
from keras_mtl.learners.learner import Learner
from keras_mtl.learners.maml import MAML
from keras_mtl.learners.matching_network import MatchingNetwork
from keras_mtl.learners.memory_augmented import MemoryAugmented
from keras_mtl.learners.meta_network import MetaNetwork
from keras_mtl.learners.neural_process import NeuralProcess
from keras_mtl.learners.patch_convolution import PatchConv2D
from keras_mtl.learners.prototypical_network import PrototypicalNetwork
from keras_mtl.learners.recurrent import Recurrent
from keras_mtl.learners.relation_network import RelationNetwork
from keras_mtl.learners.reptile import Reptile
from keras_mtl.learners.snail import SNAIL

__all__ = [
    "ANIL",
    "CAVIA",
    "MAML",
    "SNAIL",
    "AttentiveNeuralProcess",
    "ConditionalNeuralProcess",
    "ConvolutionalEncoder",
    "ConvolutionalNeuralProcess",
    "DeepSet",
    "HyperNetwork",
    "InContextTransformer",
    "Learner",
    "MatchingNetwork",
    "MemoryAugmented",
    "MetaNetwork",
    "NeuralProcess",
    "PatchConv2D",
    "PrototypicalNetwork",
    "Recurrent",
    "RelationNetwork",
    "Reptile",
    "class_probabilities",
    "conv4",
]
