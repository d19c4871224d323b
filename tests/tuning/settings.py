"""All settings of a space of hyperparameters."""

import keras_tuner


def settings(space):
    """Yields the values of each setting, of choices and integers."""
    waiting = [{}]
    while waiting:
        values = waiting.pop()
        hp = keras_tuner.HyperParameters()
        for entry in space:
            hp.merge([entry])
            if not hp.is_active(entry):
                continue
            if entry.name not in values:
                waiting += [{**values, entry.name: value} for value in entry.values]
                break
            hp.values[entry.name] = values[entry.name]
        else:
            yield values


def having(values):
    """Returns hyperparameters with these values."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp
