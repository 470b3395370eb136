#!/usr/bin/env bash
# Sets the project's address, and that for reports of vulnerabilities, in Cargo.toml and everywhere else.
#   scripts/repository.sh https://git.example.org/dba/pgrestored [security@example.org]
set -euo pipefail
cd "$(dirname "$0")/.."
url="${1:-}" security="${2:-}"

case "$url" in
  https://*[!/]) ;;
  *) echo "repository: '$url' is not an address of the form https://HOST/PATH without a slash at its end: use make repository URL=…" >&2; exit 2 ;;
esac

# KEY NEW FILES...: replaces the value of KEY in Cargo.toml, in all these files.
replace() {
  local old new="$2"
  old="$(sed -n "s/^$1 = \"\(.*\)\"/\1/p" Cargo.toml)"
  shift 2
  [ -n "$old" ] || { echo "repository: Cargo.toml has no such line" >&2; exit 1; }
  grep -rlF "$old" "$@" | OLD="$old" NEW="$new" xargs perl -pi -e 's{\Q$ENV{OLD}\E(?![\w-]|\.\w)}{$ENV{NEW}}g'
  echo "repository: $new instead of $old"
}

replace repository "$url" Cargo.toml deploy
[ -z "$security" ] || replace security "$security" Cargo.toml SECURITY.md
