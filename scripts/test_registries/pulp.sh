# Pulp with its own Postgres and without Redis. Pulp sends no webhooks, so Tagtrail only compares.
# Sourced by scripts/test-registries, whose variables it uses.
# shellcheck shell=bash

pulp_venv=$registries/pulp-3.123.1

pulp_install() {
    [ ! -e "$pulp_venv/complete" ] || return 0
    step "installing Pulp"
    rm -rf "$pulp_venv"
    python3 -m venv "$pulp_venv" || fail "install python3-venv"
    nice "$pulp_venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$source/pulp.txt"
    touch "$pulp_venv/complete"
}

# Starts Postgres for Pulp, on a port of its own.
pulp_postgres() {
    local bin
    bin=$(dirname "$(find /usr/lib/postgresql -name initdb | sort -V | tail -1)")
    mkdir "$folder/postgres"
    [ "$(id -u)" != 0 ] || chown nobody "$folder/postgres"
    "${as_user[@]}" "$bin/initdb" --pgdata "$folder/postgres/data" --username pulp --auth trust >/dev/null
    start "$folder/postgres.log" "${as_user[@]}" "$bin/postgres" -D "$folder/postgres/data" -p "$1" -k "" -h 127.0.0.1
    await 30 "$bin/pg_isready" -h 127.0.0.1 -p "$1" || fail "the Postgres of Pulp is not ready"
    "$bin/createdb" -h 127.0.0.1 -p "$1" -U pulp pulp
}

pulp_start() {
    # No delete by tag. A comparison each 5 s finds a difference, which is checked again after half a minute.
    deletes='regctl-tag skopeo-digest oras-digest' patience=90
    user=admin password=$(openssl rand -hex 16)
    local home=$folder/pulp
    mkdir -p "$home/tmp" "$home/media" "$home/static"
    pulp_postgres "$extra"
    openssl ecparam -genkey -name prime256v1 -noout -out "$home/private.pem"
    openssl ec -in "$home/private.pem" -pubout -out "$home/public.pem" 2>/dev/null
    openssl rand -base64 32 >"$home/fields.key"
    cat >"$home/settings.py" <<PYTHON
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "$extra", "NAME": "pulp", "USER": "pulp"}}
SECRET_KEY = "$(openssl rand -hex 32)"
DB_ENCRYPTION_KEY = "$home/fields.key"
DEPLOY_ROOT = "$home"
MEDIA_ROOT = "$home/media"
STATIC_ROOT = "$home/static"
WORKING_DIRECTORY = "$home/tmp"
FILE_UPLOAD_TEMP_DIR = "$home/tmp"
CONTENT_ORIGIN = "http://127.0.0.1:$more"
TOKEN_SERVER = "http://$host/token/"
TOKEN_SIGNATURE_ALGORITHM = "ES256"
PUBLIC_KEY_PATH = "$home/public.pem"
PRIVATE_KEY_PATH = "$home/private.pem"
ANALYTICS = False
PYTHON
    export PULP_SETTINGS=$home/settings.py DJANGO_SETTINGS_MODULE=pulpcore.app.settings
    {
        "$pulp_venv/bin/pulpcore-manager" migrate --noinput
        "$pulp_venv/bin/pulpcore-manager" reset-admin-password --password "$password"
    } >"$folder/registry.log" 2>&1 || { tail -5 "$folder/registry.log"; fail "Pulp can't be set up"; }
    # With one worker each the memory stays small, and a task runs alone.
    start "$folder/content.log" "$pulp_venv/bin/pulpcore-content" --bind "127.0.0.1:$more"
    start "$folder/worker.log" "$pulp_venv/bin/pulpcore-worker"
    start "$folder/registry.log" "$pulp_venv/bin/pulpcore-api" --bind "$host" --workers 2
    await 90 curl --silent --fail "http://$host/pulp/api/v3/status/" || { tail -5 "$folder/registry.log"; fail "Pulp is not ready"; }
    cat >"$folder/tagtrail.toml" <<TOML
[[registry]]
name = "$host"
url = "http://$host"
username = "$user"
password = { env = "REGISTRY_PASSWORD" }
reconcile = "5s"
watch = [$(printf '"%s", ' "${repositories[@]}")]
TOML
}
