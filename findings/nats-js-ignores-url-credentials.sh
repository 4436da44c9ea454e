#!/usr/bin/env bash
# @nats-io/transport-node 3.4.0: the address nats://USER:PASSWORD@HOST:PORT, which the clients of NATS in Go, Rust and Python and the
# `nats` command take, is cut at its colons: the client dials a port that is not the server's. `user` and `pass` as options work.
. "$(dirname "$0")/nats_lab.sh"
npm install --silent --no-audit --no-fund --prefix "$work" @nats-io/transport-node@3.4.0
cat >"$work/connect.mjs" <<'JAVASCRIPT'
import { connect } from "@nats-io/transport-node";
const [host, user, pass] = process.argv.slice(2);
const tries = { address: { servers: `nats://${user}:${pass}@${host}` }, options: { servers: host, user, pass } };
for (const [name, options] of Object.entries(tries)) {
  try {
    const connection = await connect({ ...options, reconnect: false, timeout: 5000 });
    console.log(name, "connected to", connection.getServer() === host ? "the server" : "another address");
    await connection.close();
  } catch (error) {
    console.log(name, "failed:", error.message, "at port", error.cause?.port ?? "unknown");
  }
}
JAVASCRIPT
run_python <<'PYTHON'
import asyncio, pathlib, subprocess, sys
import nats, nats_lab
work = pathlib.Path(sys.argv[1])
program = nats_lab.program(work, "with @nats-io/transport-node 3.4.0 and nats-py 2.16.0")
[port] = nats_lab.free_ports(1)
command = [program, "--addr", "127.0.0.1", "--port", str(port), "--user", "reader", "--pass", "4242letters"]
with nats_lab.started((port, command)):
    async def python_connects():
        client = await nats.connect(f"nats://reader:4242letters@127.0.0.1:{port}")
        await client.close()
    asyncio.run(python_connects())
    print("nats-py: address connected")
    shown = subprocess.check_output(["node", work / "connect.mjs", f"127.0.0.1:{port}", "reader", "4242letters"], text=True)
    print(shown, end="")
if shown.splitlines() != ["address failed: connection refused at port 4242", "options connected to the server"]:
    raise SystemExit("CHANGED")
PYTHON
