"""What a transfer study trains, and on record for who reads it in another process."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_mtl.analysis.study_run import PLAIN, WIDE, Run

_FILE = "plan.json"


@dataclasses.dataclass(frozen=True)
class Variant:
    """Trainings that differ in their seeds alone.

    Attributes:
        tasks: Names of the tasks that are trained together.
        kind: `"plain"`, `"wide"`, or the name of a remedy.
        fraction: Part of the training rows.
    """

    tasks: tuple[str, ...]
    kind: str = PLAIN
    fraction: float = 1.0

    def run(self, seed: int, setting: int = 0) -> Run:
        """Returns one of the trainings."""
        return Run(self.tasks, seed, self.kind, self.fraction, setting)


def variants_of(
    tasks: Sequence[str],
    pairs: bool,
    leave_one_out: bool,
    wide: bool,
    remedies: Iterable[str],
    fractions: Sequence[float],
) -> list[Variant]:
    """Returns what is trained, each once.

    Args:
        tasks: Names of all tasks.
        pairs: Whether each pair is.
        leave_one_out: Whether all but one are, for each.
        wide: Whether all are, in a wider trunk.
        remedies: Names of the remedies.
        fractions: Parts of the rows, beside the whole.
    """
    tasks = tuple(tasks)
    companies = [*((task,) for task in tasks), tasks]
    found = [Variant(company) for company in companies]
    found += [Variant(tasks, WIDE)] if wide else []
    found += [Variant(tasks, name) for name in remedies]
    if leave_one_out:
        found += [Variant(tuple(t for t in tasks if t != out)) for out in tasks]
    if pairs:
        found += [Variant(pair) for pair in itertools.combinations(tasks, 2)]
    found += [
        Variant(company, PLAIN, float(fraction))
        for fraction in sorted(fractions)
        for company in companies
    ]
    return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """What a study has trained.

    Attributes:
        variants: The kinds of trainings.
        settings: For each, the number of the settings that it was best with.
        seeds: How many trainings of each.
        width: The factor of the wider trunk, if there was one.
        remedies: Dict by name of what they are, in words.
    """

    variants: Sequence[Variant]
    settings: Sequence[int]
    seeds: int
    width: float | None
    remedies: Mapping[str, str]

    @property
    def runs(self) -> Iterator[Run]:
        """All trainings."""
        for variant, setting in zip(self.variants, self.settings, strict=True):
            for seed in range(self.seeds):
                yield variant.run(seed, setting)

    def write(self, folder: Path) -> None:
        """Writes it to the folder of the study, whole or not at all."""
        said: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        said["variants"] = [dataclasses.astuple(each) for each in self.variants]
        written = folder / f"{_FILE}.part"
        written.write_text(json.dumps(said))
        written.replace(folder / _FILE)

    @classmethod
    def read(cls, folder: Path) -> "StudyPlan":
        """Reads that of a folder.

        Raises:
            ValueError: If there is none, or one of another version.
        """
        path = folder / _FILE
        if not path.exists():
            raise ValueError(
                f"`run` must be called first. Received: no {_FILE} in {folder}"
            )
        said = json.loads(path.read_text())
        if said.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(
                f"`run` must be called again. Received: {_FILE} of another version in "
                f"{folder}"
            )
        said["variants"] = [
            Variant(tuple(tasks), *rest) for tasks, *rest in said["variants"]
        ]
        return cls(**said)
