"""A progress bar over all the models that a recipe trains."""

import keras
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Shows how far a recipe is: `total` epochs over all its models.

    ```
    with TrainingProgress(total=3 * epochs) as progress:
        model.fit(..., callbacks=[progress.callback("uncertainty")])
    ```
    """

    def __init__(self, total):
        self._bar = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception):
        self._bar.stop()

    def callback(self, name, epochs=1):
        """Returns a callback for the `fit` of one model; call once a model.

        Args:
            name: What to call the model.
            epochs: Epochs that the bar reserved for it; those that early stopping
                saves are counted as done.
        """
        bar, task = self._bar, self._task
        bar.update(task, description=name)

        class Advance(keras.callbacks.Callback):
            done = 0

            def on_epoch_end(self, epoch, logs=None):
                self.done += 1
                bar.advance(task)

            def on_train_end(self, logs=None):
                bar.advance(task, max(epochs - self.done, 0))

        return Advance()
