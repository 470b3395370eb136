#!/usr/bin/env bash
# Checks every crate with the oldest Rust that Cargo.toml promises. Needs rustup.
set -euo pipefail
cd "$(dirname "$0")/.."
version="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
command -v rustup >/dev/null || { echo "msrv: rustup is missing: install it from https://rustup.rs" >&2; exit 1; }
rustup run "$version" rustc --version >/dev/null 2>&1 ||
  rustup toolchain install "$version" --profile minimal
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/msrv" cargo "+$version" check --locked --workspace --all-targets
