"""doctor: what this machine has and lacks, and whether a cluster can be reached."""

from rich.table import Table

from prectr.doctor import Finding, examine
from prectr.reports.terminal import console

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(*, storage: str | None, address: str | None) -> list[Finding]:
    """All findings; see `prectr.doctor.examine`."""
    return list(examine(storage, address))


def print_findings(findings: list[Finding]) -> None:
    """A table for people."""
    table = Table("check", "", "found", "what to do")
    for finding in findings:
        style = _STYLES[finding.status]
        table.add_row(finding.check, f"[{style}]{finding.status}[/]", finding.found, finding.fix)
    console().print(table)


if __name__ == "__main__":
    from jobs.cli import run_job

    run_job("doctor")
