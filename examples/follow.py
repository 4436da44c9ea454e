#!/usr/bin/env python3
"""Follows the live feed of Tagtrail's API and prints every revision. A lost connection loses no revision.

    TAGTRAIL_API=http://127.0.0.1:8401 TAGTRAIL_TOKEN=… examples/follow.py 'registry.example.com/shop/**:latest'

Needs only Python 3. With --state, a file keeps the id of the last event, and a restart continues after that event.
"""

import argparse
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


def revisions(api, token, pattern, last):
    """Yields (id, event) without end. Starts after the event with the id `last`, and reconnects when needed."""
    while True:
        headers = {"Accept": "text/event-stream"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if last:
            headers["Last-Event-ID"] = last
        url = f"{api}/v1/revisions?{urllib.parse.urlencode({'match': pattern})}"
        try:
            # The API sends a heartbeat every 15 s, so a longer silence means a dead connection.
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=45) as answer:
                name, data, new = "", [], last
                for line in answer:
                    field, _, value = line.decode().rstrip("\r\n").partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        data.append(value)
                    elif field == "id":
                        new = value
                    elif field == "":  # An empty line ends an event. Heartbeats are `event: place`: only their id counts.
                        last = new
                        if name == "revision":
                            yield last, json.loads("\n".join(data))
                        name, data = "", []
        except urllib.error.HTTPError as error:
            if error.code < 500:  # A wrong pattern or a missing token: a retry would not help.
                raise SystemExit(json.load(error).get("detail", str(error)))
        except OSError as error:
            print(f"trying again: {error}", file=sys.stderr)
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="**")
    parser.add_argument("--state", type=pathlib.Path, help="file for the id of the last event")
    arguments = parser.parse_args()
    api = os.environ.get("TAGTRAIL_API", "http://127.0.0.1:8401")
    state = arguments.state
    last = state.read_text() if state and state.exists() else None
    for last, event in revisions(api, os.environ.get("TAGTRAIL_TOKEN"), arguments.pattern, last):
        data = event["data"]
        # First process the event, then store its id: a crash in between repeats the event, but skips none.
        print(f"{event['subject']}#{data['revision']} {data['kind']} {data['digest'] or '-'}", flush=True)
        if state:
            state.write_text(last)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
