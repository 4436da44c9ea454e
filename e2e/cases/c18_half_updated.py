"""Web and worker of one build are pushed some seconds apart: with `agree = "tag"` no rollout has a new web with an old worker."""
import time
from lab import Lab, check, digest, main, wait

CONFIG = '''
[[trigger]]
name = "shop"
images.web = { repository = "registry.example.com/shop/web", numeric = "highest" }
images.worker = { repository = "registry.example.com/shop/worker", numeric = "highest" }
agree = "tag"
settle = "SETTLE"
target.command = { run = ["true"] }
'''
BUILDS = {digest(f"{name}-{build}"): build for name in ("web", "worker") for build in (1, 2)}


def run(settle, gap):
    """Returns the builds of web and worker in each rollout, the oldest first."""
    with Lab(CONFIG.replace("SETTLE", settle)) as lab:
        lab.push("shop/web", "web-1", tag="1")
        lab.push("shop/worker", "worker-1", tag="1")
        wait(lambda: [one["state"] for one in lab.rollouts("shop")] == ["succeeded"], 25)
        lab.push("shop/web", "web-2", tag="2")
        time.sleep(gap)
        lab.push("shop/worker", "worker-2", tag="2")
        wait(lambda: lab.rollouts("shop")[:1] and lab.rollouts("shop")[0]["images"]["worker"]["digest"] == digest("worker-2"), 25)
        builds = lambda images: tuple(BUILDS[images[name]["digest"]] for name in ("web", "worker"))
        return [builds(one["images"]) for one in reversed(lab.rollouts("shop"))]


def case():
    for settle, gap in (("0s", 3), ("5s", 3), ("5s", 7)):
        found = run(settle, gap)
        check(f"settle {settle}, {gap} s apart: no mixed set, and both builds", found == [(1, 1), (2, 2)], found)


main(case)
