#!/usr/bin/env bash
# Creates tests/fixtures/wrapped/*: one small text in every common compression format, written by the tools themselves
# (Debian: bzip2 lz4 lzip lzop ncompress p7zip-full xz-utils zip zstd). The results are committed; run this
# again only to add one.
set -euo pipefail
cd "$(dirname "$0")/../tests/fixtures/wrapped"
half() { if [ "$1" = 1 ]; then head -c 900 in.sql; else tail -c +901 in.sql; fi; }
both() { "$@" < <(half 1); "$@" < <(half 2); }
skip() { printf '\x5a\x2a\x4d\x18\x05\0\0\0hello'; }

pzstd -q -c in.sql > pzstd.zst
{ skip; zstd -qc < <(half 1); skip; zstd -qc < <(half 2); skip; } > skippable.zst
both zstd -qc > two.zst
zstd -qc --long=31 < in.sql > long31.zst
{ gzip -nc in.sql; head -c 700 /dev/zero; } > zeros.gz
both gzip -nc > two.gz
both bzip2 -c > two.bz2
{ bzip2 -c in.sql; head -c 512 /dev/zero; } > zeros.bz2
{ xz -c < <(half 1); head -c 8 /dev/zero; xz -c < <(half 2); head -c 4 /dev/zero; } > two.xz
xz -c --lzma2=dict=768MiB in.sql > dictionary.xz
xz --format=lzma -c in.sql > known.lzma
both lz4 -qc > two.lz4
{ skip; lz4 -qc < <(half 1); skip; lz4 -qc < <(half 2); skip; } > skippable.lz4
lz4 -lqc in.sql > legacy.lz4
{ lz4 -lqc < <(half 1); lz4 -qc < <(half 2); } > mixed.lz4
both lzip -c > two.lz
{ lzip -c in.sql; head -c 512 /dev/zero; } > zeros.lz
compress -c in.sql > in.Z
lzop -c in.sql > in.lzo
rm -f in.7z in.zip && 7z a -bd in.7z in.sql > /dev/null && zip -q in.zip in.sql
