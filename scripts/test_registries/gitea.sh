# Gitea with SQLite. Sourced by scripts/test-registries, whose variables it uses.
# shellcheck shell=bash

gitea_version=v1.26.0
# The hash of the module in the checksum database of Go; Gitea's own go.sum has those of all other modules.
gitea_sum=h1:fJP9dqLbzKrKWUVnCVTfVersZdVDuyJQLEDzCAOmKKA=
gitea=$registries/gitea-$gitea_version

# Builds Gitea in a copy of its module, because `go install` refuses modules with replacements. The program holds its
# templates and texts, but not the scripts of its pages, which a registry does not need.
gitea_install() {
    [ ! -x "$gitea" ] || return 0
    step "building Gitea $gitea_version"
    local module build=$work/gitea-build
    module=$(cd "$work" && GOTOOLCHAIN=local go mod download -json "code.gitea.io/gitea@$gitea_version") || fail "Gitea's module: $module"
    [ "$(field Sum <<<"$module")" = "$gitea_sum" ] || fail "Gitea's module does not have the pinned hash"
    cp -r "$(field Dir <<<"$module")" "$build"
    chmod -R u+w "$build"
    (
        cd "$build"
        export GOTOOLCHAIN=local GOFLAGS=-mod=readonly
        nice go generate -tags bindata ./modules/options ./modules/public ./modules/templates ./modules/migration
        # -buildvcs: the folder is no checkout, but may lie in one.
        CGO_ENABLED=1 nice go build -buildvcs=false -trimpath -ldflags '-s -w' -tags 'bindata sqlite sqlite_unlock_notify' -o gitea .
    ) >"$work/log" 2>&1 || { tail -20 "$work/log"; fail "Gitea can't be built"; }
    mv "$build/gitea" "$gitea.new"
    mv "$gitea.new" "$gitea"
    rm -rf "$build"
}

# Prints a field of a JSON object.
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

gitea_start() {
    # Deletes are dated with the push, and a push without its digest is asked about after 2 s.
    deletes='crane-tag regctl-tag skopeo-digest oras-digest' patience=30
    user=team password=$(openssl rand -hex 16)
    local home=$folder/gitea
    mkdir "$home"
    cat >"$home/app.ini" <<INI
RUN_USER = $("${as_user[@]}" id -un)
WORK_PATH = $home
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = $port
ROOT_URL = http://$host/
DISABLE_SSH = true
OFFLINE_MODE = true
[database]
DB_TYPE = sqlite3
PATH = $home/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = $(openssl rand -hex 32)
[webhook]
ALLOWED_HOST_LIST = loopback
[log]
LEVEL = error
INI
    chmod -R go+rwX "$home"
    [ "$(id -u)" != 0 ] || chown -R nobody "$home"
    local run=("${as_user[@]}" env HOME="$home" "$gitea" --config "$home/app.ini")
    {
        "${run[@]}" migrate
        "${run[@]}" admin user create --admin --username "$user" --password "$password" --email team@example.com --must-change-password=false
    } >"$folder/registry.log" 2>&1 || { tail -5 "$folder/registry.log"; fail "Gitea can't be set up"; }
    start "$folder/registry.log" "${run[@]}" web
    await 60 curl --silent --fail "http://$host/api/v1/version" || { tail -5 "$folder/registry.log"; fail "Gitea is not ready"; }
    curl --silent --show-error --fail --user "$user:$password" --json @- --output "$folder/hook.json" "http://$host/api/v1/user/hooks" <<JSON
{ "type": "gitea", "active": true, "events": ["package"],
  "config": { "url": "http://127.0.0.1:$gateway/hooks/main", "content_type": "json", "secret": "$secret" } }
JSON
    cat >"$folder/tagtrail.toml" <<TOML
[[source]]
name = "main"
kind = "gitea"
registry = "$host"
secret = { env = "HOOK_SECRET" }

[[registry]]
name = "$host"
url = "http://$host"
username = "$user"
password = { env = "REGISTRY_PASSWORD" }
TOML
}
