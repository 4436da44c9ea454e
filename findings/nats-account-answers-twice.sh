#!/usr/bin/env bash
# nats-server 2.15.1: an account without JetStream that imports one subject of $JS.API from the account with the streams gets two
# answers to each request: first "JetStream not enabled for account" (10039), then the right one. A client takes the first, and fails.
# With an import of $JS.API.INFO besides, only the right answer comes, to the other subject too.
. "$(dirname "$0")/nats_lab.sh"
run_python <<'PYTHON'
import asyncio, pathlib, sys
import nats, nats_lab
work = pathlib.Path(sys.argv[1])
program = nats_lab.program(work, "and nats-py 2.16.0")

async def answers(name, imports):
    """The answers to STREAM.INFO that a client of the account OTHER gets."""
    [port] = nats_lab.free_ports(1)
    url = f"127.0.0.1:{port}"
    exported = ", ".join('{ service: "%s" }' % subject for subject in imports)
    imported = ", ".join('{ service: { account: STREAMS, subject: "%s" } }' % subject for subject in imports)
    config = work / (name + ".conf")
    config.write_text(f"""
        listen: "{url}"
        jetstream {{ store_dir: "{work / name}" }}
        accounts {{
          STREAMS {{ jetstream: enabled, users: [{{ user: owner, password: owner }}], exports: [{exported}] }}
          OTHER {{ users: [{{ user: other, password: other }}], imports: [{imported}] }}
        }}""")
    with nats_lab.started((port, [program, "--config", config])):
        owner, other = [await nats.connect(url, user=user, password=user) for user in ("owner", "other")]
        await owner.jetstream().add_stream(name="S", subjects=["s"])
        found, inbox = [], other.new_inbox()
        async def take(message):
            found.append("10039" if b"10039" in message.data else "the stream")
        await other.subscribe(inbox, cb=take)
        await other.publish("$JS.API.STREAM.INFO.S", reply=inbox)
        await other.flush()
        await asyncio.sleep(1)
        await owner.close()
        await other.close()
        return found

async def main():
    alone = await answers("alone", ["$JS.API.STREAM.INFO.S"])
    print("imports STREAM.INFO.S:", alone)
    with_info = await answers("with-info", ["$JS.API.STREAM.INFO.S", "$JS.API.INFO"])
    print("imports STREAM.INFO.S and INFO:", with_info)
    if (alone, with_info) != (["10039", "the stream"], ["the stream"]):
        raise SystemExit("CHANGED")

asyncio.run(main())
PYTHON
