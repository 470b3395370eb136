"""Requests a restore and waits for its result.

    pip install google-cloud-pubsub
    GOOGLE_CLOUD_PROJECT=my-project python restore.py orders/2026-11-22.dump orders_copy

PUBSUB_EMULATOR_HOST works as usual. Exit code 0: restored; 1: not restored, with the reason on standard error.
"""

import json
import os
import sys
import time
import uuid

from google.cloud import pubsub_v1


def restore(backup: str, target: str, timeout: float = 12 * 3600) -> dict:
    """The result event of restoring `backup` into the new database `target`.

    Raises TimeoutError when no answer came within `timeout` seconds: the restore may still be running, and the same
    request_id can be waited for again.
    """
    project = os.environ["GOOGLE_CLOUD_PROJECT"]
    request_id = f"example-{uuid.uuid4()}"
    request = {"request_id": request_id, "backup": {"name": backup}, "target_db": target}

    publisher = pubsub_v1.PublisherClient()
    topic = publisher.topic_path(project, os.environ.get("RESTORE_REQUEST_TOPIC", "restore-requests"))
    publisher.publish(topic, json.dumps(request).encode(), request_id=request_id).result()

    subscriber = pubsub_v1.SubscriberClient()
    name = os.environ.get("RESTORE_COMPLETION_SUBSCRIPTION", "restore-completions")
    subscription = subscriber.subscription_path(project, name)
    deadline = time.monotonic() + timeout
    with subscriber:
        while time.monotonic() < deadline:
            pulled = subscriber.pull(subscription=subscription, max_messages=10, timeout=30, retry=None)
            for received in pulled.received_messages:
                # Results of other requests stay in the subscription.
                if received.message.attributes.get("request_id") != request_id:
                    subscriber.modify_ack_deadline(
                        subscription=subscription, ack_ids=[received.ack_id], ack_deadline_seconds=0
                    )
                    continue
                subscriber.acknowledge(subscription=subscription, ack_ids=[received.ack_id])
                return json.loads(received.message.data)
    raise TimeoutError(f"no answer to {request_id} within {timeout} s")


def main() -> int:
    backup, target = sys.argv[1:3]
    result = restore(backup, target)
    if result["status"] != "success":
        error = result["error"]
        print(f"not restored: {error['reason']} (blame: {error['blame']}): {error['message']}", file=sys.stderr)
        return 1
    print(f"restored {backup} into {target}: {result['rows']} rows in {result['duration_seconds']:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
