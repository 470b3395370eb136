#!/usr/bin/env bash
# Builds the release in target/dist: an archive with the program, its manual, completions and unit, a bill of
# materials, and checksums. The build is reproducible: the same commit with the same toolchain gives the same bytes,
# wherever it is built. `scripts/release.sh --check` builds it a second time in another folder and compares.
set -euo pipefail
cd "$(dirname "$0")/.."

version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
triple="$(rustc -vV | sed -n 's/^host: //p')"
name="pgrestored-$version-$triple"
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH
cargo cyclonedx --version >/dev/null 2>&1 || { echo "release: installing cargo-cyclonedx"; cargo install --quiet --locked cargo-cyclonedx@0.5.9; }

# Keeps paths of this machine (sources, crates) out of the binary.
home="${CARGO_HOME:-$HOME/.cargo}"
build() { # SOURCE TARGET
  local maps="--remap-path-prefix=$1=/src --remap-path-prefix=$home=/cargo"
  local files="-ffile-prefix-map=$1=/src -ffile-prefix-map=$2=/target -ffile-prefix-map=$home=/cargo"
  (cd "$1" && RUSTFLAGS="$maps" CFLAGS="$files" CXXFLAGS="$files" CARGO_TARGET_DIR="$2" \
    cargo build --quiet --release --locked --bin pgrestored)
}

build "$PWD" "$PWD/target/dist-build"
binary=target/dist-build/release/pgrestored
if [ "${1:-}" = --check ]; then
  other="$(mktemp -d)"
  trap 'rm -rf "$other"' EXIT
  git worktree add --quiet --detach "$other/src" HEAD
  build "$other/src" "$other/target"
  git worktree remove --force "$other/src"
  cmp "$binary" "$other/target/release/pgrestored"
  echo "release: both builds are identical"
fi

out=target/dist
rm -rf "$out"
mkdir -p "$out/$name/man" "$out/$name/completions"
install -m 755 "$binary" "$out/$name/"
cp README.md CHANGELOG.md LICENSE deploy/systemd/pgrestored.service "$out/$name/"
"$binary" man "$out/$name/man"
for shell in bash zsh fish; do "$binary" completions "$shell" > "$out/$name/completions/pgrestored.$shell"; done
cargo cyclonedx --quiet --format json --override-filename sbom >/dev/null
sed "s|file://$PWD|file:///src|g" sbom.json > "$out/$name.cdx.json"
rm sbom.json
tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$out" "$name" |
  gzip -9 --no-name > "$out/$name.tar.gz"
rm -rf "${out:?}/$name"
(cd "$out" && sha256sum ./*.tar.gz ./*.cdx.json > SHA256SUMS && ls -l)
# The shared libraries that the program needs at run time.
ldd "$binary"
