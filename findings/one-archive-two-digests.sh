#!/usr/bin/env bash
# One archive of an image (`docker save`, `crane pull`) has another digest for each client that pushes it.
#
# The archive has no manifest of a registry: each client writes one, and compresses layers in its own
# way. So two pipelines that push one archive by different clients move the tag with each push.
. "$(dirname "$0")/lab.sh"
start_registry true
make_image source
crane pull "$host/shop/web:source" "$work/image.tar"
digests=()
for push in crane regctl crane regctl; do
    case $push in
        crane) crane push "$work/image.tar" "$host/shop/web:latest" 2>/dev/null >&2 ;;
        regctl) regctl image import "$host/shop/web:latest" "$work/image.tar" ;;
    esac
    digests+=("$(crane digest "$host/shop/web:latest")")
    echo "after $push: ${digests[-1]}"
done
[ "${digests[0]}" != "${digests[1]}" ] || fail "both clients make one digest"
[ "${digests[0]}" = "${digests[2]}" ] && [ "${digests[1]}" = "${digests[3]}" ] || fail "a client makes another digest each time"
