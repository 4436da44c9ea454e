#!/usr/bin/env python3
"""Receives the signed webhook of a trigger, and prints each rollout once.

    python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt
    LISTEN=127.0.0.1:9000 SHOP_WEBHOOK_SECRET=whsec_… ./receiver.py
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SHOP_WEBHOOK_SECRET"].strip())
last = {}  # trigger -> [epoch, number]; a real receiver keeps it on disk


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        # The signature covers the bytes as they came, so nothing may parse and write them anew before.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            return self.answer(401)
        rollout = json.loads(body)["data"]
        # A delivery may come twice, and an older one after a newer one. Numbers of a later epoch begin again.
        place = [rollout["epoch"], rollout["number"]]
        if place > last.get(rollout["trigger"], ["", 0]):
            images = " ".join(image["pinned"] for image in rollout["images"].values())
            print(f"{rollout['trigger']}#{rollout['number']} {images}", flush=True)  # deploy here
            last[rollout["trigger"]] = place
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    host, _, port = os.environ.get("LISTEN", "127.0.0.1:9000").rpartition(":")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
