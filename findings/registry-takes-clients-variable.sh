#!/usr/bin/env bash
# The registry does not start where REGISTRY_AUTH_FILE names the credentials of its clients.
#
# crane, skopeo and podman read their credentials from the file that REGISTRY_AUTH_FILE names. The
# registry takes each variable REGISTRY_… for one of its settings, and this one for `auth: file:`.
. "$(dirname "$0")/lab.sh"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
host=127.0.0.1:$port
# The user `user` with the password `lab`.
printf 'user:%s\n' '$2y$04$findingsLabRegistry...m.7V8OP.DLWh/9oED4LfWprKAVSkRS.' >"$work/users"
cat >"$work/config.yml" <<YAML
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $work/storage } }
auth: { htpasswd: { realm: lab, path: $work/users } }
http: { addr: $host }
YAML
export REGISTRY_AUTH_FILE=$work/auth.json
printf '{"auths": {"%s": {"auth": "%s"}}}\n' "$host" "$(printf user:lab | base64)" >"$REGISTRY_AUTH_FILE"

set +e
refusal=$(timeout 20 "$work/tools/distribution" serve "$work/config.yml" 2>&1)
code=$?
set -e
grep -v '^ *$' <<<"$refusal" | sed "s|$work|DIR|" | head -3
printf 'exit with the variable of the clients: %s\n' "$code"
[ "$code" != 0 ] && [ "$code" != 124 ] || fail "the registry starts"
grep -q 'cannot unmarshal' <<<"$refusal" || fail "the registry ends for another reason"

env -u REGISTRY_AUTH_FILE "$work/tools/distribution" serve "$work/config.yml" >"$work/log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do
    crane catalog --insecure "$host" >"$work/catalog" 2>&1 && break
    sleep 0.1
done
crane catalog --insecure "$host" || fail "crane does not read the variable"
printf 'without the variable the registry starts, and crane signs in with it\n'
