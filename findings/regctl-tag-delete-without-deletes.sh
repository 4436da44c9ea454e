#!/usr/bin/env bash
# Where a registry refuses every delete, `regctl tag delete` fails, but leaves another image under the tag.
#
# regctl first asks for a delete of the tag. If that is refused, it puts a made-up image under the tag
# and deletes the digest of the made-up image. Here the second delete is refused as well (405), so the
# made-up image stays. CNCF distribution refuses deletes unless storage.delete.enabled is set.
. "$(dirname "$0")/lab.sh"
start_registry false
make_image stable
before=$(crane digest "$host/shop/web:stable")
if regctl tag delete "$host/shop/web:stable" 2>"$work/error"; then fail "regctl tag delete succeeds"; fi
echo "error: $(tail -c 200 "$work/error")"
after=$(crane digest "$host/shop/web:stable")
echo "stable was $before, and is $after"
labels=$(crane config "$host/shop/web:stable")
echo "config: $labels"
[ "$before" != "$after" ] || fail "the tag kept its image"
grep -q '"delete-tag"' <<<"$labels" || fail "the image has no label delete-tag"
