#!/usr/bin/env bash
# nats-server 2.15.1: two messages, sent one after the other on one connection, name the same condition on another subject, and the
# condition holds. A stream with one copy stores both. A stream with three copies refuses the second (10164), unless the sender waits
# for the acknowledgement of the first, or sends both as one atomic batch.
. "$(dirname "$0")/nats_lab.sh"
run_python <<'PYTHON'
import asyncio, json, pathlib, sys
import nats, nats_lab
work = pathlib.Path(sys.argv[1])
program = nats_lab.program(work, "and nats-py 2.16.0")
ports = nats_lab.free_ports(6)
clients, routes = ports[:3], ports[3:]
servers = []
for number in range(3):
    config = work / f"n{number}.conf"
    config.write_text(f"""
        server_name: n{number}, listen: "127.0.0.1:{clients[number]}"
        jetstream {{ store_dir: "{work}/store{number}" }}
        cluster {{ name: c, listen: "127.0.0.1:{routes[number]}", routes: {json.dumps([f"nats://127.0.0.1:{route}" for route in routes])} }}""")
    servers.append((clients[number], [program, "--config", config]))

async def main():
    client = await nats.connect([f"127.0.0.1:{port}" for port in clients], max_reconnect_attempts=600)

    async def request(subject, body, headers=None):
        answer = json.loads((await client.request(subject, body, timeout=5, headers=headers)).data)
        return answer.get("error", {}).get("err_code") or answer.get("seq")

    async def create(name, copies):
        stream = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "num_replicas": copies, "allow_atomic": True}
        for _ in range(120):
            try:
                answer = json.loads((await client.request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(stream).encode(), timeout=5)).data)
                if "error" not in answer:
                    return
            except Exception:
                pass
            await asyncio.sleep(0.5)
        raise SystemExit("no cluster")

    seen = {}
    for name, copies in (("one", 1), ("three", 3)):
        await create(name, copies)
        fence = await request(f"{name}.fence", b"fence")
        condition = {"Nats-Expected-Last-Subject-Sequence": str(fence), "Nats-Expected-Last-Subject-Sequence-Subject": f"{name}.fence"}
        both = await asyncio.gather(request(f"{name}.a", b"event", condition), request(f"{name}.b", b"event", condition))
        waited = [await request(f"{name}.c", b"event", condition), await request(f"{name}.d", b"event", condition)]
        batch = condition | {"Nats-Batch-Id": "batch"}
        await client.publish(f"{name}.e", b"event", headers=batch | {"Nats-Batch-Sequence": "1"})
        batched = await request(f"{name}.f", b"event", batch | {"Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"})
        seen[copies] = {"sent at once": both, "waited": waited, "end of a batch": batched}
    await client.close()
    for copies, answers in seen.items():
        print(f"copies {copies}:", answers)
    expected = {
        1: {"sent at once": [2, 3], "waited": [4, 5], "end of a batch": 7},
        3: {"sent at once": [2, 10164], "waited": [3, 4], "end of a batch": 6},
    }
    if seen != expected:
        raise SystemExit("CHANGED")

with nats_lab.started(*servers):
    asyncio.run(asyncio.wait_for(main(), 120))
PYTHON
