# docker build -f cluster/images/serve.Dockerfile -t prectr:serve .
# For serving: the project's pins and the code, without vLLM and without the packages of the tests.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends git wget && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray
WORKDIR /opt/prectr
COPY requirements requirements
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY models models
COPY jobs jobs
COPY serve_apps serve_apps
RUN PYTHON=python3.11 bash requirements/install.sh /opt/venv serve && chown -R ray /opt/prectr
ENV PATH=/opt/venv/bin:$PATH RAY_USAGE_STATS_ENABLED=0 RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1
USER ray
