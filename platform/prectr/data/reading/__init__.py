"""The one reader of users' files: every command that takes a user's file reads it here, with the same rules.

files.py      files of a table and their formats; what lies beside them and is not read
delimited.py  CSV and TSV, as text, by record; faulty lines by their number
json_lines.py JSON lines, as text where a column's type is known
columnar.py   Parquet files and Delta Lake tables
reader.py     chunks of any of them
ahead.py      the next chunk is read while one is worked on
bad_rows.py   counts, examples and the file of the rows that are set aside
values.py     conversion of raw columns to canonical ones; notes the fault of a row that cannot be converted
times.py      the parser of times
"""
