#!/usr/bin/env bash
# nats-server 2.15.1: account STREAMS exports the events e.> to READER, as a stream, and takes e.> from WRITER, as a service. An event
# that STREAMS publishes reaches READER; an event that WRITER publishes reaches subscriptions and JetStream of STREAMS, and not READER.
. "$(dirname "$0")/nats_lab.sh"
run_python <<'PYTHON'
import asyncio, pathlib, sys
import nats, nats_lab
work = pathlib.Path(sys.argv[1])
program = nats_lab.program(work, "and nats-py 2.16.0")
[port] = nats_lab.free_ports(1)
url = f"127.0.0.1:{port}"
config = work / "accounts.conf"
config.write_text(f"""
    listen: "{url}"
    jetstream {{ store_dir: "{work}/store" }}
    accounts {{
      STREAMS {{ jetstream: enabled, users: [{{ user: owner, password: owner }}], exports: [{{ stream: "e.>" }}, {{ service: "e.>" }}] }}
      WRITER {{ users: [{{ user: writer, password: writer }}], imports: [{{ service: {{ account: STREAMS, subject: "e.>" }} }}] }}
      READER {{ users: [{{ user: reader, password: reader }}], imports: [{{ stream: {{ account: STREAMS, subject: "e.>" }} }}] }}
    }}""")

async def main():
    owner, writer, reader = [await nats.connect(url, user=user, password=user) for user in ("owner", "writer", "reader")]
    await owner.jetstream().add_stream(name="E", subjects=["e.>"])
    seen = {"STREAMS": [], "READER": []}
    for name, client in (("STREAMS", owner), ("READER", reader)):
        async def take(message, name=name):
            seen[name].append(message.subject)
        await client.subscribe("e.>", cb=take)
        await client.flush()
    for client, subject in ((owner, "e.by-streams"), (writer, "e.by-writer")):
        await client.publish(subject, b"event")
        await client.flush()
    await asyncio.sleep(1)
    stored = (await owner.jetstream().stream_info("E")).state.messages
    for client in (owner, writer, reader):
        await client.close()
    print("stored:", stored, "seen:", seen)
    if (stored, seen) != (2, {"STREAMS": ["e.by-streams", "e.by-writer"], "READER": ["e.by-streams"]}):
        raise SystemExit("CHANGED")

with nats_lab.started((port, [program, "--config", config])):
    asyncio.run(main())
PYTHON
