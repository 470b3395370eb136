// Requests a restore and waits for its result.
//   npm install @google-cloud/pubsub
//   GOOGLE_CLOUD_PROJECT=my-project node restore.mjs orders/2026-11-22.dump orders_copy
import { randomUUID } from "node:crypto";
import { PubSub } from "@google-cloud/pubsub";

const [backup, target] = process.argv.slice(2);
const pubsub = new PubSub({ projectId: process.env.GOOGLE_CLOUD_PROJECT });
// Use each id once: a second request with it gets the recorded result.
const request_id = `example-${randomUUID()}`;

const answer = new Promise((resolve, reject) => {
  const subscription = pubsub.subscription("restore-completions", { flowControl: { maxMessages: 10 } });
  subscription.on("error", reject);
  subscription.on("message", (message) => {
    // Results of other requests stay in the subscription.
    if (message.attributes.request_id !== request_id) return message.nack();
    message.ack();
    subscription.close().then(() => resolve(JSON.parse(message.data)), reject);
  });
});
await pubsub.topic("restore-requests").publishMessage({
  json: { request_id, backup: { name: backup }, target_db: target },
  attributes: { request_id },
});

const result = await answer;
if (result.status === "success") {
  console.log(`restored ${backup} into ${target}: ${result.rows} rows in ${result.duration_seconds.toFixed(1)} s`);
} else {
  console.error(`not restored: ${result.error.reason} (blame: ${result.error.blame}): ${result.error.message}`);
  process.exitCode = 1;
}
