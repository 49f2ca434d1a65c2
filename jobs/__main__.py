"""`python -m jobs NAME ...` is `prectr NAME ...`."""

from jobs.cli import main

main()
