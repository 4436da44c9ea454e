#!/usr/bin/env python3
"""Follows the live feed with the library requests-sse. examples/follow.py does it without a library.

    python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt
    TAGTRAIL_API=http://127.0.0.1:8401 ./follower.py
"""

import json
import os
import time

import requests
from requests_sse import EventSource

api, last = os.environ.get("TAGTRAIL_API", "http://127.0.0.1:8401"), ""
while True:
    try:
        headers = {"Last-Event-ID": last} if last else {}
        with EventSource(f"{api}/v1/revisions", headers=headers, timeout=45, max_connect_retry=0) as events:
            for event in events:
                last = event.last_event_id or last  # each event has an id, `place` too
                if event.type == "revision":
                    revision = json.loads(event.data)
                    print(f"{revision['subject']}#{revision['data']['revision']} {revision['data']['digest']}", flush=True)
    except (requests.RequestException, ConnectionError):
        pass
    time.sleep(1)
