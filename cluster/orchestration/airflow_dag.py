"""Airflow: the pipeline, once a day, as a job of a Ray cluster; docs/orchestration.md says how retries behave.

It goes into Airflow's folder of DAGs. Workers need `prectr`, PRECTR_ADDRESS and RAY_AUTH_TOKEN. A task holds a worker's
slot while it follows its job, but does no work.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PIPELINE = """
prectr submit --follow --id "pipeline-{{ run_id | replace(':', '.') | replace('+', '.') }}" \
    pipeline --preset cpu-cluster --set pipeline.workspace=/workspace/ws --set pipeline.source=/workspace/log
"""
PUBLISH = """
prectr submit --follow --id "publish-{{ run_id | replace(':', '.') | replace('+', '.') }}" \
    publish /workspace/ws/rankers/prectr-v2 --to redis://prectr-redis:6379/0
"""

with DAG(
    "prectr",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # one pipeline a workspace
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
):
    pipeline = BashOperator(task_id="pipeline", bash_command=PIPELINE)
    publish = BashOperator(task_id="publish", bash_command=PUBLISH)
    pipeline >> publish
