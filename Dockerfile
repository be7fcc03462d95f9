# One image for commands, workers and flow runs, on CPUs and GPUs; see docs/kubernetes.md.
#
#   docker build --tag e2urec:0.1.0 .                                       with CUDA
#   docker build --tag e2urec:0.1.0-cpu --build-arg TORCH_INDEX=ADDRESS .   without, smaller; ADDRESS: PyTorch's index of CPU builds
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# A further index for torch; empty: the public one, whose torch brings CUDA on Linux.
ARG TORCH_INDEX=""
ARG EXTRAS="k8s,postgres,pollution"

# The first process of a container must hand signals on and take leave of dead processes; tini does.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 e2urec \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin e2urec \
    && install --directory --owner 10001 --group 10001 --mode 0750 /workspace

WORKDIR /app

# What it needs comes before the code, so that a change of code alone leaves this layer as it is.
COPY pyproject.toml constraints.txt README.md ./
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX" pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && rm -rf build *.egg-info

# HOME is below /tmp, the one folder beside /workspace that must be writable.
ENV HOME=/tmp \
    E2UREC_WORKSPACE=/workspace \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONWARNINGS=ignore \
    GIT_PYTHON_REFRESH=quiet \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=120 \
    PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false \
    PREFECT_CLI_PROMPT=false \
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_HTTP_REQUEST_MAX_RETRIES=0 \
    MLFLOW_HTTP_REQUEST_TIMEOUT=30 \
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HUB_DISABLE_PROGRESS_BARS=1 \
    TRANSFORMERS_VERBOSITY=error \
    RAY_USAGE_STATS_ENABLED=0

COPY prefect.yaml ./
COPY deploy ./deploy
COPY data_contracts ./data_contracts
COPY e2urec_core ./e2urec_core
COPY tasks ./tasks
COPY flows ./flows
# The command and the flows that a worker starts are the same files, those of /app.
RUN pip install --no-cache-dir --no-deps --editable . \
    && python -m compileall -q data_contracts e2urec_core tasks flows

USER 10001:10001
VOLUME /workspace
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["e2urec", "--help"]
