"""Following a submitted job when the connection, or the cluster, ends before it."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from jobs.cluster import cluster_jobs
from jobs.cluster.cluster_jobs import Submission
from prectr.core.errors import PrectrError


class Client:
    """Ray's, as far as it is used: the log ends after a line; then the job has these states."""

    def __init__(self, *states: JobStatus | Exception) -> None:
        self.states = list(states)

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "a line\n"

    def get_job_status(self, job: str) -> JobStatus:
        state = self.states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(status=JobStatus.FAILED, message="no", driver_exit_code=7)


def test_a_job_outlives_the_connection_that_prints_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster_jobs.time, "sleep", lambda _: None)
    client = Client(JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.FAILED)
    assert cluster_jobs.follow(client, "j") == 7 and client.states == []
    assert capsys.readouterr().out == "a line\n"


def test_a_cluster_that_goes_away_is_told() -> None:
    with pytest.raises(PrectrError, match=r"job j: the cluster no longer answers \(refused\).*submit it again"):
        cluster_jobs.follow(Client(ConnectionError("refused")), "j")

    def refuse(**_: Any) -> str:
        raise ConnectionError("refused")

    with pytest.raises(PrectrError, match=r"the cluster stopped answering \(refused\)"):
        cluster_jobs.submit(SimpleNamespace(submit_job=refuse), Submission(["validate", "/x"]))
