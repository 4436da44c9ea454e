// Receives the signed webhook of a trigger, and prints each rollout once.
//
//     npm install
//     LISTEN=127.0.0.1:9000 SHOP_WEBHOOK_SECRET=whsec_… node receiver.mjs
import http from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.SHOP_WEBHOOK_SECRET.trim());
const last = new Map(); // trigger -> epoch and number; a real receiver keeps it on disk

http.createServer(async (request, response) => {
  // The signature covers the body as it came. The library takes it as text: it refuses a Uint8Array.
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString("utf8");
  try {
    webhook.verify(body, request.headers);
  } catch {
    return response.writeHead(401).end();
  }
  const rollout = JSON.parse(body).data;
  // A delivery may come twice, and an older one after a newer one. Numbers of a later epoch begin again.
  const { epoch, number } = last.get(rollout.trigger) ?? { epoch: "", number: 0 };
  if (rollout.epoch > epoch || (rollout.epoch === epoch && rollout.number > number)) {
    const images = Object.values(rollout.images).map((image) => image.pinned);
    console.log(`${rollout.trigger}#${rollout.number} ${images.join(" ")}`); // deploy here
    last.set(rollout.trigger, rollout);
  }
  response.writeHead(204).end();
}).listen(...(process.env.LISTEN ?? "127.0.0.1:9000").split(":").reverse());
