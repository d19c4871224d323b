"""The page, the tables and the logs of a study of transfer."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_transfer_measures import TASKS, Table, conflict, others

from keras_mtl import analysis
from keras_mtl.analysis import TransferReport, advise
from keras_mtl.analysis.study_run import WIDE
from keras_mtl.analysis.transfer_report import rank_agreement

PLOTS = [name for name in analysis.__all__ if name.startswith("plot_")]


def measures():
    table = Table()
    features = np.random.default_rng(0).normal(size=(3, 4, 4))
    for task, kernel in zip(TASKS, features, strict=True):
        table.add((task,), {task: [1.0, 0.9]}, kernel_0=kernel @ kernel.T)
        table.add((task,), {task: [1.2]}, fraction=0.5)
    table.add(TASKS, {t: [1.5, 0.8] for t in TASKS}, **conflict(0.2, -0.3))
    table.add(TASKS, others(), fraction=0.5)
    table.add(TASKS, others(a=[0.7]), kind=WIDE)
    table.add(TASKS, others(), kind="pcgrad")
    for pair in (("a", "b"), ("a", "c"), ("b", "c")):
        table.add(pair, {t: [0.8] for t in pair})
    return table.measures(["pcgrad"])


def report():
    found = measures()
    groups = [["a", "b"], ["c"]]
    return TransferReport(found, advise(found), groups, groups, 0.5, "python x.py")


def test_the_page_has_verdicts_pictures_and_numbers(tmp_path):
    page = report().write(tmp_path / "new" / "page.html", "A < B").read_text()
    assert "<h1>A &lt; B</h1>" in page
    for task in TASKS:
        assert re.search(rf"<strong>{task}</strong>: <b>[a-z ]+</b>, together", page)
    said = re.findall(r'alt="([^"]*)" src="data:image/svg', page)
    assert len(said) == 8
    assert said[-1] == "Groups by affinity: a + b; c"
    assert "Rank correlation" in page and "python x.py" in page
    assert "http" not in page  # It opens without a network.


def test_other_files_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"\.html file.*'t\.pdf'"):
        report().write("t.pdf")


def test_frames_have_the_same_figures():
    frames = report().frames()
    found = measures()
    tasks = frames["tasks"]
    row = tasks[(tasks.task == "a") & (tasks.measure == "gain")].iloc[0]
    assert row["mean"] == found.tasks["a"].gain.mean
    assert row.seeds == 3
    wide = tasks[(tasks.task == "a") & (tasks.measure == "gain_wide")].iloc[0]
    assert wide["mean"] == found.tasks["a"].wide.gain.mean
    assert len(frames["transfer"]) == 6
    assert len(frames["curves"]) == 6
    cosines = frames["conflict"]
    of_upper = cosines[(cosines.layer == "upper") & (cosines.other == "b")].iloc[0]
    assert of_upper.cosine == pytest.approx(-0.3)
    assert list(frames["advice"].task) == list(TASKS)


def test_a_study_of_little_has_a_page(tmp_path):
    """Without pairs, gradients, parts, a wider trunk, and with one seed."""
    table = Table()
    table.records = {key: r for key, r in table.records.items() if key[-1] == 0}
    names = {task: f"{task}_loss" for task in TASKS}
    found = analysis.transfer_measures.measure(
        TASKS, 1, names, table.higher, table.records, None, []
    )
    made = TransferReport(found, advise(found), [], [], float("nan"), "")
    page = made.write(tmp_path / "page.html").read_text()
    assert page.count("data:image/svg") == 2
    assert "Rank correlation" not in page
    assert len(made.frames()["conflict"]) == 0


@pytest.mark.parametrize("name", PLOTS)
def test_each_picture_by_itself(name):
    """On an axis of its own, or on one that is given."""
    given = [["a", "b"], ["c"]] if name == "plot_groups" else measures()
    plot = getattr(analysis, name)
    own = plot(given)
    assert own.get_title()
    axis = Figure().add_subplot()
    assert plot(given, axis=axis) is axis


def test_tensorboard_has_gains_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report().to_tensorboard(tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    (gain,) = events.Scalars("gain/a")
    assert gain.value == pytest.approx(measures().tasks["a"].gain.mean, rel=1e-5)
    (picture,) = events.Images("transfer/conflict")
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_rank_agreement():
    one = np.array([[0, 1, 2], [3, 0, 4], [5, 6, 0.0]])
    assert rank_agreement(one, one**3) == pytest.approx(1)
    assert rank_agreement(one, -one) == pytest.approx(-1)
    some = one.copy()
    some[0, 1] = np.nan
    assert rank_agreement(some, one) == pytest.approx(1)
    assert np.isnan(rank_agreement(one, np.ones((3, 3))))
    ties = np.array([[0, 1, 1], [2, 0, 2], [3, 3, 0.0]])
    ranks = [1.5, 1.5, 3.5, 3.5, 5.5, 5.5]
    expected = np.corrcoef(ranks, [1, 2, 3, 4, 5, 6])[0, 1]
    assert rank_agreement(ties, one) == pytest.approx(expected)
