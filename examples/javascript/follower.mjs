// Follows the live feed. Both libraries reconnect by themselves, and go on after the last event.
//
//     npm install
//     TAGTRAIL_API=http://127.0.0.1:8401 node follower.mjs                       # eventsource
//     TAGTRAIL_API=http://127.0.0.1:8401 node follower.mjs eventsource-client
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";

const url = `${process.env.TAGTRAIL_API ?? "http://127.0.0.1:8401"}/v1/revisions`;
// Listen by name: `place` and names of later versions are no revisions.
function show(data) {
  const revision = JSON.parse(data);
  console.log(`${revision.subject}#${revision.data.revision} ${revision.data.digest}`);
}

if (process.argv[2] === "eventsource-client") {
  createEventSource({ url, onMessage: ({ event, data }) => event === "revision" && show(data) });
} else {
  // The timer of eventsource for its next attempt does not keep the program alive.
  setInterval(() => {}, 60_000);
  const source = new EventSource(url);
  source.addEventListener("revision", ({ data }) => show(data));
  // An answer such as 503 while the api waits for Postgres ends it, as the standard says.
  source.addEventListener("error", () => source.readyState === EventSource.CLOSED && process.exit(1));
}
