# Sourced by the findings: a temporary folder, the programs, and a registry that reports its events.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
pids=()
stop() {
    for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT

TOOLS=$work/tools "$root/scripts/go-install" \
    distribution=github.com/distribution/distribution/v3/cmd/registry@v3.1.2 \
    crane=github.com/google/go-containerregistry/cmd/crane@v0.22.1 \
    regctl=github.com/regclient/regclient/cmd/regctl@v0.11.7
for tool in distribution crane regctl; do printf 'version: %s\n' "$(cat "$work/tools/$tool.version")"; done

crane() { "$work/tools/crane" "$@"; }
regctl() { REGCTL_CONFIG=$work/regctl.json "$work/tools/regctl" --host "reg=$host,tls=disabled" "$@"; }
fail() { printf 'CHANGED: %s\n' "$*"; exit 1; }

# start_registry DELETE: starts a registry at $host. DELETE is true or false: whether deletes are on.
# The manifests' events are lines of $work/events: action, tag, method.
start_registry() {
    python3 - "$work/events" "$work/ports" <<'PYTHON' &
import http.server, json, socket, sys
events, ports = sys.argv[1:]
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(events, "a") as file:
            for event in body["events"]:
                if "manifest" in event["target"].get("mediaType", ""):
                    print(event["action"], event["target"].get("tag", "-"), event["request"]["method"], file=file)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
free = socket.socket()
free.bind(("127.0.0.1", 0))
port = free.getsockname()[1]
free.close()
with open(ports + ".new", "w") as file: print(receiver.server_port, port, file=file)
import os
os.rename(ports + ".new", ports)
receiver.serve_forever()
PYTHON
    pids+=($!)
    until [ -e "$work/ports" ]; do sleep 0.1; done
    local receiver port
    read -r receiver port <"$work/ports"
    host=127.0.0.1:$port
    cat >"$work/config.yml" <<YAML
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $work/storage }, delete: { enabled: $1 } }
http: { addr: $host }
notifications:
  endpoints: [{ name: finding, url: "http://127.0.0.1:$receiver/", timeout: 1s, threshold: 5, backoff: 1s }]
YAML
    "$work/tools/distribution" serve "$work/config.yml" >"$work/log" 2>&1 &
    pids+=($!)
    curl --silent --fail --retry 20 --retry-connrefused --retry-delay 1 --output /dev/null "http://$host/v2/"
}

# make_image TAG: pushes a small image.
make_image() {
    echo content >"$work/file"
    tar --create --file "$work/layer.tar" --directory "$work" file
    crane append --oci-empty-base --new_layer "$work/layer.tar" --new_tag "$host/shop/web:$1" 2>/dev/null >&2
}
