#!/usr/bin/env bash
# Runs every fuzz target for a time, from the fixtures as seeds. Any finding is a failure.
# FUZZ_SANITIZER=none (address) tries many times as much in the same time, and sees no misuse of memory: this
# crate has no unsafe code, its decompressors have.
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
  # The target reads a byte for the size of its pieces after the text.
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
run fuzz request
