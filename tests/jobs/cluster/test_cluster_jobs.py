"""An id of a submission stands for the work: what is submitted when it is given again."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.job_submission import JobStatus

from jobs.cluster.cluster_jobs import Submission, submit
from prectr.core.errors import PrectrError, UsageError

WORK = Submission(["simulate", "--out", "/x"], config="train: {}", submission_id="day")


@dataclass
class Jobs:
    """A cluster's list of jobs, by id."""

    known: dict[str, Any] = field(default_factory=dict)

    def get_job_info(self, job: str) -> Any:
        if job not in self.known:
            raise RuntimeError(f"{job} does not exist")
        return self.known[job]

    def submit_job(self, **told: Any) -> str:
        assert told["submission_id"] not in self.known, "Ray refuses an id that was there before"
        self.known[told["submission_id"]] = Job(told["entrypoint"], told["metadata"])
        return str(told["submission_id"])

    def end(self, job: str, status: str) -> None:
        self.known[job].status = JobStatus(status)


@dataclass
class Job:
    """What Ray tells of one."""

    entrypoint: str
    metadata: dict[str, str]
    status: JobStatus = JobStatus.RUNNING


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "SUCCEEDED"])
def test_work_that_runs_or_is_done_is_not_submitted_again(status: str) -> None:
    jobs = Jobs()
    assert submit(jobs, WORK) == "day"
    jobs.end("day", status)
    assert submit(jobs, WORK) == "day" and len(jobs.known) == 1


def test_work_that_failed_or_was_stopped_is_tried_again_under_the_next_id() -> None:
    jobs = Jobs()
    submit(jobs, WORK)
    jobs.end("day", "FAILED")
    assert submit(jobs, WORK) == "day.2" == submit(jobs, WORK)
    jobs.end("day.2", "STOPPED")
    assert submit(jobs, WORK) == "day.3"
    jobs.end("day.3", "SUCCEEDED")
    assert submit(jobs, WORK) == "day.3" and sorted(jobs.known) == ["day", "day.2", "day.3"]
    assert len({job.entrypoint for job in jobs.known.values()}) == 1


@pytest.mark.parametrize(
    "other",
    [
        Submission(["simulate", "--out", "/y"], config="train: {}", submission_id="day"),
        Submission(["simulate", "--out", "/x"], config="train: {epochs: 3}", submission_id="day"),
    ],
)
def test_an_id_of_other_work_is_refused(other: Submission) -> None:
    jobs = Jobs()
    submit(jobs, WORK)
    with pytest.raises(UsageError, match=r"--id day: is the id of another command there .*; give another one"):
        submit(jobs, other)
    assert len(jobs.known) == 1


def test_a_cluster_that_goes_away_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Connection aborted.")

    for step in ("get_job_info", "submit_job"):
        jobs = Jobs()
        monkeypatch.setattr(jobs, step, lost)
        with pytest.raises(
            PrectrError,
            match=r"the cluster stopped answering \(Connection aborted\.\)\. Run it again with the same --id",
        ):
            submit(jobs, WORK)
