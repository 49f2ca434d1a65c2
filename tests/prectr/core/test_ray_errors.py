"""A `PrectrError` raised inside Ray reaches the user unchanged."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from jobs import cli
from prectr.core.errors import PrectrError, UsageError
from prectr.core.ray_errors import find_user_error


def _mistake() -> None:
    try:
        raise FileNotFoundError("below")
    except FileNotFoundError as error:
        raise UsageError("tables: no such column\nadd it") from error


class Broken:
    """An actor that cannot be made."""

    def __init__(self) -> None:
        _mistake()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def _broken_block(batch: pa.Table) -> pa.Table:
    _mistake()
    return batch


def _in_a_task() -> None:
    import ray

    ray.get(ray.remote(_mistake).remote())


def _in_an_actor() -> None:
    import ray

    ray.get(ray.remote(Broken).remote().__call__.remote(None))


def _in_a_block() -> None:
    import ray.data

    ray.data.from_arrow(pa.table({"row": [1]})).map_batches(_broken_block).materialize()


def _in_an_actor_of_blocks() -> None:
    import ray.data

    pool = ray.data.ActorPoolStrategy(size=1)
    ray.data.from_arrow(pa.table({"row": [1]})).map_batches(Broken, compute=pool).materialize()


@pytest.mark.parametrize("work", [_in_a_task, _in_an_actor, _in_a_block, _in_an_actor_of_blocks])
def test_user_error_comes_out_of_ray_as_a_message(
    work: Callable[[], None],
    ray_local: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: object,
) -> None:
    monkeypatch.setattr("jobs.simulate.run_stage", lambda *_, **__: work())
    with pytest.raises(SystemExit) as stopped:
        cli.main(["simulate", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "prectr: tables: no such column\nadd it\n"


def test_a_bug_inside_ray_stays_a_bug(ray_local: None) -> None:
    import ray

    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(ray.remote(lambda: 1 / 0).remote())
    assert find_user_error(caught.value) is None


def test_only_ray_errors_are_read_for_a_cause() -> None:
    error = PrectrError("as it is")
    assert find_user_error(error) is error
    assert find_user_error(ValueError("prectr.core.errors.PrectrError: quoted")) is None
