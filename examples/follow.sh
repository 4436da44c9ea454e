#!/bin/sh
# Follows the live feed with curl, and runs a command for every revision. It misses revisions while it
# does not run or is not connected; follow.py does not.
#
#   TAGTRAIL_API=http://127.0.0.1:8401 examples/follow.sh 'registry.example.com/shop/**:latest' ./on-revision
#
# The command receives the CloudEvent on its standard input.
set -eu
pattern=$1
shift

curl --silent --show-error --fail-with-body --no-buffer --get \
    ${TAGTRAIL_TOKEN:+--header "Authorization: Bearer $TAGTRAIL_TOKEN"} \
    --data-urlencode "match=$pattern" "${TAGTRAIL_API:-http://127.0.0.1:8401}/v1/revisions" |
    while IFS= read -r line; do
        # `event: place` is a heartbeat, and `event: dropped` the end of the feed.
        case $line in
        'event: '*) event=${line#event: } ;;
        'data: '*) [ "${event-}" != revision ] || printf '%s\n' "${line#data: }" | "$@" ;;
        esac
    done
