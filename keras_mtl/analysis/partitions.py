"""Every way to part some tasks into groups."""

from collections.abc import Iterator, Sequence

Groups = tuple[tuple[str, ...], ...]


def partitions(tasks: Sequence[str]) -> Iterator[Groups]:
    """Yields every partition of some tasks into groups, each once."""
    if not tasks:
        yield ()
        return
    *earlier, last = tasks
    for groups in partitions(earlier):
        for place, group in enumerate(groups):
            yield (*groups[:place], (*group, last), *groups[place + 1 :])
        yield (*groups, (last,))
