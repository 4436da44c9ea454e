"""Imported by the findings about NATS: the program of nats-server, free ports, and servers that end with the finding."""

import contextlib
import pathlib
import socket
import subprocess
import time


def program(work, others):
    """The nats-server that pip has unpacked below `work`. Prints its version, and the versions of others."""
    found = next(path for path in pathlib.Path(work).rglob("nats-server") if path.is_file())
    found.chmod(0o755)
    print(subprocess.check_output([found, "--version"], text=True).strip(), others)
    return found


def free_ports(count):
    """Ports of 127.0.0.1 that nothing listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


@contextlib.contextmanager
def started(*servers):
    """Servers, each given as its port and its command, that answer at their ports until the end of the block."""
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _, command in servers]
    try:
        for port, _ in servers:
            wait_for(port)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def wait_for(port):
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("nats-server does not answer")
