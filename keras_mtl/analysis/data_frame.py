"""Tables for pandas."""

from collections.abc import Sequence
from typing import Any


def data_frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Any:
    """Returns a `pandas.DataFrame` of rows.

    Args:
        rows: A dict for each row.
        columns: Names of the columns, in order, also where there is no row.

    Raises:
        ImportError: Without pandas, which the extra `analysis` brings.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            'A data frame needs pandas: `pip install "keras_mtl[analysis]"`.'
        ) from error
    return pandas.DataFrame(list(rows), columns=list(columns))
