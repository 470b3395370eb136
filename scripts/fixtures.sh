#!/usr/bin/env bash
# Creates tests/fixtures/v*: one small database, dumped by each available pg_dump in each format. The
# results are committed; run this again only to add a version.
set -euo pipefail
cd "$(dirname "$0")/.."
out="$PWD/tests/fixtures"
sql="$PWD/tests/fixtures/small.sql"

for version in 15 16 18; do
  if [ "$version" = 15 ]; then bin=/usr/lib/postgresql/15; else bin="$(scripts/tools.sh "pg$version")"; fi
  bin="$bin/bin"
  work="$(mktemp -d)"
  cp "$sql" "$work/small.sql"
  chmod -R 777 "$work"
  as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
  as "$bin/initdb" -D "$work/data" -U postgres --no-sync -E UTF8 --locale=C.UTF-8 >/dev/null
  as "$bin/pg_ctl" -D "$work/data" -o "-k $work -c listen_addresses=''" -w -l "$work/log" start >/dev/null
  export PGHOST="$work" PGUSER=postgres PGDATABASE=postgres
  "$bin/psql" -qX -c 'CREATE DATABASE small'
  "$bin/psql" -qX -v ON_ERROR_STOP=1 -d small -f "$work/small.sql"
  "$bin/pg_dump" -d small -Fc -f "$out/v$version.custom.dump"
  "$bin/pg_dump" -d small -Fp -f "$out/v$version.plain.sql"
  "$bin/pg_dump" -d small -Fp --inserts --create --clean -f "$out/v$version.inserts.sql"
  "$bin/pg_dump" -d small -Ft -f "$work/tar"
  gzip -9n <"$work/tar" >"$out/v$version.tar.gz"
  "$bin/pg_dump" -d small -Fd -f "$work/dir"
  tar -C "$work/dir" --sort=name --owner=0 --group=0 -c . | gzip -9n >"$out/v$version.directory.tar.gz"
  as "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null
  rm -rf "$work"
done
