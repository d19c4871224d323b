"""A page of one file, with its pictures in it."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A figure of a page.

    Attributes:
        figure: A matplotlib `Figure`.
        said: What it shows, in a sentence, for who does not see it.
        wide: Whether it takes the width of the page, and is not made smaller than can
            be read on a narrow one, where it is moved sideways in its place.
    """

    figure: Any
    said: str
    wide: bool = False

    @property
    def source(self) -> str:
        """The picture itself, as an address: drawn lines, sharp at any size."""
        import matplotlib

        written = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "keras_mtl"}):
            self.figure.savefig(written, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(
            written.getvalue()
        ).decode("ascii")


def write_page(path: str | Path, template: str, **values: Any) -> Path:
    """Writes a page.

    Args:
        path: File to write. Its folder is made.
        template: Name of a template beside this module.
        **values: What the template shows. Text is escaped.

    Returns:
        The path.

    Raises:
        ImportError: Without Jinja2, which the extra `analysis` brings.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            'A page needs Jinja2 and matplotlib: `pip install "keras_mtl[analysis]"`.'
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_mtl.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = environment.get_template(template).render(values)
    path.write_text(page + "\n", encoding="utf-8")
    return path
