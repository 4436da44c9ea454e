"""GitHub, GitLab, Jenkins, Slack and receivers with `express.json()` are told of a rollout by settings alone, without a program in between.

The receivers check a request as those products document it. EXPRESS=FOLDER adds the real ones: Express 4 and 5 of
`npm install express@4 express5@npm:express@5` in that folder.
"""
import http.server, json, os, pathlib, subprocess, threading
from lab import Lab, call, check, main, wait

SERVER = '''
const express = require(process.argv[2]); const app = express(); app.use(express.json());
app.post('/hook', (request, answer) => answer.sendStatus(request.body && request.body.data && request.body.data.images ? 204 : 400));
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
'''


def github(path, headers, body):
    if not headers.get("authorization", "").lower().startswith(("bearer ", "token ")):
        return 401
    event = json.loads(body)
    payload = event.get("client_payload", {})
    return 204 if event.get("event_type") and set(event) <= {"event_type", "client_payload"} and len(payload) <= 10 else 422


def slack(path, headers, body):
    message = json.loads(body)
    return 200 if message.get("text") or message.get("blocks") else 400


def gitlab(path, headers, body):
    kind = headers.get("content-type", "").split(";")[0]
    return 201 if kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain") else 415


def jenkins(path, headers, body):
    return 200 if "token=" in path or headers.get("authorization") == "Bearer a-token" or headers.get("token") == "a-token" else 404


def express(path, headers, body):
    # The body parser passes other types over, application/cloudevents+json too.
    read = headers.get("content-type", "").split(";")[0] == "application/json"
    return 204 if read and json.loads(body)["data"]["images"] else 400


class Emulated:
    def __init__(self, judge):
        self.seen = seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append((self.path, headers, body))
                self.send_response(judge(self.path, headers, body))
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


JSON = 'content_type = "application/json"'
# The receiver, its path, the settings of the target, and the same without them: refused, if they matter.
RECEIVERS = {
    "GitHub repository_dispatch": (github, "/repos/acme/deploy/dispatches", '''headers.Authorization = { env = "RECEIVER_TOKEN", prefix = "Bearer " }
body = '{"event_type": "deploy", "client_payload": {"image": {{ images.web.pinned }}, "rollout": {{ number }}}}\''''),
    "Slack incoming webhook": (slack, "/services/T0/B0/x", '''body = '{"text": {{ "deploy " ~ images.web.pinned }}}\''''),
    "GitLab pipeline trigger": (gitlab, "/api/v4/projects/1/ref/main/trigger/pipeline?token=glptt-0123456789", JSON),
    "GitLab pipeline trigger, variables": (gitlab, "/api/v4/projects/1/ref/main/trigger/pipeline?token=glptt-0123456789",
                                           '''body = '{"variables": {"IMAGE": {{ images.web.pinned }}}}\''''),
    "Jenkins, token in the URL": (jenkins, "/generic-webhook-trigger/invoke?token=a-token", JSON),
    "Jenkins, token in a header": (jenkins, "/generic-webhook-trigger/invoke", JSON + '\nheaders.token = { env = "RECEIVER_TOKEN" }'),
    "express.json(), emulated": (express, "/hook", JSON),
}


def trigger(name, receiver, settings):
    return f'''[[trigger]]
name = "{name}"
images.web = "registry.example.com/shop/web:latest"
settle = "0s"
[trigger.target.webhook]
url = {{ env = "URL_{name.upper()}" }}
{receiver}
{settings}
'''


def case():
    emulated = {name: Emulated(judge) for name, (judge, _, _) in RECEIVERS.items()}
    urls = {name: emulated[name].base + path for name, (_, path, _) in RECEIVERS.items()}
    settings = {name: text for name, (_, _, text) in RECEIVERS.items()}
    processes = []
    if folder := os.environ.get("EXPRESS"):
        server = pathlib.Path(folder, "server.js")
        server.write_text(SERVER)
        for package in ("express", "express5"):
            processes.append(subprocess.Popen(["node", server.name, package], cwd=folder, stdout=subprocess.PIPE, text=True))
            urls[package] = f"http://127.0.0.1:{int(processes[-1].stdout.readline())}/hook"
            settings[package] = JSON
    names = {name: f"t{number}" for number, name in enumerate(urls)}
    env = {f"URL_{names[name].upper()}": url for name, url in urls.items()} | {"RECEIVER_TOKEN": "a-token"}
    signed = 'secret = { env = "LAB_SIGNING_KEY" }'
    config = "".join(trigger(names[name], signed if "express" in name else "", settings[name]) for name in urls)
    try:
        with Lab(config, env) as lab:
            lab.push("shop/web", "A")
            wait(lambda: len(lab.rollouts()) == len(urls) and all(one["state"] == "succeeded" for one in lab.rollouts()), 15)
            for name in urls:
                last = lab.rollouts(names[name])[0]
                check(name, last["state"] == "succeeded" and last["attempts"] == 1, last["error"] or "")
            pinned = lab.rollouts("t0")[0]["images"]["web"]["pinned"]
            bodies = {name: json.loads(one.seen[0][2]) for name, one in emulated.items()}
            check("GitHub gets the pinned image and the number", bodies["GitHub repository_dispatch"]["client_payload"] == {"image": pinned, "rollout": 1})
            check("GitLab gets the pinned image", bodies["GitLab pipeline trigger, variables"] == {"variables": {"IMAGE": pinned}})
            check("Slack gets the pinned image", bodies["Slack incoming webhook"] == {"text": f"deploy {pinned}"})
            check("a signed body has the three headers", all(emulated["express.json(), emulated"].seen[0][1].get(f"webhook-{part}") for part in ("id", "timestamp", "signature")))
            log, answer = lab.log(), call(lab.api + "/v1/triggers")[2].decode()
            check("no token is in the log or the API", not any(secret in log + answer for secret in ("a-token", "glptt-0123456789")))
        # Each setting counts: without it the receiver refuses.
        bare = {name: "" for name in ("GitHub repository_dispatch", "Slack incoming webhook", "GitLab pipeline trigger", "Jenkins, token in a header", "express.json(), emulated")}
        for name in bare:
            emulated[name].seen.clear()
        with Lab("".join(trigger(names[name], signed, "") for name in bare), env) as lab:
            lab.push("shop/web", "A")
            wait(lambda: all(emulated[name].seen for name in bare), 15)
            wait(lambda: all(one["error"] for one in lab.rollouts()), 5)
            found = [(one["trigger"], one["state"], one["error"]) for one in lab.rollouts()]
            check("without these settings each of them refuses", len(found) == len(bare) and all(state == "running" and error for _, state, error in found), found)
    finally:
        for process in processes:
            process.kill()


main(case)
