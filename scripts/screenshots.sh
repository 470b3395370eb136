#!/usr/bin/env bash
# Takes the pictures of README: the status page of a worker and the page of a proof (docs/images).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh all
modules="$(scripts/tools.sh node)/node_modules"
chromium="$(scripts/tools.sh chromium)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p docs/images

# The test of the page takes its pictures while a restore runs.
TMPDIR="$(scripts/scratch.sh)" PICTURES=true cargo nextest run --test cloud -E 'test(/^page::/)'
cp target/tmp/status-page/desk-running.png docs/images/status.png

cp tests/fixtures/shop18.gzip.dump "$work/shop.dump"
"${CARGO_TARGET_DIR:-target}/debug/pgrestored" verify "$work/shop.dump" --html "$work/proof.html" >/dev/null
NODE_MODULES="$modules" CHROMIUM="$chromium" \
  node tests/browser/screenshot.mjs "file://$work/proof.html" docs/images/proof.png 760
ls -l docs/images
