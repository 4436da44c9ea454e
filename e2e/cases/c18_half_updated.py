"""Web and worker of one build are pushed some seconds apart. Expected: no rollout of new web with old worker.

With `agree = "tag"` and a tag for each build. Run it with the folder of `common.py` in PYTHONPATH; 0: the expectation holds."""
from common import *


def run(settle, gap):
    l = start(f'''[[trigger]]
name = "shop"
images.web = {{ repository = "registry.example.com/shop/web", numeric = "highest" }}
images.worker = {{ repository = "registry.example.com/shop/worker", numeric = "highest" }}
agree = "tag"
settle = "{settle}"
target.command = {{ run = ["true"] }}
''')
    push(l, "shop/web", "web-1", tag="1")
    push(l, "shop/worker", "worker-1", tag="1")
    wait(lambda: rollouts(l) and rollouts(l)[0]["state"] == "succeeded", 25)
    push(l, "shop/web", "web-2", tag="2")
    time.sleep(gap)
    push(l, "shop/worker", "worker-2", tag="2")
    wait(lambda: rollouts(l)[0]["images"]["worker"]["digest"] == digest("worker-2"), 25)
    names = {digest(f"{n}-{v}"): v for n in ("web", "worker") for v in (1, 2)}
    seq = [(names[r["images"]["web"]["digest"]], names[r["images"]["worker"]["digest"]]) for r in reversed(rollouts(l))]
    l.stop()
    shutil.rmtree(l.dir, ignore_errors=True)
    return seq


def go():
    for settle, gap in (("0s", 3), ("5s", 3), ("5s", 7)):
        s = run(settle, gap)
        check(f"settle {settle}, {gap} s apart: no mixed set, and both builds", s == [(1, 1), (2, 2)], s)


main(go)
