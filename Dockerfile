FROM python:3.11-slim-bookworm AS build
COPY pyproject.toml README.md LICENSE /source/
COPY config /source/config
COPY observer /source/observer
COPY raftnode /source/raftnode
COPY tasks /source/tasks
RUN python -m venv /opt/raftnode \
    && /opt/raftnode/bin/pip install --no-cache-dir --disable-pip-version-check /source

FROM python:3.11-slim-bookworm
# A node must not be the first process of its container: the kernel lets nothing in there kill that one, and a node that
# cannot stop its tasks in time has to be killed. So tini comes first.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/raftnode --shell /usr/sbin/nologin raftnode \
    && install --directory --mode 0700 --owner raftnode --group raftnode /var/lib/raftnode
COPY --from=build /opt/raftnode /opt/raftnode
ENV PATH=/opt/raftnode/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAFTNODE_NODE_DATA_DIR=/var/lib/raftnode
USER raftnode
WORKDIR /var/lib/raftnode
VOLUME /var/lib/raftnode
EXPOSE 8080 38888
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=2 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/ready', timeout=3)"]
ENTRYPOINT ["tini", "--", "raftnode"]
CMD ["run"]
