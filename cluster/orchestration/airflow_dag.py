"""Airflow: a new day of the log is taken in every night, as a job of a Ray cluster (docs/daily.md).

docs/orchestration.md says how retries behave.

It goes into Airflow's folder of DAGs. Workers need `prectr`, PRECTR_ADDRESS and RAY_AUTH_TOKEN. A task holds a worker's
slot while it follows its job, but does no work.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

DAILY = """
prectr submit --follow --id "daily-{{ run_id | replace(':', '.') | replace('+', '.') }}" \
    pipeline --daily --preset cpu-cluster --set pipeline.workspace=/workspace/ws --set pipeline.source=/workspace/log \
    --set pipeline.publish=redis://prectr-features:6379/0
"""

with DAG(
    "prectr",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # one pipeline a workspace
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
):
    BashOperator(task_id="daily", bash_command=DAILY)
