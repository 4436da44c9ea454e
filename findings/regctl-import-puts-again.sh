#!/usr/bin/env bash
# `regctl image import` writes a tag again that has the digest already; `regctl image copy` does not.
#
# So the registry sends a push event for the second import, and none for the second copy: only the
# pull events of questions. `regctl image copy --force-recursive` writes the tag as well.
. "$(dirname "$0")/lab.sh"
start_registry true
make_image source
regctl image export "$host/shop/web:source" "$work/image.tar"
again() {
    "$@" "$host/shop/web:again" ${last:+"$last"} >/dev/null
    sleep 2
    : >"$work/events"
    "$@" "$host/shop/web:again" ${last:+"$last"} >/dev/null
    sleep 2
    grep ' again ' "$work/events" || true
}
last=$work/image.tar
imported=$(again regctl image import)
last=
copied=$(again regctl image copy "$host/shop/web:source")
forced=$(again regctl image copy --force-recursive "$host/shop/web:source")
printf 'second import: %s\nsecond copy: %s\nsecond copy --force-recursive: %s\n' "$imported" "$copied" "$forced"
grep -q '^push again PUT' <<<"$imported" || fail "import sends no push event"
! grep -q '^push' <<<"$copied" || fail "copy sends a push event"
grep -q '^push again PUT' <<<"$forced" || fail "copy --force-recursive sends no push event"
