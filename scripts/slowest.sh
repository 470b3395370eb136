#!/usr/bin/env bash
# Prints the ten slowest tests of the last `cargo nextest run`, the total seconds of all tests, and the tests that were
# skipped for want of a tool.
set -euo pipefail
report="${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/nextest/default/junit.xml"
[ -f "$report" ] || exit 0
tests=$(grep -o '<testcase name="[^"]*" classname="[^"]*"[^>]* time="[0-9.]*"' "$report" |
  sed -E 's/<testcase name="([^"]*)" classname="([^"]*)".* time="([0-9.]*)"/\3 \2 \1/' | sort -rn)
echo "slowest of $(wc -l <<<"$tests") tests, $(awk '{ s += $1 } END { printf "%d", s }' <<<"$tests") seconds in total:"
head -10 <<<"$tests"

# The report has what each test printed; the tests print SKIPPED (tests/support/tools.rs).
skipped=$(awk '
  /<testcase / { test = $0; sub(/.*<testcase name="/, "", test); sub(/".*/, "", test) }
  /(^|>)SKIPPED: / { why = $0; sub(/.*SKIPPED: /, "", why); sub(/<.*/, "", why); print test ": " why }
' "$report" | sed "s/&apos;/'/g; s/&quot;/\"/g; s/&amp;/\&/g" | sort -u)
if [ -n "$skipped" ]; then
  echo "SKIPPED, completely or in part, in spite of their PASS:"
  # shellcheck disable=SC2001
  sed 's/^/  /' <<<"$skipped"
else
  echo "no test was skipped"
fi
