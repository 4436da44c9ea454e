# CNCF distribution 3 and Debian's docker-registry 2. Sourced by scripts/test-registries, whose variables it uses.
# shellcheck shell=bash

distribution_start() {
    deletes='crane-tag regctl-tag skopeo-digest oras-digest' patience=20
    start_distribution "$tools/distribution"
}

# Version 2 refuses a delete by tag: regctl puts a made-up image under the tag, and deletes its digest.
dockerregistry_start() {
    deletes='regctl-tag skopeo-digest oras-digest' patience=20
    start_distribution docker-registry
}

start_distribution() {
    cat >"$folder/config.yml" <<YAML
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $folder/storage }, delete: { enabled: true } }
http: { addr: $host }
notifications:
  endpoints:
    - { name: tagtrail, url: "http://127.0.0.1:$gateway/hooks/main", headers: { Authorization: [Bearer $secret] }, timeout: 1s, threshold: 5, backoff: 1s }
YAML
    cat >"$folder/tagtrail.toml" <<TOML
[[source]]
name = "main"
kind = "distribution"
registry = "$host"
secret = { env = "HOOK_SECRET" }

[[registry]]
name = "$host"
url = "http://$host"
TOML
    start "$folder/registry.log" "$1" serve "$folder/config.yml"
    await 30 curl --silent --fail "http://$host/v2/" || { tail -5 "$folder/registry.log"; fail "$name is not ready"; }
}
