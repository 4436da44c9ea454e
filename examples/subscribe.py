#!/usr/bin/env python3
"""Subscribes to revisions on NATS: prints the current digest of every image, and then every change once.

    python3 -m venv .venv && . .venv/bin/activate && pip install nats-py
    NATS_URL=nats://subscriber:…@127.0.0.1:4222 examples/subscribe.py 'tagtrail.revision.registry%2Eexample%2Ecom.shop.>'

The JetStream consumer starts with the last message of each subject. Revisions are delivered at least once, so the program
skips each number that is not above the image's last number. After any error, silence or gap it connects again and reads on
after the last message: nothing is missed. It ends with code 1 if it can't begin, or can't read for ten minutes.
"""

import asyncio
import json
import os
import sys
import time

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
GIVE_UP = float(os.environ.get("GIVE_UP_SECONDS", "600"))  # without a working connection
seen = {}  # image -> number


class Place:
    """Where to read on: after the last message of this stream."""

    created = None
    sequence = 0
    read_at = None


async def read(subject, place):
    """Reads until an error."""
    # The program reconnects by itself, so that it knows when to read again from its place.
    options = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.2}
    connection = await nats.connect(URL, **options, connect_timeout=5, error_cb=ignore)
    try:
        stream = connection.jetstream()
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=60, deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
        info = await stream.stream_info("REVISIONS")
        if (info.created, info.state.last_seq >= place.sequence) == (place.created, True):
            config.deliver_policy, config.opt_start_seq = DeliverPolicy.BY_START_SEQUENCE, place.sequence + 1
        else:  # the first time, or the stream was made anew or restored: begin with the present state
            place.created, place.sequence = info.created, 0
        subscription = await stream.pull_subscribe(subject, stream="REVISIONS", config=config)
        delivered = 0
        while True:
            place.read_at = time.monotonic()
            try:
                messages = await subscription.fetch(100, timeout=5, heartbeat=1)
            except asyncio.TimeoutError:
                # Nothing new, or nothing left to read from. Fails if the consumer or the connection is gone.
                await subscription.consumer_info()
                info = await stream.stream_info("REVISIONS")
                if (info.created, info.state.last_seq >= place.sequence) != (place.created, True):
                    raise RuntimeError("the stream was made anew, or restored")
                continue
            for message in messages:
                delivered += 1
                if message.metadata.sequence.consumer != delivered:
                    raise RuntimeError("a message was lost on the way")
                show(message)
                place.sequence = message.metadata.sequence.stream
    finally:
        await connection.close()


def show(message):
    try:
        event = json.loads(message.data)
        # The last message of a subject may be a late push. `head` is the image's current revision.
        head, image = event["data"]["head"], event["subject"]
        number, digest = head["revision"], head["digest"] or "-"
    except (ValueError, KeyError, TypeError):
        if message.subject.startswith("tagtrail.revision."):  # the stream also has fences, which are no events
            print(f"skipping a message that is no revision: {message.subject}", file=sys.stderr)
        return
    if number > seen.get(image, 0):
        seen[image] = number
        print(f"{image}#{number} {digest}", flush=True)


async def ignore(_error):
    """The program prints the error that ends its connection."""


async def main(subject):
    place, pause = Place(), 0.5
    while True:
        started = time.monotonic()
        try:
            await read(subject, place)
        except Exception as error:  # of the network, the server or the client: all have one cure
            cause = f"{type(error).__name__}: {error}"
        now = time.monotonic()
        if place.read_at is None or now - place.read_at > GIVE_UP:
            sys.exit(f"can't read revisions: {cause}")
        pause = 0.5 if now - started > 30 else min(pause * 2, 10)
        print(f"reading on in {pause:.0f} s: {cause}", file=sys.stderr)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tagtrail.revision.>"))
    except KeyboardInterrupt:
        pass
