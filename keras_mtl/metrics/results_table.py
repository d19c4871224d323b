"""A table of methods and metrics over several seeds."""

import math

import numpy as np

_BEST = "*"


class ResultsTable:
    """Collects the results of methods over seeds and prints them side by side.

    A cell is the mean over the seeds, `± standard deviation` where there are two or
    more. The best mean of a column is marked, if the column says what is better.

    Args:
        higher_is_better: Dict from the name of a column to whether a higher value is
            better. The best of other columns is not marked. Defaults to none.
        digits: Digits after the point: an integer, or a dict from column to one
            (`3` for columns it does not name). Defaults to `3`.
        title: Text above the table. Defaults to `None`.

    Raises:
        ValueError: for negative digits.

    Example:

    ```python
    table = keras_mtl.metrics.ResultsTable({"auc": True, "seconds": False})
    table.add("single task", {"auc": 0.91, "seconds": 20.0})
    for seed, auc in enumerate([0.92, 0.94]):
        table.add("multi-task", {"auc": auc, "seconds": 9.0 + seed})
    print(table.to_markdown())
    ```
    """

    def __init__(
        self,
        higher_is_better: dict[str, bool] | None = None,
        digits: int | dict[str, int] = 3,
        title: str | None = None,
    ):
        given = digits.values() if isinstance(digits, dict) else [digits]
        if any(not isinstance(number, int) or number < 0 for number in given):
            raise ValueError(
                f"`digits` must be integers of at least 0. Received: digits={digits}"
            )
        self._higher_is_better = dict(higher_is_better or {})
        self._digits = digits
        self._title = title
        self._values = {}

    @property
    def methods(self) -> list[str]:
        """The rows, in the order in which they came."""
        return list(self._values)

    @property
    def columns(self) -> list[str]:
        """The columns, in the order in which they came."""
        return list(
            dict.fromkeys(name for row in self._values.values() for name in row)
        )

    def add(self, method: str, results: dict[str, float]) -> None:
        """Adds the results of one run (one seed) of a method.

        Args:
            method: Name of the row.
            results: Dict from column to a number. Columns may differ from run to
                run.

        Raises:
            ValueError: if a value is no single number.
        """
        for name, value in results.items():
            if np.ndim(value) != 0:
                raise ValueError(
                    f"`results[{name!r}]` must be one number; call `add` once for "
                    f"each seed. Received: {value}"
                )
        row = self._values.setdefault(method, {})
        for name, value in results.items():
            row.setdefault(name, []).append(float(value))

    def values(self, method: str, column: str) -> list[float]:
        """The numbers of a cell, one for each run.

        Args:
            method: Name of the row.
            column: Name of the column.

        Returns:
            A list, empty where there are none.
        """
        return list(self._values.get(method, {}).get(column, []))

    def mean(self, method: str, column: str) -> float:
        """The mean over the runs, NaN where there are none.

        Args:
            method: Name of the row.
            column: Name of the column.

        Returns:
            A float.
        """
        values = self.values(method, column)
        return float(np.mean(values)) if values else math.nan

    def best(self, column: str) -> list[str]:
        """The methods with the best mean of a column.

        Args:
            column: Name of the column.

        Returns:
            Names of methods, several where they tie, none where `higher_is_better`
            does not name the column.
        """
        means = {method: self.mean(method, column) for method in self.methods}
        means = {method: mean for method, mean in means.items() if not math.isnan(mean)}
        if column not in self._higher_is_better or not means:
            return []
        choose = max if self._higher_is_better[column] else min
        best = choose(means.values())
        return [method for method, mean in means.items() if mean == best]

    def to_markdown(self) -> str:
        """The table in Markdown, the best of each column in bold.

        Returns:
            A string of lines.
        """
        rows = [
            [method, *(f"**{text}**" if best else text for text, best in cells)]
            for method, cells in self._rows()
        ]
        lines = [["", *self.columns], ["---", *("---:" for _ in self.columns)], *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return table if self._title is None else f"**{self._title}**\n\n{table}"

    def print(self) -> None:
        """Prints the table, by rich where it is installed, else as plain text.

        The best of each column is marked by a star.
        """
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            print(self)
            return
        table = Table(title=self._title)
        table.add_column("")
        for column in self.columns:
            table.add_column(column, justify="right")
        for method, cells in self._rows():
            table.add_row(method, *(_starred(text, best) for text, best in cells))
        console = Console()
        if not console.is_terminal:
            # A log file or a pipe has no width at which to break the cells.
            console = Console(width=10_000)
        console.print(table)

    def __str__(self) -> str:
        rows = [["", *self.columns]] + [
            [method, *(_starred(text, best) for text, best in cells)]
            for method, cells in self._rows()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(
                        text.rjust(width)
                        for text, width in zip(row[1:], widths[1:], strict=True)
                    ),
                ]
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines if self._title is None else [self._title, *lines])

    def _rows(self):
        best = {column: self.best(column) for column in self.columns}
        for method in self.methods:
            yield (
                method,
                [
                    (self._cell(method, column), method in best[column])
                    for column in self.columns
                ],
            )

    def _cell(self, method, column):
        values = self.values(method, column)
        if not values:
            return "-"
        digits = self._digits
        if isinstance(digits, dict):
            digits = digits.get(column, 3)
        text = f"{np.mean(values):.{digits}f}"
        if len(values) > 1:
            text += f" ± {np.std(values, ddof=1):.{digits}f}"
        return text


def _starred(text, best):
    return f"{text} {_BEST}" if best else text
