# docker build -f cluster/images/gpu.Dockerfile -t prectr:gpu .
# For the teacher's workers: the same pins, with vLLM for GPUs. torch brings its CUDA libraries; the host brings the driver.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends build-essential git wget && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray
WORKDIR /opt/prectr
COPY requirements requirements
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY models models
COPY jobs jobs
COPY serve_apps serve_apps
RUN python3.11 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -c requirements/constraints.txt -r requirements/runtime.txt hatchling editables \
    && /opt/venv/bin/pip install --no-cache-dir vllm==0.32.0 \
    && /opt/venv/bin/pip install --no-cache-dir --no-build-isolation --no-deps --editable . && chown -R ray /opt/prectr
ENV PATH=/opt/venv/bin:$PATH RAY_USAGE_STATS_ENABLED=0
USER ray
