#!/usr/bin/env bash
# Requests a restore and waits for its result, with the Cloud CLI and jq alone.
#   ./gcloud.sh orders/2026-11-22.dump orders_copy
set -euo pipefail
backup=$1 target=$2
# Use each id once: a second request with it gets the recorded result.
id="example-$(date +%s)-$$"
# A subscription of our own, which receives only our result.
gcloud pubsub subscriptions create "$id" --topic=restore-completions --quiet \
  --message-filter="attributes.request_id = \"$id\"" --expiration-period=1d
trap 'gcloud pubsub subscriptions delete "$id" --quiet' EXIT

jq -nc --arg id "$id" --arg backup "$backup" --arg target "$target" \
  '{request_id: $id, backup: {name: $backup}, target_db: $target}' |
  xargs -0 -I{} gcloud pubsub topics publish restore-requests --message={} --attribute="request_id=$id"

while true; do
  answer=$(gcloud pubsub subscriptions pull "$id" --auto-ack --limit=1 --format='value(message.data)')
  [ -n "$answer" ] && break
  sleep 5
done
echo "$answer" | base64 -d | jq '{status, rows, duration_seconds, error}'
echo "$answer" | base64 -d | jq -e '.status == "success"' >/dev/null
