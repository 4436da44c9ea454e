"""The work of scripts/test-clients."""

import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).parent.parent
TOOLS = ROOT / ".tools/clients"
SECRET, HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hook-secret-of-the-tests"
PYTHON = str(TOOLS / "venv/bin/python")
EXAMPLES = TOOLS / "examples"  # a copy, so that no package lands in the source

# language: (command that installs, receiver, {name of a follower: command}); commands run in its folder
LANGUAGES = {
    "python": (
        [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"],
        [PYTHON, "receiver.py"],
        {"requests-sse": [PYTHON, "follower.py"], "follow.py": [PYTHON, "../follow.py"]},
    ),
    "javascript": (
        ["npm", "install", "--silent", "--no-audit", "--no-fund"],
        ["node", "receiver.mjs"],
        {"eventsource": ["node", "follower.mjs"], "eventsource-client": ["node", "follower.mjs", "eventsource-client"]},
    ),
    "go": (["go", "build", "-o", "bin/", "./..."], ["bin/receiver"], {"go-sse": ["bin/follower"]}),
    "java": (
        ["mvn", "--quiet", "--batch-mode", "compile", "dependency:copy-dependencies"],
        ["java", "-cp", "target/classes:target/dependency/*", "Receiver"],
        {"okhttp-eventsource": ["java", "-cp", "target/classes:target/dependency/*", "Follower"]},
    ),
    "rust": (
        ["cargo", "build", "--quiet"],
        ["target/debug/receiver"],
        {"reqwest-eventsource": ["target/debug/follower"]},
    ),
}


def port():
    # Below the range that the system gives to outgoing connections, which could take the port.
    while True:
        number = random.randrange(12_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", number))
            return number


class Program:
    """A process that ends with the test; its output is in a file."""

    def __init__(self, folder, name, command, **options):
        self.log = folder / f"{name}.log"
        environment = {**os.environ, **options.pop("env", {})}
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        self.process = subprocess.Popen(command, stdout=self.log.open("wb"), stderr=subprocess.STDOUT, env=environment, **options)

    def text(self):
        return self.log.read_text(errors="replace")


class Proxy:
    """A TCP proxy in front of the API. While cut, it refuses connections."""

    def __init__(self, target):
        self.target, self.open, self.port, self.count = target, set(), None, 0

    async def start(self):
        if self.port is None:
            self.port = port()
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", self.port)

    async def cut(self):
        self.server.close()
        for writer in list(self.open):
            writer.transport.abort()

    async def carry(self, reader, writer):
        self.count += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.close()
        self.open |= {writer, back}
        try:
            await asyncio.gather(self.copy(reader, back), self.copy(there, writer), return_exceptions=True)
        except asyncio.CancelledError:
            pass  # the test is over
        self.open -= {writer, back}

    async def copy(self, source, sink):
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()


async def until(what, seconds, ask):
    deadline = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > deadline:
            return print(f"FAILED: {what}", flush=True) or False
        await asyncio.sleep(0.2)
    return True


def post(url, body, headers):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def install(languages):
    for name in languages:
        (EXAMPLES / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "examples", EXAMPLES, dirs_exist_ok=True)
    for name in languages:
        print(f"installing the packages of {name}", flush=True)
        subprocess.run(LANGUAGES[name][0], cwd=EXAMPLES / name, check=True)


def configure(folder, receivers):
    text = f'[[source]]\nname = "ci"\nkind = "generic"\nregistry = "registry.example.com"\nsecret = {{ file = "{folder}/hook" }}\n'
    for name, address in receivers.items():
        text += (
            f'[[trigger]]\nname = "{name}"\nsettle = "0s"\nimages.web = "registry.example.com/shop/web:latest"\n'
            f'target.webhook = {{ url = "http://{address}/", secret = {{ file = "{folder}/secret" }} }}\n'
        )
    (folder / "hook").write_text(HOOK_SECRET)
    (folder / "secret").write_text(SECRET)
    (folder / "tagtrail.toml").write_text(text)


def begin(folder, languages, receivers):
    for name, address in receivers.items():
        environment = {"LISTEN": address, "SHOP_WEBHOOK_SECRET": SECRET}
        yield name, Program(folder, f"receiver-{name}", LANGUAGES[name][1], cwd=EXAMPLES / name, env=environment)


async def follow(folder, languages, api, push):
    """Cuts each follower before its first revision. Returns what failed."""
    proxies, followers = {}, {}
    for name in languages:
        for client, command in LANGUAGES[name][2].items():
            proxies[client] = Proxy(api)
            await proxies[client].start()
            environment = {"TAGTRAIL_API": f"http://127.0.0.1:{proxies[client].port}", "PYTHONUNBUFFERED": "1"}
            followers[client] = Program(folder, f"follower-{client}", command, cwd=EXAMPLES / name, env=environment)
    failed = []
    if not await until("all followers connect", 60, lambda: all(proxy.count for proxy in proxies.values())):
        return ["connecting"]
    await asyncio.sleep(3)  # the first place is on its way
    for proxy in proxies.values():
        await proxy.cut()
    await push(1)
    await asyncio.sleep(3)
    for proxy in proxies.values():
        await proxy.start()
    await asyncio.sleep(1)
    await push(2)
    for client, program in followers.items():
        lines = lambda n: program.text().count(f"shop/web:latest#{n} ")
        seen = await until(f"{client} prints revisions 1 and 2", 60, lambda: lines(1) and lines(2))
        if not seen or lines(1) != 1 or lines(2) != 1:
            failed.append(client)
            print(f"--- {client}, {lines(1)} and {lines(2)} times:\n{program.text()[-1500:]}", flush=True)
        else:
            print(f"follower {client}: passed", flush=True)
    return failed


async def receive(programs, receivers):
    failed = []
    for name, program in programs.items():
        good = await until(f"the receiver in {name} gets rollout 2", 60, lambda: f"{name}#2 registry.example.com/shop/web@" in program.text())
        forged = {"webhook-id": "x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
        status = post(f"http://{receivers[name]}/", {"data": {"trigger": name, "number": 9, "images": {}}}, forged)
        if good and status == 401 and "#9" not in program.text():
            print(f"receiver in {name}: passed", flush=True)
        else:
            failed.append(f"receiver in {name}")
            print(f"--- receiver in {name}, {status} for a forged rollout:\n{program.text()[-1500:]}", flush=True)
    return failed


async def main(languages):
    install(languages)
    # Postgres runs as another user if this is root, and must reach the folder.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tagtrail-clients-"))
    folder.chmod(0o755)
    receivers = {name: f"127.0.0.1:{port()}" for name in languages}
    configure(folder, receivers)
    programs = dict(begin(folder, languages, receivers))
    gateway, api = port(), port()
    addresses = ["--gateway", f"127.0.0.1:{gateway}", "--api", f"127.0.0.1:{api}", "--admin", f"127.0.0.1:{port()}"]
    binary = os.environ.get("TAGTRAIL_BINARY") or str(ROOT / "target/debug/tagtrail")
    command = [binary, "up", "--data", str(folder / "data"), *addresses]
    # scripts/setup puts nats-server into .tools.
    path = f"{ROOT / '.tools'}:{os.environ['PATH']}"
    up = Program(folder, "up", command, cwd=folder, env={"PATH": path})
    try:
        endpoints = folder / "data/endpoints.json"
        await until("tagtrail up is ready", 120, lambda: endpoints.exists() or up.process.poll() is not None)
        if not endpoints.exists():
            sys.exit(up.text()[-3000:])

        await until("the live feed answers", 60, lambda: answers(f"http://127.0.0.1:{api}/v1/revisions"))

        async def push(number):
            digest = "sha256:" + hashlib.sha256(str(number).encode()).hexdigest()
            body = {"repository": "shop/web", "tag": "latest", "digest": digest}
            headers = {"authorization": f"Bearer {HOOK_SECRET}"}
            hook = f"http://127.0.0.1:{gateway}/hooks/ci"
            await until(f"push {number}", 60, lambda: post(hook, body, headers) == 202)

        failed = await follow(folder, languages, api, push) + await receive(programs, receivers)
    finally:
        for program in (*programs.values(), up):
            program.process.terminate()
        up.process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        sys.exit("test-clients: failed: " + ", ".join(failed))
    print("test-clients: all clients passed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or list(LANGUAGES)))
