#!/usr/bin/env python3
"""Follows the live feed of Tagtrail's API and prints every revision; misses none, whatever breaks in between.

    TAGTRAIL_API=http://127.0.0.1:8401 TAGTRAIL_TOKEN=… examples/follow.py 'registry.example.com/shop/**:latest'

Needs nothing but Python 3. What it has seen last is kept in a file (--state), so it goes on there after a restart too.
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
    """Yields (id, event) for ever. Goes on after the event with the id `last`, also over lost connections."""
    while True:
        headers = {"Accept": "text/event-stream"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if last:
            headers["Last-Event-ID"] = last
        url = f"{api}/v1/revisions?{urllib.parse.urlencode({'match': pattern})}"
        try:
            # Heartbeats come every 15 s: a longer silence is a dead connection.
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
                    elif field == "":  # An empty line ends an event; heartbeats have an id and no data.
                        last = new
                        if name == "revision":
                            yield last, json.loads("\n".join(data))
                        name, data = "", []
        except urllib.error.HTTPError as error:
            if error.code < 500:  # A wrong pattern, a missing token: trying again would not help.
                raise SystemExit(json.load(error).get("detail", str(error)))
        except OSError as error:
            print(f"trying again: {error}", file=sys.stderr)
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="**")
    parser.add_argument("--state", type=pathlib.Path, help="file that keeps what was seen last")
    arguments = parser.parse_args()
    api = os.environ.get("TAGTRAIL_API", "http://127.0.0.1:8401")
    state = arguments.state
    last = state.read_text() if state and state.exists() else None
    for last, event in revisions(api, os.environ.get("TAGTRAIL_TOKEN"), arguments.pattern, last):
        data = event["data"]
        # Do what is to be done first, and note it then: after a crash in between it is done twice, never left out.
        print(f"{event['subject']}#{data['revision']} {data['kind']} {data['digest'] or '-'}", flush=True)
        if state:
            state.write_text(last)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
