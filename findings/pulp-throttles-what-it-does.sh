#!/usr/bin/env bash
# Pulp answers 429 to the push of a manifest, and writes the tag some time later.
#
# A push is a task. If the task is not done within 2 s, the client is told to come again, but the task
# stays and is done when a worker has time. A paused worker stands for a busy one. With REGISTRIES, Pulp is
# taken from that folder, if `make test-registries` installed it there.
. "$(dirname "$0")/lab.sh"
source=$root/scripts/test_registries registries=${REGISTRIES:-$work} folder=$work/pulp repositories=()
mkdir "$folder"
chmod 711 "$work" "$folder"
as_user=()
[ "$(id -u)" != 0 ] || as_user=(setpriv --reuid nobody --regid nogroup --clear-groups --)
step() { printf '%s\n' "$*"; }
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    pids+=($!)
}
await() {
    for _ in $(seq "$(($1 * 2))"); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.5; done
    return 1
}
. "$source/pulp.sh"
read -r port extra more < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in sockets))')
host=127.0.0.1:$port
pulp_install
pulp_start
printf 'version: pulpcore %s, pulp-container %s\n' "$(sed -n 's/^pulpcore==\([^ ]*\).*/\1/p' "$source/pulp.txt")" "$(sed -n 's/^pulp-container==\([^ ]*\).*/\1/p' "$source/pulp.txt")"
# The order in which pulp_start starts them: Postgres, content, worker, API.
worker=${pids[-2]}
# A paused process ends only after it goes on, and the folder can be removed only after all have ended.
trap 'kill -CONT "$worker" || true; kill "${pids[@]}" || true; wait; stop' EXIT

export DOCKER_CONFIG=$work/docker
mkdir "$DOCKER_CONFIG"
printf '{"auths":{"%s":{"auth":"%s"}}}\n' "$host" "$(printf '%s:%s' "$user" "$password" | base64 -w 0)" >"$DOCKER_CONFIG/config.json"
make_image first
crane manifest "$host/shop/web:first" >"$work/manifest"
type=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["mediaType"])' "$work/manifest")
scope="repository:shop/web:pull,push"
token=$(curl --silent --fail --user "$user:$password" "http://$host/token/?service=$host&scope=$scope" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])')
request() { curl --silent --output /dev/null --write-out '%{http_code}' --header "Authorization: Bearer $token" "$@"; }
put() { request --request PUT --header "Content-Type: $type" --data-binary "@$work/manifest" "http://$host/v2/shop/web/manifests/$1" >"$work/answer.$1"; }
has() { [ "$(request --head --header "Accept: $type" "http://$host/v2/shop/web/manifests/$1")" = 200 ]; }

kill -STOP "$worker"
puts=()
for tag in t1 t2 t3 t4 t5 t6 t7 t8; do
    put $tag &
    puts+=($!)
done
wait "${puts[@]}"
refused=$(cd "$work" && grep -l '^429$' answer.* | sed 's/answer.//' | tr '\n' ' ')
printf 'answered 429: %s\n' "${refused:-none}"
[ -n "$refused" ] || fail "no push is answered 429"
for tag in $refused; do ! has "$tag" || fail "$tag is written before its task is done"; done
kill -CONT "$worker"
for tag in $refused; do await 60 has "$tag" || fail "$tag, which was answered 429, is not written"; done
printf 'all of these tags are written some seconds later\n'
