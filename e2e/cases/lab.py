"""A `tagtrail up` on free ports, for the cases of this folder: python3 e2e/cases/NAME.py

Each case runs alone, talks to Tagtrail by its outside contract, and exits 0 if the expectation of its first line holds, 1 if it does not,
and 2 if the case itself failed. Standard library only. TAGTRAIL names the program; by default it is target/debug/tagtrail.
"""
import contextlib, hashlib, http.server, json, os, pathlib, random, shutil, signal, socket, subprocess, sys, tempfile, threading, time, traceback
import urllib.error, urllib.parse, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TAGTRAIL = os.environ.get("TAGTRAIL", str(ROOT / "target/debug/tagtrail"))
REGISTRY = "registry.example.com"
SECRETS = {"LAB_HOOK_SECRET": "a-hook-secret-of-a-lab", "LAB_SIGNING_KEY": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
SOURCE = f'[[source]]\nname = "main"\nkind = "distribution"\nregistry = "{REGISTRY}"\nsecret = {{ env = "LAB_HOOK_SECRET" }}\n'


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def call(url, method="GET", body=None, headers=None, timeout=10):
    """Returns status, headers and body; status 0 and the error if there is no answer."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
    except OSError as error:
        return 0, {}, str(error).encode()


def wait(f, seconds, pause=0.1):
    """Returns the first true value of `f`, or its last one."""
    end = time.time() + seconds
    while not (value := f()) and time.time() < end:
        time.sleep(pause)
    return value


class Lab:
    """One `tagtrail up` with the triggers of `config`, in a folder of its own. `below` is a command that starts it."""

    def __init__(self, config, env=None, below=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="lab-"))
        os.chmod(self.dir, 0o755)
        self.config = self.dir / "tagtrail.toml"
        self.configure(config)
        gateway, api, admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.gateway, self.api, self.admin = f"http://{gateway}", f"http://{api}", f"http://{admin}"
        self.command = [*below, TAGTRAIL, "up", "--data", str(self.dir / "data"), "--config", str(self.config),
                        "--gateway", gateway, "--api", api, "--admin", admin]
        self.env = {**os.environ, **SECRETS, **(env or {})}

    def configure(self, config):
        self.config.write_text(SOURCE + config)

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.env, cwd=self.dir)
        if not wait(lambda: self.process.poll() is not None or call(self.admin + "/readyz")[0] == 200, 60) or self.process.poll() is not None:
            raise AssertionError("not ready: " + self.log()[-1500:])

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        return self.process.returncode

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def push(self, repository, text, tag="latest"):
        """Reports a push of the digest of `text`, which is returned."""
        pushed, now = digest(text), time.time()
        event = {"id": f"{random.getrandbits(128):032x}", "action": "push", "actor": {"name": "ci-bot"}, "request": {"host": REGISTRY},
                 "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z",
                 "target": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1234, "digest": pushed,
                            "repository": repository, "tag": tag, "url": f"https://{REGISTRY}/v2/{repository}/manifests/{pushed}"}}
        headers = {"Content-Type": "application/vnd.docker.distribution.events.v2+json",
                   "Authorization": "Bearer " + SECRETS["LAB_HOOK_SECRET"]}
        status, _, answer = call(self.gateway + "/hooks/main", "POST", json.dumps({"events": [event]}).encode(), headers)
        assert status == 202, (status, answer)
        return pushed

    def rollouts(self, trigger=None):
        """Returns the rollouts, the newest first."""
        query = urllib.parse.urlencode({"limit": 1000, **({"trigger": trigger} if trigger else {})})
        status, _, answer = call(f"{self.api}/v1/rollouts?{query}")
        return json.loads(answer)["items"] if status == 200 else []


class Receiver:
    """A receiver that answers 204 to each rollout, and keeps the bodies."""

    def __init__(self):
        self.bodies = bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


FAILED = []


def check(claim, holds, found=""):
    print(("ok    " if holds else "FAIL  ") + claim + (f"   [{found}]" if found != "" else ""), flush=True)
    if not holds:
        FAILED.append(claim)


def main(case):
    try:
        case()
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(2)
    sys.exit(1 if FAILED else 0)
