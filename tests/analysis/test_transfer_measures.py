"""Measures of transfer, and advice, on records by hand."""

import numpy as np
import pytest

from keras_mtl.analysis import Advice, advise
from keras_mtl.analysis.study_run import PLAIN, WIDE, Run, RunRecord
from keras_mtl.analysis.transfer_measures import best_epoch, measure, percent_better

TASKS = ("a", "b", "c")
SEEDS = 3
SPREAD = (0.0, 0.001, -0.001)


class Table:
    """Records of a study, in which a task has a loss of 1 alone unless said else."""

    def __init__(self, tasks=TASKS, higher=False):
        self.tasks = tasks
        self.higher = dict.fromkeys(tasks, higher)
        self.records = {}
        for task in tasks:
            self.add((task,), {task: [1.0]})
        self.add(tasks, {task: [1.0] for task in tasks})

    def add(self, company, losses, kind=PLAIN, fraction=1.0, train=None, **arrays):
        for seed, noise in enumerate(SPREAD):
            noisy = {t: [v + noise for v in series] for t, series in losses.items()}
            run = Run(company, seed, kind, fraction)
            made = {name: value + noise for name, value in arrays.items()}
            layers = ["lower", "upper", "all shared"] if arrays else []
            self.records[company, kind, fraction, seed] = RunRecord(
                run, train or losses, noisy, 1.0, 10, layers, made
            )
        return self

    def measures(self, remedies=()):
        names = {task: f"{task}_loss" for task in self.tasks}
        return measure(
            self.tasks, SEEDS, names, self.higher, self.records, 2.0, remedies
        )

    def advice(self, task="a", remedies=()):
        return advise(self.measures(remedies))[task]


def others(**losses):
    return {task: losses.get(task, [1.0]) for task in TASKS}


def test_percent_better():
    assert percent_better(0.9, 1.0, False) == pytest.approx(10)
    assert percent_better(0.9, 1.0, True) == pytest.approx(-10)
    assert percent_better(-3.0, -2.0, False) == pytest.approx(50)
    assert percent_better(0.5, 0.0, True) == pytest.approx(50)


def test_the_best_epoch_leaves_nan_out():
    assert best_epoch([3.0, np.nan, 1.0, np.inf], False) == (1.0, 2)
    assert best_epoch([3.0, np.nan, 1.0, np.inf], True) == (3.0, 0)


def test_gains_by_hand():
    """Of each seed against the same seed alone, each at its own best epoch."""
    losses = {"a": [2.0, 0.8, 0.9], "b": [1.3, 1.4, 1.1], "c": [1.0, 1.0, 1.0]}
    table = Table().add(TASKS, losses)
    found = table.measures().tasks["a"]
    by_seed = [100 * (1 - (0.8 + s) / (1 + s)) for s in SPREAD]
    assert found.gain.mean == pytest.approx(np.mean(by_seed))
    assert found.gain.std == pytest.approx(np.std(by_seed, ddof=1))
    assert found.epoch_together == 2
    # The best epoch for all is the last: a mean gain of 0 against -6.7 and -43.
    assert found.gain_at_one_epoch.mean == pytest.approx(10, abs=0.1)
    assert found.epoch_change.mean == pytest.approx(10, abs=0.2)


def test_higher_may_be_better():
    accuracies = {"a": [0.7, 1.2], "b": [1.0, 1.0], "c": [1.0, 1.0]}
    table = Table(higher=True).add(TASKS, accuracies)
    assert table.measures().tasks["a"].gain.mean == pytest.approx(20, abs=0.1)


def test_pairs_those_left_out_and_curves():
    table = Table().add(("a", "b"), {"a": [0.5], "b": [2.0]})
    table.add(("a", "c"), {"a": [1.5], "c": [1.0]})
    table.add(("b", "c"), {"b": [1.0], "c": [1.0]})
    for company in (*[(t,) for t in TASKS], TASKS):
        losses = {t: [2.0 if len(company) == 1 else 1.0] for t in company}
        table.add(company, losses, fraction=0.5)
    found = table.measures()
    assert np.isnan(np.diag(found.transfer)).all()
    row, column = 1, 0  # What b does for a.
    assert found.transfer[row, column] == pytest.approx(50, abs=0.1)
    assert found.transfer[0, 1] == pytest.approx(-100, abs=0.2)
    a = found.tasks["a"]
    assert a.pairs["c"].mean == pytest.approx(-50, abs=0.1)
    assert a.without["c"].gain.mean == pytest.approx(50, abs=0.1)
    assert a.without["c"].change.mean == pytest.approx(50, abs=0.1)
    assert list(a.curve) == [0.5, 1.0]
    assert a.curve[0.5].mean == pytest.approx(50, abs=0.1)
    assert a.curve[1.0].mean == pytest.approx(0, abs=0.1)


def test_gaps_between_training_and_validation():
    table = Table().add(("a",), {"a": [1.0] * 8}, train={"a": [1.0] * 6 + [0.25] * 2})
    table.add(TASKS, {t: [1.0] * 8 for t in TASKS}, train={t: [0.5] * 8 for t in TASKS})
    found = table.measures().tasks["a"]
    assert found.gap_alone.mean == pytest.approx(75, abs=0.1)
    assert found.gap_together.mean == pytest.approx(50, abs=0.1)
    assert found.gap_change.mean == pytest.approx(25, abs=0.1)


def conflict(lower, upper):
    """Mean cosines of task a and b at two layers, and of all others 0.5."""
    cosines = np.full((3, 3, 3), 0.5)
    for layer, value in enumerate((lower, upper, (lower + upper) / 2)):
        cosines[layer, 0, 1] = cosines[layer, 1, 0] = value
    return {
        "mean_cosines": cosines,
        "cosines": cosines[None],
        "conflict_rate": np.full((3, 3, 3), 0.5),
        "norms": np.ones((3, 3)),
        "first_order": np.zeros((3, 3)),
        "look_ahead": np.zeros((3, 3)),
    }


LOSS = others(a=[1.5])


@pytest.mark.parametrize(
    "lower, upper, layer",
    [(0.2, -0.3, "upper"), (-0.2, -0.3, "lower"), (0.2, 0.1, None)],
)
def test_share_less_from_the_first_layer_of_conflict(lower, upper, layer):
    found = Table().add(TASKS, LOSS, **conflict(lower, upper)).advice()
    assert (found.verdict, found.layer) == ("share less", layer)
    assert "-50.0 %" in str(found)


def test_widen():
    table = Table().add(TASKS, LOSS).add(TASKS, others(a=[1.1]), kind=WIDE)
    assert table.advice().verdict == "widen"
    half = Table().add(TASKS, LOSS).add(TASKS, others(a=[1.3]), kind=WIDE)
    assert half.advice().verdict == "share less"


def test_balance_by_the_remedy_that_changes_most():
    table = Table().add(TASKS, LOSS).add(TASKS, others(a=[1.1]), kind=WIDE)
    table.add(TASKS, others(a=[1.0]), kind="uncertainty")
    table.add(TASKS, others(a=[1.2]), kind="pcgrad")
    found = table.advice(remedies=["uncertainty", "pcgrad"])
    assert (found.verdict, found.remedy) == ("balance", "uncertainty")


def test_what_others_pay_for_is_no_remedy():
    table = Table().add(TASKS, LOSS)
    table.add(TASKS, others(a=[1.0], b=[1.4]), kind="pcgrad")
    found = table.advice(remedies=["pcgrad"])
    assert found.verdict == "share less"
    assert "pcgrad makes up for it, but other tasks pay" in str(found)


@pytest.mark.parametrize("together, verdict", [(1.05, "share less"), (1.08, "balance")])
def test_who_is_at_a_loss_pays_with_any_change_for_the_worse(together, verdict):
    """However much the task gains that the remedy is for."""
    table = Table().add(TASKS, others(a=[5.0], b=[together]))
    for seed, loss in enumerate((1.05, 1.07, 1.06)):
        run = Run(TASKS, seed, "pcgrad")
        losses = others(a=[1.0], b=[loss + SPREAD[seed]])
        record = RunRecord(run, losses, losses, 1.0, 10)
        table.records[TASKS, "pcgrad", 1.0, seed] = record
    assert table.advice(remedies=["pcgrad"]).verdict == verdict


def test_balance_by_epochs():
    """Task a is at its best in the first epoch, the others in the last."""
    losses = {"a": [1.0, 1.5], "b": [2.0, 1.0], "c": [2.0, 1.0]}
    found = Table().add(TASKS, losses).advice()
    assert (found.verdict, found.remedy) == ("balance", "epochs")


def test_leave_out():
    table = Table().add(TASKS, others(a=[1.5], b=[1.2]))
    table.add(("a", "b"), {"a": [1.5], "b": [1.1]})
    table.add(("a", "c"), {"a": [1.5], "c": [1.0]})
    table.add(("b", "c"), {"b": [1.0], "c": [1.0]})
    assert table.advice("a").verdict == "leave out"
    assert table.advice("b").verdict == "share less"
    assert table.advice("c").verdict == "keep"


def test_share_more_with_the_best_partners():
    table = Table().add(("a",), {"a": [1.0]}, train={"a": [0.2]})
    table.add(TASKS, others(a=[0.7]), train={t: [0.6] for t in TASKS})
    table.add(("a", "b"), {"a": [0.8], "b": [1.0]})
    table.add(("a", "c"), {"a": [0.7], "c": [1.0]})
    found = table.advice()
    assert (found.verdict, found.partners) == ("share more", ("c", "b"))


def test_keep_and_not_enough_evidence():
    assert Table().advice().verdict == "keep"
    assert Table().add(TASKS, others(a=[0.7])).advice().verdict == "keep"
    table = Table()
    for seed, loss in enumerate((0.7, 1.0, 1.4)):
        run = Run(TASKS, seed)
        losses = others(a=[loss])
        table.records[TASKS, PLAIN, 1.0, seed] = RunRecord(run, losses, losses, 1.0, 10)
    assert table.advice().verdict == "not enough evidence"


def test_advice_is_data():
    found = Table().advice()
    assert isinstance(found, Advice)
    assert found.to_dict()["verdict"] == "keep"
    assert str(found).startswith("keep: ")
    with pytest.raises(ValueError, match="`margin`"):
        advise(Table().measures(), margin=-1)


def test_a_single_seed_is_no_evidence():
    table = Table()
    table.records = {key: r for key, r in table.records.items() if key[-1] == 0}
    names = {task: f"{task}_loss" for task in TASKS}
    found = measure(TASKS, 1, names, table.higher, table.records, None, [])
    assert {a.verdict for a in advise(found).values()} == {"not enough evidence"}


def test_records_are_read_as_they_were_written(tmp_path):
    run = Run(("a", "b/ü"), 1, "pcgrad", 0.5)
    record = RunRecord(
        run, {"a": [1.0]}, {"a": [np.nan]}, 2.0, 3, ["l"], {"norms": np.eye(2)}
    )
    record.write(tmp_path, "this")
    found = RunRecord.read(tmp_path, run, "this")
    assert found.run == run
    assert found.layers == ["l"]
    np.testing.assert_array_equal(found.arrays["norms"], np.eye(2))
    assert np.isnan(found.validation["a"][0])
    assert RunRecord.read(tmp_path, run, "other") is None
    assert RunRecord.read(tmp_path, Run(("a",), 1)) is None
    assert not list(tmp_path.rglob("*.part"))
