# syntax=docker/dockerfile:1
# Two images: `mediad` (the default), and `mediad-agent` with the built-in agent and its Pipecat:
#   docker build -t mediad .
#   docker build -t mediad-agent --target mediad-agent .
# config/compose.yaml runs both, with an Asterisk to call them.

ARG PYTHON=python:3.12-slim-bookworm

# Wheels of mediad, with the compiled core, and of all it needs.
FROM ${PYTHON} AS builder
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
ENV MEDIAD_CORE=require
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

# The agent's wheels as well: a stage of its own, so that mediad's image does not wait for them.
FROM builder AS agent-builder
RUN pip wheel --no-cache-dir --wheel-dir /wheels --find-links /wheels '.[agent]'

# Within a container 127.0.0.1 reaches nobody, so mediad binds every address here; which ports are
# published is the host's choice. Other settings: /etc/mediad/mediad.toml, or MEDIAD_… variables.
FROM ${PYTHON} AS runtime
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin mediad
ENV PYTHONUNBUFFERED=1 \
    MEDIAD_CORE=require \
    MEDIAD_AUDIOSOCKET__HOST=0.0.0.0 \
    MEDIAD_HTTP__HOST=0.0.0.0 \
    MEDIAD_AI__LISTEN_HOST=0.0.0.0

FROM runtime AS mediad-agent
RUN --mount=type=bind,from=agent-builder,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'mediad[agent]'
USER mediad
# Python packages that compile or cache as they run find no home directory.
ENV NUMBA_CACHE_DIR=/tmp/numba
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8765), 2)"]
ENTRYPOINT ["mediad"]
CMD ["agent", "--host", "0.0.0.0"]

FROM runtime AS mediad
ENV STATE_DIRECTORY=/var/lib/mediad
RUN install -d -o mediad -m 0700 "$STATE_DIRECTORY"
VOLUME /var/lib/mediad
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels mediad
USER mediad
# AudioSocket; HTTP; agents that dial in.
EXPOSE 9092 8080 8766
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('MEDIAD_HTTP__PORT', '8080') + '/healthz', timeout=2)"]
ENTRYPOINT ["mediad"]
CMD ["serve"]
