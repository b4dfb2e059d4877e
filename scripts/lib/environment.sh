# Sourced by the scripts: makes what they need on a machine that has nothing but python3, and says what it does.
# Everything Python goes into .venv of the checkout; Debian packages are installed only when their program is missing.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
PATH=$PATH:/usr/sbin:/sbin
PYTHON_MIN=3.11

say() { printf '==> %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# make_environment EXTRA: the virtual environment with the project and the extra's packages; reused while it fits.
make_environment() {
  local python stamp
  stamp="$(sha256sum "$ROOT/pyproject.toml" | cut -d' ' -f1) $1"
  if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import raftnode' 2>/dev/null \
    && grep -qxF "$stamp" "$VENV/.made-for" 2>/dev/null; then
    return
  fi
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || die "needs Python $PYTHON_MIN or newer; install one, or name it: PYTHON=/path/to/python3 $0"
    say "making .venv with $("$python" --version)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages "python$("$python" -c \
      'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    "$python" -m venv --clear "$VENV"
  fi
  say "installing the project and its packages into .venv"
  install_with_uv "$1" || pip_install --editable "$ROOT[$1]" \
    || die "pip could not install the packages; they come from PyPI, or from where pip's configuration points"
  echo "$stamp" >>"$VENV/.made-for"
}

pip_install() {
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# install_with_uv EXTRA: takes a quarter of pip's processor time. It does not read pip's configuration, so that pip does
# it where that names an index of its own, and wherever else uv fails.
install_with_uv() {
  ! "$VENV/bin/python" -m pip config list 2>/dev/null | grep -qE '(^|\.)index-url=' && pip_install uv 2>/dev/null \
    && "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --editable "$ROOT[$1]" 2>/dev/null
}

# use_python VERSION: that Python and an environment of its own, from here on.
use_python() {
  local candidate
  for candidate in "python$1" "$HOME/.pyenv/versions/$1"*/bin/python; do
    if "$candidate" -c "import sys; sys.exit('$1' not in ('%d.%d' % sys.version_info[:2], sys.version.split()[0]))" 2>/dev/null; then
      PYTHON=$(command -v "$candidate")
      VENV=$ROOT/.venv-$1
      return
    fi
  done
  die "found no Python $1, neither as python$1 nor under ~/.pyenv/versions; install it, or leave --python out"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$candidate" -c "import sys; sys.exit(sys.version_info < (${PYTHON_MIN/./, }))" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# need PROGRAM PACKAGE ...: installs the packages when the program is missing. The program may be a file pattern.
need() {
  local program=$1
  shift
  command -v "$program" >/dev/null 2>&1 || compgen -G "$program" >/dev/null || install_packages "$@"
}

install_packages() {
  command -v apt-get >/dev/null || die "needs $*, and knows only Debian's apt-get to install packages; install it yourself"
  [ "$(id -u)" = 0 ] || die "needs $*, and may not install it: run it once as root, or: sudo apt-get install $*"
  if [ -z "${APT_UPDATED:-}" ]; then
    say "reading Debian's package lists"
    apt-get update -qq
    APT_UPDATED=yes
  fi
  say "installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
