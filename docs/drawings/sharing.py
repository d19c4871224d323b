"""Draws the architectures on the pages about sharing.

    python docs/drawings/sharing.py

Grey boxes are shared by all tasks, blue ones belong to task a, orange ones to task b.
Writes `docs/images/sharing_<family>.png`.
"""

import itertools
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

IMAGES = pathlib.Path(__file__).parents[1] / "images"
COLOURS = {"a": "#9ecae1", "b": "#fdae6b", "": "#d9d9d9", "loss": "#fee0e0"}


class Panel:
    """Boxes at places of a grid, x to the right and y upwards, joined by arrows."""

    def __init__(self, axis, title):
        self.axis, self.places = axis, {}
        axis.set_title(title, fontsize=10)
        axis.set_aspect("equal")
        axis.axis("off")

    def box(self, name, x, y, text=None, task="", width=1.5):
        self.places[name] = x, y, width
        self.axis.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.28),
                width,
                0.56,
                boxstyle="round,pad=0.02,rounding_size=0.1",
                facecolor=COLOURS[task],
                edgecolor="0.3",
                lw=0.8,
            )
        )
        text = name if text is None else text
        self.axis.text(x, y, text, ha="center", va="center", fontsize=7.5)

    def arrow(self, start, end, style="-", colour="0.3", bend=0.0):
        (x0, y0, _), (x1, y1, _) = self.places[start], self.places[end]
        sign = 1 if y1 >= y0 else -1
        self.axis.add_patch(
            FancyArrowPatch(
                (x0, y0 + 0.32 * sign),
                (x1, y1 - 0.34 * sign),
                arrowstyle="-|>",
                mutation_scale=8,
                lw=0.9,
                ls=style,
                color=colour,
                connectionstyle=f"arc3,rad={bend}",
            )
        )

    def arrows(self, *pairs, **how):
        for start, end in pairs:
            self.arrow(start, end, **how)

    def heads(self, y, *sources):
        for task, x, source in zip("ab", (-1, 1), sources, strict=True):
            self.box(f"y{task}", x, y, f"head {task}", task)
            self.arrow(source, f"y{task}")

    def finish(self):
        xs = [x + s * w / 2 for x, _, w in self.places.values() for s in (-1, 1)]
        ys = [y for _, y, _ in self.places.values()]
        self.axis.set_xlim(min(xs) - 0.3, max(xs) + 0.3)
        self.axis.set_ylim(min(ys) - 0.5, max(ys) + 0.5)


def hard_and_soft(axes):
    panel = Panel(axes[0], "hard sharing")
    panel.box("x", 0, 0)
    panel.box("lower", 0, 1)
    panel.box("upper", 0, 2)
    panel.arrows(("x", "lower"), ("lower", "upper"))
    panel.heads(3, "upper", "upper")
    yield panel

    panel = Panel(axes[1], "SoftSharing")
    panel.box("x", 0, 0)
    for task, x in zip("ab", (-1.2, 1.2), strict=True):
        panel.box(f"l{task}", x, 1, "lower", task)
        panel.box(f"u{task}", x, 2, "upper", task)
        panel.arrows(("x", f"l{task}"), (f"l{task}", f"u{task}"))
    panel.heads(3, "ua", "ub")
    for y in (1, 2):
        panel.axis.annotate(
            "", (0.4, y), (-0.4, y), arrowprops={"arrowstyle": "<->", "ls": ":"}
        )
        panel.axis.text(0, y + 0.12, "penalty", ha="center", fontsize=7)
    yield panel

    panel = Panel(axes[2], "LowRankAdapter")
    panel.box("x", 0, 0)
    panel.box("W", 0, 1, "dense W", width=1.3)
    for task, x in zip("ab", (-1.7, 1.7), strict=True):
        panel.box(f"A{task}", x, 1, f"A B of {task}", task, 1.3)
        panel.box(f"s{task}", x / 1.7, 2, "+", task, 0.6)
        panel.arrows(("x", f"A{task}"), (f"A{task}", f"s{task}"), ("W", f"s{task}"))
    panel.arrow("x", "W")
    panel.heads(3, "sa", "sb")
    yield panel


def experts(axes):
    panel = Panel(axes[0], "MixtureOfExperts (MMoE)")
    panel.box("x", 0, 0)
    for index, x in enumerate((-1.1, 0, 1.1)):
        panel.box(f"e{index}", x, 1.2, f"expert {index}", width=1.0)
        panel.arrow("x", f"e{index}")
    for task, x in zip("ab", (-2.3, 2.3), strict=True):
        panel.box(f"g{task}", x, 1.2, f"gate {task}", task, 1.0)
        panel.box(f"m{task}", x / 2.3, 2.4, "mix", task, 0.8)
        panel.arrows(("x", f"g{task}"), (f"g{task}", f"m{task}"))
        panel.arrows(*((f"e{i}", f"m{task}") for i in range(3)))
    panel.heads(3.4, "ma", "mb")
    yield panel

    panel = Panel(axes[1], "CustomizedGateControl, a level of PLE")
    panel.box("x", 0, 0, "streams")
    for name, x, task in (("a", -2.2, "a"), ("sh", 0, ""), ("b", 2.2, "b")):
        panel.box(f"e{name}", x, 1.2, f"experts {name}", task, 1.4)
        panel.box(f"m{name}", x, 2.4, f"gate {name}", task, 1.2)
        panel.arrows(("x", f"e{name}"), (f"e{name}", f"m{name}"))
    panel.arrows(("esh", "ma"), ("esh", "mb"), ("ea", "msh"), ("eb", "msh"))
    for name, x, task in (("a", -2.2, "a"), ("sh", 0, ""), ("b", 2.2, "b")):
        panel.box(f"n{name}", x, 3.4, f"next {name}", task, 1.2)
        panel.arrow(f"m{name}", f"n{name}")
    yield panel

    panel = Panel(axes[2], "AdaTT; STEMGate with dotted gradients stopped")
    panel.box("x", 0, 0, "streams")
    for task, x in zip("ab", (-1.4, 1.4), strict=True):
        panel.box(f"e{task}", x, 1.2, f"experts {task}", task, 1.5)
        panel.box(f"m{task}", x, 2.4, f"gate {task}", task, 1.3)
        panel.arrows(("x", f"e{task}"), (f"e{task}", f"m{task}"))
    panel.arrows(("ea", "mb"), ("eb", "ma"), style=":")
    for task, x in zip("ab", (-1.4, 1.4), strict=True):
        panel.box(f"y{task}", x, 3.4, f"head {task}", task)
        panel.arrow(f"m{task}", f"y{task}")
    yield panel


def exchange(axes):
    panel = Panel(axes[0], "CrossStitch")
    panel.box("x", 0, 0)
    for task, x in zip("ab", (-1.2, 1.2), strict=True):
        panel.box(f"l{task}", x, 1, "layer", task)
        panel.arrow("x", f"l{task}")
    panel.box("stitch", 0, 2, "A: combination of all", width=3.4)
    panel.arrows(("la", "stitch"), ("lb", "stitch"))
    for task, x in zip("ab", (-1.2, 1.2), strict=True):
        panel.box(f"u{task}", x, 3, "layer", task)
        panel.arrow("stitch", f"u{task}")
        panel.box(f"y{task}", x, 4, f"head {task}", task)
        panel.arrow(f"u{task}", f"y{task}")
    yield panel

    panel = Panel(axes[1], "Sluice")
    panel.box("x", 0, 0)
    for task, x in zip("ab", (-1.5, 1.5), strict=True):
        for s, shift in enumerate((-0.5, 0.5)):
            panel.box(f"l{task}{s}", x + shift, 1, f"{task}{s + 1}", task, 0.8)
            panel.arrow("x", f"l{task}{s}")
    panel.box("stitch", 0, 2, "alpha: over tasks and subspaces", width=4.2)
    for task in "ab":
        panel.arrows((f"l{task}0", "stitch"), (f"l{task}1", "stitch"))
    for task, x in zip("ab", (-1.5, 1.5), strict=True):
        panel.box(f"u{task}", x, 3, "beta: over layers", task, 1.9)
        panel.box(f"y{task}", x, 4, f"head {task}", task)
        panel.arrows(("stitch", f"u{task}"), (f"u{task}", f"y{task}"))
    yield panel

    panel = Panel(axes[2], "TaskAttention (MTAN)")
    panel.box("u", 0, 0, "block: first u", width=1.8)
    panel.box("p", 0, 1.4, "block: last p", width=1.8)
    panel.arrow("u", "p")
    for task, x in zip("ab", (-2.2, 2.2), strict=True):
        panel.box(f"m{task}", x, 1, f"mask {task}", task, 1.3)
        panel.box(f"t{task}", x, 2.4, "mask * p", task, 1.3)
        panel.arrows(("u", f"m{task}"), (f"m{task}", f"t{task}"), ("p", f"t{task}"))
        panel.box(f"y{task}", x, 3.4, "next block, head", task, 1.9)
        panel.arrow(f"t{task}", f"y{task}")
    yield panel


def structure(axes):
    panel = Panel(axes[0], "TaskRouting: a runs 1 and 3, b runs 2 and 3")
    panel.box("x", 0, 0)
    for index in (1, 2, 3):
        panel.box(f"b{index}", 0, index, f"block {index}")
    runs = {"a": ("x", "b1", "b3"), "b": ("x", "b2", "b3")}
    for task, path in runs.items():
        colour = {"a": "#3182bd", "b": "#e6550d"}[task]
        for start, end in itertools.pairwise(path):
            near = abs(panel.places[start][1] - panel.places[end][1]) <= 1
            bend = (0.15 if near else 0.75) * (1 if task == "a" else -1)
            panel.arrow(start, end, colour=colour, bend=bend)
    panel.heads(4, "b3", "b3")
    yield panel

    panel = Panel(axes[1], "LearningToBranch: each child picks a parent")
    panel.box("x", 0, 0)
    for level in (1, 2):
        for index, x in enumerate((-1.7, 0, 1.7)):
            panel.box(f"{level}{index}", x, level, "layer", width=1.2)
    for name, x, task in (("a", -1.7, "a"), ("b", 0, "b"), ("c", 1.7, "")):
        panel.box(f"y{name}", x, 3, f"head {name}", task, 1.2)
    picked = [("x", "10"), ("10", "20"), ("10", "21")]
    picked += [("20", "ya"), ("21", "yb"), ("21", "yc")]
    panel.arrows(*picked, colour="black")
    others = [("x", "11"), ("x", "12"), ("11", "20"), ("12", "22"), ("22", "yc")]
    panel.arrows(*others, style=":", colour="0.7")
    yield panel


def ranking(axes):
    panel = Panel(axes[0], "PositionBiasTower")
    panel.box("x", -1.2, 0, "features")
    panel.box("p", 1.6, 0, "position, device")
    panel.box("main", -1.2, 1.1, "main network", width=1.9)
    panel.box("tower", 1.6, 1.1, "shallow tower", "a", 1.9)
    panel.box("sum", 0.2, 2.2, "logit (+ in training)", width=2.6)
    panel.box("y", 0.2, 3.2, "click", "a")
    panel.arrows(("x", "main"), ("p", "tower"), ("main", "sum"), ("sum", "y"))
    panel.arrow("tower", "sum", style=":")
    yield panel

    panel = Panel(axes[1], "EntireSpace (ESMM)")
    panel.box("x", 0, 0, "all impressions", width=1.9)
    panel.box("click", -1.5, 1.1, "P(click)", "a")
    panel.box("buy", 1.5, 1.1, "P(buy | click)", "b", 1.8)
    panel.box("both", 0, 2.2, "P(click and buy) = product", "b", 3.2)
    panel.arrows(("x", "click"), ("x", "buy"), ("click", "both"), ("buy", "both"))
    panel.box("l1", -1.9, 3.2, "loss: clicked", "loss", 1.7)
    panel.box("l2", 0.6, 3.2, "loss: clicked and bought", "loss", 2.7)
    panel.arrows(("click", "l1"), ("both", "l2"))
    yield panel


def main():
    for draw, count in (
        (hard_and_soft, 3),
        (experts, 3),
        (exchange, 3),
        (structure, 2),
        (ranking, 2),
    ):
        figure, axes = plt.subplots(
            1, count, figsize=(4.3 * count, 3.9), layout="constrained"
        )
        for panel in draw(axes):
            panel.finish()
        figure.savefig(IMAGES / f"sharing_{draw.__name__}.png", dpi=90)
        plt.close(figure)


if __name__ == "__main__":
    main()
