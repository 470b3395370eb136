#!/usr/bin/env bash
# Prints the ten slowest tests of the last `cargo nextest run`, and the total seconds of all tests.
set -euo pipefail
report="${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/nextest/default/junit.xml"
[ -f "$report" ] || exit 0
tests=$(grep -o '<testcase name="[^"]*" classname="[^"]*"[^>]* time="[0-9.]*"' "$report" |
  sed -E 's/<testcase name="([^"]*)" classname="([^"]*)".* time="([0-9.]*)"/\3 \2 \1/' | sort -rn)
echo "slowest of $(wc -l <<<"$tests") tests, $(awk '{ s += $1 } END { printf "%d", s }' <<<"$tests") seconds in total:"
head -10 <<<"$tests"
