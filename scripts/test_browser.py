"""The work of scripts/test-browser."""

import asyncio
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from test_clients import HOOK_SECRET, ROOT, Program, answers, port, until


async def main():
    # Postgres runs as another user if this is root, and must reach the folder.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tagtrail-browser-"))
    folder.chmod(0o755)
    (folder / "hook").write_text(HOOK_SECRET)
    (folder / "tagtrail.toml").write_text(
        f'[[source]]\nname = "ci"\nkind = "generic"\nregistry = "registry.example.com"\nsecret = {{ file = "{folder}/hook" }}\n'
        '[[trigger]]\nname = "shop"\nimages.web = "registry.example.com/shop/web:latest"\n'
        'target.command = { run = ["/bin/true"] }\n'
    )
    ports = [str(port()) for _ in range(3)]
    api, gateway, admin = ports
    addresses = ["--gateway", f"127.0.0.1:{gateway}", "--api", f"127.0.0.1:{api}", "--admin", f"127.0.0.1:{admin}"]
    binary = os.environ.get("TAGTRAIL_BINARY") or str(ROOT / "target/debug/tagtrail")
    # scripts/setup puts nats-server into .tools.
    environment = {"PATH": f"{ROOT / '.tools'}:{os.environ['PATH']}"}
    up = Program(folder, "up", [binary, "up", "--data", str(folder / "data"), *addresses], cwd=folder, env=environment)
    try:
        shop = f"http://127.0.0.1:{api}/v1/triggers/shop"
        if not await until("tagtrail up is ready", 120, lambda: up.process.poll() is not None or answers(shop)):
            sys.exit(up.text()[-3000:])
        command = ["node", "forgery.mjs", *ports]
        status = subprocess.run(command, cwd=ROOT / ".tools/browser", timeout=300).returncode
        if status:
            print(up.text()[-3000:])
    finally:
        up.process.terminate()
        up.process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
    if status:
        sys.exit("test-browser: failed")
    print("test-browser: all checks passed")


if __name__ == "__main__":
    asyncio.run(main())
