#!/usr/bin/env bash
# Runs every fuzz target for a limited time, with the fixtures as seeds. Any finding is a failure.
# FUZZ_SANITIZER=none (default: address) runs many times more inputs in the same time but detects no memory errors:
# this crate has no unsafe code, but its decompressors have.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${FUZZ_SECONDS:-60}"

cargo +nightly --version >/dev/null 2>&1 || {
  echo "fuzz: a nightly toolchain is missing: rustup toolchain install nightly" >&2
  exit 1
}
cargo fuzz --version >/dev/null 2>&1 || { echo "fuzz: installing cargo-fuzz"; cargo install --quiet --locked cargo-fuzz; }

archive=crates/pgdump-archive/fuzz
mkdir -p "$archive/corpus/archive" "$archive/corpus/script"
for seed in tests/fixtures/v*; do
  cp "$seed" "$archive/corpus/archive/"
done
for seed in tests/fixtures/v*.sql; do
  # The target reads the chunk size from a byte after the text.
  cp "$seed" "$archive/corpus/script/"
done
mask=crates/pgdump-mask/fuzz
mkdir -p "$mask/corpus/rules"
# A file of rules, a byte 0, and a row of the target's table.
{
  cat <<'YAML'
version: 1
unlisted: keep
tables:
  s.t:
    columns:
      a: { hash: true }
      b: { fake: email }
      c: { template: "x{a}" }
      d: { replace: { regex: "[a-z]", with: "$0" } }
      e: { noise: 10% }
      f: { digits: true }
      i: { shift: 30d, by: a }
      k: { json: { $.a: { set: 1 }, "$.b[*]": { null: true } } }
      l: { each: { truncate: 2 } }
    rows: { share: 50, by: a, where: { e: { from: 1 } } }
  "*.*": { columns: { "*": keep } }
YAML
  printf '\0%s\n' $'7\tAda\tx\ty\t5\t0.1234\t1.5\t00000000-0000-0000-0000-000000000000\t2024-01-31\t2024-01-31 12:00:00+00\t{"a": 1, "b": ["x"]}\t{ab,NULL}'
} >"$mask/corpus/rules/seed"
run() {
  local folder="$1" target="$2"
  echo "fuzz: $target for $seconds s"
  cargo +nightly fuzz run --fuzz-dir "$folder" --sanitizer "${FUZZ_SANITIZER:-address}" "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 2>&1 | tail -25 >"$folder/$target.log" || {
    cat "$folder/$target.log"
    exit 1
  }
  grep -E "number_of_executed_units|stat::peak_rss_mb" "$folder/$target.log"
}
for target in lexer archive script folder wrapped tar; do
  run "$archive" "$target"
done
for target in rows rules; do
  run "$mask" "$target"
done
run fuzz request
