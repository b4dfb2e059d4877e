# Sourced by the scripts: a private PostgreSQL for the tests, on a free port of loopback, in a directory of its own.
# shellcheck shell=bash

POSTGRES_BIN='/usr/lib/postgresql/*/bin'

install_postgres() {
  compgen -G "$POSTGRES_BIN/initdb" >/dev/null && return
  # The package would otherwise make and start a server of its own on the default port.
  [ -e /etc/postgresql-common ] || {
    install_packages postgresql-common
    sed -i 's/^#\? *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  }
  install_packages postgresql
}

# start_postgres: exports RAFTNODE_TEST_POSTGRES_URL; stop_postgres ends it by its pid.
start_postgres() {
  local bin port
  bin=$(compgen -G "$POSTGRES_BIN" | sort -V | tail -1)
  [ -n "$bin" ] || die "found no PostgreSQL server under $POSTGRES_BIN"
  POSTGRES_DIR=$(mktemp -d /tmp/raftnode-postgres.XXXXXX)
  port=$("$VENV/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  if [ "$(id -u)" = 0 ]; then chown postgres: "$POSTGRES_DIR"; fi
  (unprivileged "$bin/initdb" --pgdata="$POSTGRES_DIR/data" --username=raftnode --auth=trust --encoding=UTF8 --no-sync) \
    >"$POSTGRES_DIR/log" 2>&1 || { cat "$POSTGRES_DIR/log" >&2; die "PostgreSQL could not make its files"; }
  # Without fsync: the tests end their nodes, never this server or the machine.
  unprivileged "$bin/postgres" -D "$POSTGRES_DIR/data" -k "$POSTGRES_DIR" -h 127.0.0.1 -p "$port" -c fsync=off \
    -c max_connections=300 >>"$POSTGRES_DIR/log" 2>&1 &
  POSTGRES_PID=$!
  until "$bin/psql" -h 127.0.0.1 -p "$port" -U raftnode -d postgres -c 'CREATE DATABASE raftnode' >/dev/null 2>&1; do
    kill -0 "$POSTGRES_PID" 2>/dev/null || { cat "$POSTGRES_DIR/log" >&2; die "PostgreSQL did not start"; }
    sleep 0.1
  done
  export RAFTNODE_TEST_POSTGRES_URL="postgresql://raftnode@127.0.0.1:$port/raftnode"
}

stop_postgres() {
  [ -n "${POSTGRES_PID:-}" ] || return 0
  kill -INT "$POSTGRES_PID" 2>/dev/null && wait "$POSTGRES_PID" 2>/dev/null
  rm -rf "$POSTGRES_DIR"
}

# Replaces the (sub)shell it runs in, so that $! is the server's own pid; the server refuses to run as root.
unprivileged() {
  cd / # the caller's directory may be closed to that user
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"
  fi
  exec "$@"
}
