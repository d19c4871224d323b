"""Loaders of named data sets of several tasks."""

from keras_mtl.datasets.air_quality import load_air_quality
from keras_mtl.datasets.census_income import load_census_income
from keras_mtl.datasets.data_directory import data_directory
from keras_mtl.datasets.movielens import load_movielens
from keras_mtl.datasets.multi_mnist import load_multi_mnist
from keras_mtl.datasets.multi_task_data import MultiTaskData, Split
from keras_mtl.datasets.omniglot import load_omniglot
from keras_mtl.datasets.overlaid_digits import load_overlaid_digits
from keras_mtl.datasets.tox21 import load_tox21

__all__ = [
    "MultiTaskData",
    "Split",
    "data_directory",
    "load_air_quality",
    "load_census_income",
    "load_movielens",
    "load_multi_mnist",
    "load_omniglot",
    "load_overlaid_digits",
    "load_tox21",
]
