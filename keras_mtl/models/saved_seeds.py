"""States of random seeds in a saved model."""

from typing import Any

import keras


class SavedSeeds:
    """Mixin of a `keras.Model` whose loaded copy draws what the model would draw."""

    def save_own_variables(self, store: Any) -> None:
        """Saves the states of random seeds, which Keras leaves out."""
        super().save_own_variables(store)
        for index, seed in enumerate(self._seed_states()):
            store[f"seed_{index}"] = seed

    def load_own_variables(self, store: Any) -> None:
        """Loads the states of random seeds, if the file has those of this model."""
        own = {k: store[k] for k in store.keys() if not k.startswith("seed_")}
        super().load_own_variables(own)
        seeds = self._seed_states()
        if len(store.keys()) - len(own) == len(seeds):
            for index, seed in enumerate(seeds):
                seed.assign(store[f"seed_{index}"])

    def _seed_states(self) -> list[keras.Variable]:
        others = {id(v) for v in [*self.weights, *self.metrics_variables]}
        return [v for v in self.variables if id(v) not in others]
