"""The data folder is lost, and Tagtrail starts anew: a receiver that compares (epoch, number) still deploys, and one that compares numbers
alone does after `tagtrail trigger renumber` and `tagtrail rollout`."""
import json, shutil, subprocess, time
from lab import Lab, Receiver, check, digest, main, wait

CONFIG = '''
[[trigger]]
name = "shop"
images.web = "registry.example.com/shop/web:latest"
settle = "0s"
target.webhook = { url = "URL", secret = { env = "LAB_SIGNING_KEY" } }
'''


def applied(receiver, place):
    """Returns the digests that a receiver deploys that drops what is not above the highest place of the trigger."""
    highest, found = None, []
    for body in receiver.bodies:
        rollout = json.loads(body)["data"]
        if highest is None or place(rollout) > highest:
            highest = place(rollout)
            found.append(rollout["images"]["web"]["digest"])
    return found


def case():
    with Receiver() as receiver, Lab(CONFIG.replace("URL", receiver.url)) as lab:
        for build in range(5):
            lab.push("shop/web", f"A{build}")
            wait(lambda: len(receiver.bodies) > build, 15)
        lab.stop()
        shutil.rmtree(lab.dir / "data")
        lab.start()
        lab.push("shop/web", "NEW")
        wait(lambda: len(receiver.bodies) > 5, 15)
        both = applied(receiver, lambda rollout: (rollout["epoch"], rollout["number"]))
        check("after a loss of the data folder a receiver that compares (epoch, number) deploys", both[-1] == digest("NEW"), both)
        number = applied(receiver, lambda rollout: rollout["number"])
        check("one that compares numbers alone does not", number[-1] == digest("A4"), number)
        for command in (["trigger", "renumber", "shop", "--above", "5"], ["rollout", "shop"]):
            done = subprocess.run([lab.command[0], *command], env={**lab.env, "TAGTRAIL_API": lab.api}, capture_output=True, text=True)
            check(" ".join(command), done.returncode == 0, done.stdout + done.stderr)
        wait(lambda: len(receiver.bodies) > 6, 15)
        number = applied(receiver, lambda rollout: rollout["number"])
        check("after the new numbers it does", number[-1] == digest("NEW"), number)


main(case)
