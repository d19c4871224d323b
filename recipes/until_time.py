"""Training for a number of minutes."""

import time

import keras
import numpy as np


class UntilTime(keras.callbacks.Callback):
    """Ends training after some minutes, with a learning rate that falls as a cosine.

    The first step, which compiles, counts. Epochs should take a few seconds: the rate
    is set, and time is looked at, between them.

    Args:
        minutes: How long to train.
        learning_rate: That of the start.
        metric: What is printed beside the loss, every half minute. Defaults to
            `None`, nothing.
    """

    def __init__(self, minutes, learning_rate, metric=None):
        super().__init__()
        self.seconds = 60 * minutes
        self.learning_rate = learning_rate
        self.metric = metric

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()
        self.shown = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        done = min(1.0, (time.perf_counter() - self.start) / self.seconds)
        rate = self.learning_rate * 0.5 * (1 + np.cos(np.pi * done))
        self.model.optimizer.learning_rate.assign(max(rate, 1e-6))

    def on_epoch_end(self, epoch, logs=None):
        elapsed = time.perf_counter() - self.start
        self.model.stop_training = elapsed > self.seconds
        if elapsed < self.shown and not self.model.stop_training:
            return
        self.shown = elapsed + 30
        names = ["loss"] if self.metric is None else ["loss", self.metric]
        said = "  ".join(f"{name} {logs[name]:.3f}" for name in names)
        steps = (epoch + 1) * self.params["steps"]
        print(f"{elapsed:5.0f} s  step {steps:6d}  {said}", flush=True)


def fit_until(model, episodes, minutes, learning_rate, steps, metric=None):
    """Trains a compiled model for some minutes.

    Args:
        model: A compiled model.
        episodes: Episodes without end.
        minutes: How long.
        learning_rate: That of the start.
        steps: Steps between two looks at the clock.
        metric: What is printed beside the loss.

    Returns:
        The number of steps.
    """
    history = model.fit(
        episodes,
        steps_per_epoch=steps,
        epochs=10**6,
        verbose=0,
        callbacks=[UntilTime(minutes, learning_rate, metric)],
    )
    return steps * len(history.epoch)
