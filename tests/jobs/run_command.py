"""Run a command of `prectr` in this process."""

from collections.abc import Callable

import pytest

from jobs import cli

Prectr = Callable[..., tuple[int, str, str]]
"""Takes the words of a command line; gives exit code, standard output and standard error."""


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """See `Prectr`."""
    capsys.readouterr()
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err
