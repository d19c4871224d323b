"""Contestants of a race: processes that stay alive and take turns, one at a time."""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import side_by_side


def without_memory_options(environment):
    """Returns variables but those of the C library's memory."""
    return {k: v for k, v in environment.items() if not k.startswith("MALLOC_")}


class Contestant:
    """A worker that has said that it is ready, or why it cannot be.

    Args:
        name: String.
        command: What starts it.
        environment: Variables that it has beside those of this process.
        folder: Where what it writes to stderr goes.
    """

    def __init__(self, name, command, environment, folder):
        self.name = name
        self.errors = pathlib.Path(folder, f"{name}.txt")
        print(name, file=sys.stderr, flush=True)
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                command,
                env={**without_memory_options(os.environ), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def turn(self):
        """Returns seconds a step."""
        with contextlib.suppress(BrokenPipeError):  # one that died: `answer` says why
            self.process.stdin.write("turn\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                return json.loads(line.removeprefix("RESULT "))
        raise SystemExit(f"{self.name} failed:\n{self.errors.read_text()[-3000:]}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(turn):
    """Takes a turn for each line of the input; the first is before the start."""
    turn()
    side_by_side.print_result("ready")
    sys.stdout.flush()
    for _ in sys.stdin:
        side_by_side.print_result(turn())
        sys.stdout.flush()


def race(title, entries, rounds, episodes, peers=()):
    """Times contestants in turns and prints their table.

    Args:
        title: Of the table.
        entries: Name, command and environment of each contestant.
        rounds: Number of rounds that count.
        episodes: Episodes of a step.
        peers: Names of those of which the fastest is compared with. Defaults to none,
            the first of all.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        contestants, missing = {}, {}
        for name, command, environment in entries:
            contestant = Contestant(name, command, environment, folder)
            stack.callback(contestant.close)
            found = contestant.answer()
            if found == "ready":
                contestants[name] = contestant
            else:
                missing[name] = found
        turns = {name: contestant.turn for name, contestant in contestants.items()}
        times = side_by_side.in_turns(turns, rounds)
    compared = [name for name in peers if name in times] or list(times)[:1]
    fastest = min(compared, key=lambda name: statistics.median(times[name]))
    cells = {
        name: {
            "ms a step": f"{ms:.2f}",
            "episodes a second": f"{1000 * episodes / ms:,.0f}",
            f"to {fastest}": f"{ratio:.2f}",
        }
        for name, (ms, ratio) in side_by_side.medians(times, fastest).items()
    }
    side_by_side.print_table(f"{title}, {episodes} episodes a step", cells)
    for name, why in missing.items():
        print(f"no {name}: {why}", flush=True)
