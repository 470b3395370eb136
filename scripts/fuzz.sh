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
run crates/pgdump-mask/fuzz rows
run fuzz request
