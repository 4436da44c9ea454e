#!/usr/bin/env python3
"""Subscribes to revisions on NATS: prints the current digest of every image, and then every change once.

    pip install nats-py
    NATS_URL=nats://subscriber:…@127.0.0.1:4222 examples/subscribe.py 'tagtrail.revision.registry%2Eexample%2Ecom.shop.>'

The JetStream consumer starts with the last message of each subject. Revisions are delivered at least once, so the program
skips each number that is not above the image's last number.
"""

import asyncio
import json
import os
import sys

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def main(subject):
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    stream = connection.jetstream()
    config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, ack_policy=AckPolicy.NONE)
    seen = {}  # image -> number
    subscription = await stream.subscribe(subject, stream="REVISIONS", ordered_consumer=False, config=config)
    async for message in subscription.messages:
        event = json.loads(message.data)
        # The last message of a subject may be a late push. `head` is the image's current revision.
        head, image = event["data"]["head"], event["subject"]
        if head["revision"] <= seen.get(image, 0):
            continue
        seen[image] = head["revision"]
        print(f"{image}#{head['revision']} {head['digest'] or '-'}", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tagtrail.revision.>"))
    except KeyboardInterrupt:
        pass
