#!/usr/bin/env bash
# nats-server 2.15.1: a message with a known Nats-Msg-Id is acknowledged as a duplicate. The same messages as an atomic batch, sent
# again after a lost acknowledgement, are an error (10201), and one known id in a batch keeps all of its new messages out.
. "$(dirname "$0")/nats_lab.sh"
run_python <<'PYTHON'
import asyncio, json, pathlib, sys
import nats, nats_lab
work = pathlib.Path(sys.argv[1])
program = nats_lab.program(work, "and nats-py 2.16.0")
[port] = nats_lab.free_ports(1)

async def main():
    client = await nats.connect(f"127.0.0.1:{port}")
    stream = {"name": "E", "subjects": ["e.>"], "storage": "file", "allow_atomic": True}
    await client.request("$JS.API.STREAM.CREATE.E", json.dumps(stream).encode())

    async def batch(name, ids):
        for number, id in enumerate(ids, 1):
            headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number), "Nats-Msg-Id": id}
            if number < len(ids):
                await client.publish(f"e.{id}", b"event", headers=headers)
            else:
                answer = await client.request(f"e.{id}", b"event", headers=headers | {"Nats-Batch-Commit": "1"})
        return json.loads(answer.data)

    async def single(id):
        return json.loads((await client.request(f"e.{id}", b"event", headers={"Nats-Msg-Id": id})).data)

    first = await batch("first", ["a", "b"])
    again = await batch("again", ["a", "b"])
    mixed = await batch("mixed", ["b", "c"])
    one, new = await single("a"), await single("c")
    await client.close()
    code = lambda answer: answer.get("error", {}).get("err_code")
    seen = {
        "batch": first.get("count"), "the same batch again": code(again), "a known and a new message": code(mixed),
        "the known message alone": one.get("duplicate"), "the new message alone": new.get("seq"),
    }
    print(seen)
    if list(seen.values()) != [2, 10201, 10201, True, 3]:
        raise SystemExit("CHANGED")

with nats_lab.started((port, [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", work / "store"])):
    asyncio.run(main())
PYTHON
