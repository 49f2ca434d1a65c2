"""One side of `make bench-inputs`: a CSV file, every column as text, into Parquet; prints the seconds.

python _inputs_csv.py ours|polars FILE OUT
"""

import sys
import time
from pathlib import Path

import polars as pl

from prectr.data.config import ValidateConfig
from prectr.data.reading.bad_rows import FILE, ROW, BadRows
from prectr.data.reading.reader import Reader


def ours(file: Path, out: Path) -> None:
    """By the one reader, with all of its checks of lines; each chunk becomes a file."""
    out.mkdir()
    with BadRows(None) as bad:
        reader = Reader(bad, ValidateConfig())
        columns = reader.names(file)
        for number, frame in enumerate(reader.chunks(file, columns)):
            frame.drop(FILE, ROW).write_parquet(out / f"{number:06d}.parquet")


def bare_polars(file: Path, out: Path) -> None:
    """By `scan_csv` into `sink_parquet`."""
    pl.scan_csv(file, infer_schema=False).sink_parquet(out)


if __name__ == "__main__":
    side, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    started = time.perf_counter()
    {"ours": ours, "polars": bare_polars}[side](source, target)
    print(time.perf_counter() - started)
