"""Pages of one file."""

import base64
import re
import sys

import jinja2
import pytest
from matplotlib.figure import Figure

from keras_mtl.pages import Picture, write_page


def drawn():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [1, 0])
    return figure


def test_a_picture_is_drawn_lines_and_the_same_each_time():
    source = Picture(drawn(), "A line").source
    kind, _, content = source.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(content)
    assert Picture(drawn(), "A line").source == source


def test_text_is_escaped_and_folders_are_made(tmp_path):
    empty = type("Objective", (), {"name": "<b>", "direction": "max"})
    written = write_page(
        tmp_path / "new" / "page.html",
        "search.html",
        title="a < b",
        results=[],
        completed=0,
        seconds=0.0,
        objective=empty,
        pictures=[Picture(drawn(), 'Said "so"', wide=True)],
        steps=[],
        choices=[],
    )
    page = written.read_text()
    assert "<h1>a &lt; b</h1>" in page
    assert "&lt;b&gt;,\nhigher is better" in page
    assert re.search(r'<figure class="wide">\s*<div.*alt="Said &#34;so&#34;"', page)


def test_a_value_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="title"):
        write_page(tmp_path / "page.html", "search.html")


def test_without_jinja_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"keras_mtl\[analysis\]"):
        write_page(tmp_path / "page.html", "search.html", title="t")
