#!/bin/sh
# Follows the live feed with curl, and runs a command for every revision: for a quick script, not for what must miss nothing
# (follow.py keeps its place over restarts).
#
#   TAGTRAIL_API=http://127.0.0.1:8401 examples/follow.sh 'registry.example.com/shop/**:latest' ./on-revision
#
# The command gets the CloudEvent on its standard input.
set -eu
pattern=$1
shift

curl --silent --show-error --fail-with-body --no-buffer --get \
    ${TAGTRAIL_TOKEN:+--header "Authorization: Bearer $TAGTRAIL_TOKEN"} \
    --data-urlencode "match=$pattern" "${TAGTRAIL_API:-http://127.0.0.1:8401}/v1/revisions" |
    while IFS= read -r line; do
        case $line in
        'data: '*) printf '%s\n' "${line#data: }" | "$@" ;;
        esac
    done
