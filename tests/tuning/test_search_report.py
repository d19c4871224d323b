"""Reports of searches, and what TensorBoard is told of them."""

import base64
import re

import keras
import keras_tuner
import numpy as np
import pytest

from keras_mtl import tuning

TASKS = ["a", "b", "c"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = {"a": X[:, :1], "b": 2 * X[:, :1] + X[:, 1:2], "c": np.sin(X[:, 2:3])}
PNG = b"\x89PNG\r\n"


def searched(folder, max_trials=5, callbacks=(), **arguments):
    space = tuning.SharingHyperModel(
        keras.Input((6,)),
        [lambda hp: keras.layers.Dense(hp.Choice("units", [4, 8]), "relu")] * 2,
        {task: lambda: keras.layers.Dense(1) for task in TASKS},
        loss=dict.fromkeys(TASKS, "mse"),
        **arguments,
    )
    tuner = keras_tuner.RandomSearch(
        space,
        tuning.weighted_loss_objective(dict.fromkeys(TASKS, 1.0)),
        max_trials=max_trials,
        seed=1,
        directory=folder,
        project_name="search",
    )
    tuner.search(
        X, Y, validation_data=(X, Y), epochs=1, verbose=0, callbacks=list(callbacks)
    )
    return tuner


def rows_of(page):
    return re.findall(r"<tr.*?</tr>", page, re.DOTALL)


def test_a_page_has_the_leaderboard_and_pictures(tmp_path):
    tuner = searched(tmp_path, max_parameters=150)
    results = tuning.trial_results(tuner)
    assert {result.status for result in results} == {"COMPLETED", "FAILED"}
    page = tuning.search_report(tuner, tmp_path / "out" / "r.html", "A & b").read_text()
    assert "<h1>A &amp; b</h1>" in page
    header, *rows = rows_of(page)
    assert "score" in header
    assert len(rows) == len(results)
    for row, result in zip(rows, results, strict=True):
        assert result.trial_id in row
        assert f"{result.parameters:,}" in row
        assert result.sharing in row
        if result.score is None:
            assert "Rejected before training" in row
        else:
            assert f"{result.score:.5g}" in row
    pictures = re.findall(r'alt="([^"]*)" src="data:image/svg[^,]*,([^"]*)"', page)
    trees = [text for text, _ in pictures if text.startswith("Tree of trial")]
    completed = [result for result in results if result.score is not None]
    assert len(trees) == min(len(completed), 4)
    assert len(pictures) == 3 + len(trees)
    for _, picture in pictures:
        assert b"<svg" in base64.b64decode(picture)
    assert "http" not in page  # It opens without a network.


@pytest.mark.parametrize("max_trials", [1, 5])
def test_a_picture(max_trials, tmp_path):
    """Also of a single trial, of which nothing is known that mattered."""
    arguments = {"weighting": ["equal", "uncertainty"]}
    tuner = searched(tmp_path, max_trials, **arguments)
    written = tuning.search_report(tuner, tmp_path / "report.png").read_bytes()
    assert written.startswith(PNG)
    assert len(written) > 20_000


def test_a_search_of_which_all_trials_failed_has_a_page(tmp_path):
    tuner = searched(tmp_path, 2, max_parameters=1)
    page = tuning.search_report(tuner, tmp_path / "report.html").read_text()
    assert page.count("Rejected before training") == 2
    assert "2 trials, 0 of them completed" in page


def test_other_files_and_no_trials_are_errors(tmp_path):
    tuner = keras_tuner.RandomSearch(
        lambda hp: None, "val_loss", max_trials=1, directory=tmp_path
    )
    with pytest.raises(ValueError, match=r"\.html or \.png.*Received: path='r.pdf'"):
        tuning.search_report(tuner, "r.pdf")
    with pytest.raises(ValueError, match="`tuner` must have trials"):
        tuning.search_report(tuner, tmp_path / "r.png")


def test_trials_know_when_they_began(tmp_path):
    results = tuning.trial_results(searched(tmp_path, 4))
    by_number = sorted(results, key=lambda result: result.number)
    assert [result.trial_id for result in by_number] == ["0", "1", "2", "3"]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras Tuner writes them on TensorFlow alone",
)
def test_tensorboard_has_the_hyperparameters_of_each_trial(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    board = keras.callbacks.TensorBoard(tmp_path / "board")
    tuner = searched(tmp_path, 2, callbacks=[board])
    found = {}
    for folder in {path.parent for path in (tmp_path / "board").rglob("*tfevents*")}:
        events = EventAccumulator(str(folder)).Reload()
        try:
            content = events.PluginTagToContent("hparams")
        except KeyError:  # Curves of training, or of validation.
            continue
        if "_hparams_/session_start_info" in content:
            data = plugin_data_pb2.HParamsPluginData.FromString(
                content["_hparams_/session_start_info"]
            )
            start = data.session_start_info
            found[start.group_name] = {
                name: getattr(value, value.WhichOneof("kind"))
                for name, value in start.hparams.items()
            }
    settings = [result.hyperparameters for result in tuning.trial_results(tuner)]
    assert len(found) == len(settings) == 2
    for values in found.values():
        assert any(
            all(setting[name] == pytest.approx(value) for name, value in values.items())
            for setting in settings
        )
        assert {"units", "sharing", "learning_rate"} <= set(values)
