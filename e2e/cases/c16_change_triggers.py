"""A trigger is renamed, removed and added again: nothing is deployed twice, no rollout stays live, and a trigger that is added for running
images starts with the next change (`start = "next"`)."""
import time
from lab import Lab, call, check, digest, main, wait


def trigger(name, command='["true"]', key="web", image="web", more=""):
    return (f'[[trigger]]\nname = "{name}"\nimages.{key} = "registry.example.com/shop/{image}:latest"\nsettle = "0s"\n{more}'
            f"target.command = {{ run = {command} }}\n")


def again(lab, config):
    lab.stop()
    lab.configure(config)
    lab.start()
    time.sleep(1.5)


def causes(lab, name=None):
    return [(one["trigger"], one["number"], one["state"], one["cause"]["reason"]) for one in lab.rollouts(name)]


def case():
    with Lab(trigger("shop")) as lab:
        lab.push("shop/web", "A")
        wait(lambda: causes(lab) and causes(lab)[0][2] == "succeeded", 15)
        again(lab, trigger("store"))
        check("a renamed trigger deploys nothing again", causes(lab) == [("store", 1, "succeeded", "start")], causes(lab))
        status, headers, _ = call(lab.api + "/v1/triggers/shop/pause", "POST")
        check("the old name leads to the new one", (status, headers.get("location")) == (308, "/v1/triggers/store/pause"), (status, headers))
        again(lab, trigger("store") + trigger("canary", more='start = "next"\n'))
        check("a trigger that is added for known images takes them as rolled out",
              wait(lambda: causes(lab, "canary"), 10) == [("canary", 1, "succeeded", "adopted")], causes(lab, "canary"))
        lab.push("shop/web", "B")
        wait(lambda: len(causes(lab, "canary")) == 2, 15)
        check("the next change is rolled out", causes(lab, "canary")[0][3] == "revision", causes(lab, "canary"))

        again(lab, trigger("store", '["false"]'))
        lab.push("shop/web", "C")
        wait(lambda: lab.rollouts("store")[0]["attempts"] >= 1 and causes(lab, "store")[0][1] == 3, 15)
        again(lab, trigger("other", image="other"))
        wait(lambda: causes(lab, "store")[0][2] == "cancelled", 15)
        check("the rollout of a removed trigger ends", causes(lab, "store")[0][1:3] == (3, "cancelled"), causes(lab, "store"))
        again(lab, trigger("other", image="other") + trigger("store"))
        wait(lambda: causes(lab, "store")[0][2] == "succeeded", 15)
        check("the images are sent after its return", causes(lab, "store")[0][1:] == (4, "succeeded", "configuration"), causes(lab, "store"))

        call(lab.api + "/v1/triggers/store/pause", "POST")
        lab.push("shop/web", "D")
        again(lab, trigger("other", image="other"))
        again(lab, trigger("store"))
        check("a pause holds over removal and return", causes(lab, "store")[0][1] == 4, causes(lab, "store"))
        call(lab.api + "/v1/triggers/store/resume", "POST")
        wait(lambda: causes(lab, "store")[0][1:3] == (5, "succeeded"), 15)
        last = lab.rollouts("store")[0]
        check("resuming rolls out the present image once", (last["number"], last["images"]["web"]["digest"]) == (5, digest("D")), last)


main(case)
