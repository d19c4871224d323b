import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

RECIPES = pathlib.Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module("movielens_ranking")


@pytest.mark.skipif(
    os.environ.get("KERAS_MTL_DATA") is None,
    reason="KERAS_MTL_DATA names no directory with the prepared files",
)
@pytest.mark.slow
def test_one_seed(tmp_path):
    arguments = "--seeds 1 --epochs 1 --batch-size 8192 --markdown table.md"
    result = subprocess.run(
        [sys.executable, RECIPES / "movielens_ranking.py", *arguments.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    table = (tmp_path / "table.md").read_text()
    for text in ("shared bottom", "MMoE, position tower", "PLE", "watched NDCG"):
        assert text in table
    assert "position tower: how often" in result.stdout
    assert "NDCG@10 among all test films" in result.stdout
    assert (tmp_path / "movielens_gates.png").stat().st_size > 5_000


def test_dense_parameters_match(recipe):
    meta = {
        "num_users": 7,
        "num_items": 9,
        "genres": ["x"] * 20,
        "seen_probability": np.ones(10),
    }
    options = type("Options", (), {"embedding": 16, "embedding_penalty": 1e-6})
    sizes = {
        kind: recipe.dense_parameters(recipe.build(kind, meta, recipe.TASKS, options))
        for kind in recipe.MODELS
    }
    assert max(sizes.values()) < 1.1 * min(sizes.values()), sizes


def test_ndcg_by_user(recipe):
    user = np.array([1, 0, 1, 0, 1, 2, 2])
    groups = recipe.by_user(user, np.ones(7, bool))
    assert [rows.tolist() for rows in groups] == [[1, 3], [0, 2, 4], [5, 6]]
    relevance = np.array([1.0, 0, 0, 1, 0, 1, 1])
    perfect = recipe.ndcg(groups, relevance, relevance)
    assert perfect == pytest.approx(1)  # user 2 has no order to get wrong
    score = np.array([0.0, 0, 2, 1, 1, 0, 0])
    expected = np.mean([1, 1 / np.log2(4)])
    assert recipe.ndcg(groups, relevance, score) == pytest.approx(expected)


def test_only_rows_that_are_there_make_a_group(recipe):
    groups = recipe.by_user(np.array([0, 1, 0]), np.array([True, False, True]))
    assert [rows.tolist() for rows in groups] == [[0, 2]]
