"""Says how far a study is, and how long it will take."""

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any


class StudyProgress:
    """A progress bar with the time left; lines where there is no terminal.

    Args:
        total: Integer, number of trainings.
        verbose: 0 for silence.
    """

    def __init__(self, total: int, verbose: int) -> None:
        self.total = total
        self.verbose = verbose
        self.done = 0
        self.seconds: list[float] = []
        self._bar: Any = None
        self._item: Any = None

    def __enter__(self) -> "StudyProgress":
        if self.verbose:
            self._bar, self._item = _bar(self.total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @contextlib.contextmanager
    def of(self, run: Any) -> Iterator[None]:
        """Shows a training while it goes on."""
        if self._bar is not None:
            self._bar.update(self._item, description=str(run))
        began, known = time.perf_counter(), len(self.seconds)
        yield
        self.done += 1
        if self._bar is not None:
            self._bar.advance(self._item)
        elif self.verbose:
            took = time.perf_counter() - began
            how = f"{took:.1f} s" if len(self.seconds) > known else "on record"
            print(f"{self.done}/{self.total} {run}: {how}{self._left()}", flush=True)

    def trained(self, seconds: float) -> None:
        """Notes how long a training took."""
        self.seconds.append(seconds)

    def _left(self) -> str:
        if not self.seconds or self.done == self.total:
            return ""
        left = sum(self.seconds) / len(self.seconds) * (self.total - self.done)
        return f", at most {left / 60:.1f} minutes left"


def _bar(total: int) -> tuple[Any, Any]:
    """Returns a progress bar of rich, none where there is no terminal or no rich."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        return None, None
    console = Console()
    if not console.is_terminal:
        return None, None
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )
    bar.start()
    return bar, bar.add_task("", total=total)
