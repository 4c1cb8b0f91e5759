"""Records as data frames, and as CSV and Parquet: one row per question and intervention."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import write_file
from mapflow.results.exchange.content import Exported
from mapflow.results.records.base import JsonlRecord
from mapflow.results.runs.model_names import model_name
from mapflow.results.tables.formats import plain_cell

if TYPE_CHECKING:
    import pandas


def data_frame(records: Sequence[JsonlRecord]) -> pandas.DataFrame:
    """One row per record, one column per field. Videos, the clusters, are in `video_id`."""
    import pandas

    return pandas.DataFrame([vars(record) for record in records])


def write_csv(exported: Exported, path: Path) -> list[Path]:
    """Lists and mappings become JSON, and text that a spreadsheet would run gets an apostrophe."""
    frame = _long(exported).map(lambda value: plain_cell(_packed(value, (list, tuple, dict))))
    text = frame.to_csv(index=False, lineterminator="\n")
    write_file(path, text.encode("utf-8", "backslashreplace"))
    return [path]


def write_parquet(exported: Exported, path: Path) -> list[Path]:
    """Mappings become JSON; lists stay lists."""
    frame = _long(exported).map(lambda value: _packed(value, (dict,)))
    data = io.BytesIO()
    try:
        frame.to_parquet(data, index=False)
    except (ValueError, TypeError, UnicodeError) as error:  # pyarrow's errors are ValueErrors
        raise MapflowError(f"{path}: these records do not fit Parquet ({error})") from None
    write_file(path, data.getvalue())
    return [path]


def _long(exported: Exported) -> pandas.DataFrame:
    """All records of the place, with the model and the benchmark in front of their own fields."""
    frame = data_frame(exported.records).convert_dtypes()
    frame.insert(0, "model", model_name(exported.manifest, exported.place.name))
    frame.insert(1, "benchmark", [record.benchmark for record in exported.records])
    return frame


def _packed(value: Any, kinds: tuple[type, ...]) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, kinds) else value
