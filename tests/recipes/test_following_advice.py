"""Which networks advice asks for."""

import importlib
import pathlib

import pytest

from keras_mtl.analysis import REMEDIES, Advice

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module("following_advice").networks


def advice(**by_task):
    """Of each task a verdict, and partners or a remedy with it."""
    return {
        task: Advice(task, verdict, "", **more)
        for task, (verdict, more) in by_task.items()
    }


def test_one_for_all(networks):
    (found,) = networks(advice(a=("keep", {}), b=("not enough evidence", {})))
    assert found == (("a", "b"), ("a", "b"), False, None)


def test_apart_but_kept_as_company(networks):
    """Of the one who gains by it, and of no other."""
    more = {"partners": ("a",)}
    found = networks(
        advice(a=("share less", {}), b=("share more", more), c=("keep", {}))
    )
    assert found == [
        (("a",), ("a",), False, None),
        (("a", "b", "c"), ("b", "c"), False, None),
    ]
    found = networks(advice(a=("leave out", {}), b=("keep", more), c=("keep", {})))
    assert found[1].tasks == ("b", "c")


def test_wider_and_with_the_first_remedy(networks):
    balance = {"remedy": "upgrad"}
    (found,) = networks(advice(a=("widen", {}), b=("balance", balance)))
    assert (found.wider, found.compiled) == (True, REMEDIES["upgrad"])
    (found,) = networks(
        advice(a=("balance", {"remedy": "epochs"}), b=("balance", balance))
    )
    assert (found.wider, found.compiled) == (False, REMEDIES["upgrad"])


def test_one_that_is_left_has_no_remedy(networks):
    """An aggregator needs company."""
    found = networks(advice(a=("share less", {}), b=("balance", {"remedy": "upgrad"})))
    assert found[1] == (("b",), ("b",), False, None)
