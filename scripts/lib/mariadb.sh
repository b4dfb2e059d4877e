# Sourced by the scripts: a private MariaDB for the tests, on a free port of loopback, in a directory of its own.
# shellcheck shell=bash

install_mariadb() {
  command -v mariadbd >/dev/null && return
  # The package would otherwise start a server of its own on the default port.
  local deny=/usr/sbin/policy-rc.d made=
  [ -e $deny ] || { printf '#!/bin/sh\nexit 101\n' >$deny && chmod +x $deny && made=yes; }
  install_packages mariadb-server
  [ -z "$made" ] || rm -f $deny
}

# start_mariadb: exports RAFTNODE_TEST_MYSQL_URL; stop_mariadb ends it by its pid.
start_mariadb() {
  local port
  MARIADB_DIR=$(mktemp -d /tmp/raftnode-mariadb.XXXXXX)
  port=$("$VENV/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
  if [ "$(id -u)" = 0 ]; then chown mysql: "$MARIADB_DIR"; fi
  (as_mysql mariadb-install-db --no-defaults --datadir="$MARIADB_DIR/data" --skip-test-db \
    --auth-root-authentication-method=normal --innodb-flush-log-at-trx-commit=0) \
    >"$MARIADB_DIR/log" 2>&1 || { cat "$MARIADB_DIR/log" >&2; die "MariaDB could not make its files"; }
  # Not synced: the tests end their nodes, never this server or the machine.
  as_mysql mariadbd --no-defaults --datadir="$MARIADB_DIR/data" --socket="$MARIADB_DIR/socket" --port="$port" \
    --bind-address=127.0.0.1 --pid-file="$MARIADB_DIR/pid" --skip-log-bin --skip-name-resolve \
    --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M --innodb-log-file-size=32M --max-connections=300 \
    >"$MARIADB_DIR/log" 2>&1 &
  MARIADB_PID=$!
  until grep -q "ready for connections" "$MARIADB_DIR/log"; do
    kill -0 "$MARIADB_PID" 2>/dev/null || { cat "$MARIADB_DIR/log" >&2; die "MariaDB did not start"; }
    sleep 0.1
  done
  export RAFTNODE_TEST_MYSQL_URL="mysql://root@127.0.0.1:$port/mysql"
}

stop_mariadb() {
  [ -n "${MARIADB_PID:-}" ] || return 0
  kill -TERM "$MARIADB_PID" 2>/dev/null && wait "$MARIADB_PID" 2>/dev/null
  rm -rf "$MARIADB_DIR"
}

# Replaces the (sub)shell it runs in, so that $! is the server's own pid; the server refuses to run as root.
as_mysql() {
  cd / # the caller's directory may be closed to that user
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=mysql --regid=mysql --init-groups "$@"
  fi
  exec "$@"
}
