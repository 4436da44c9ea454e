"""As process 1 of a container without an init, Tagtrail leaves no zombies, whatever its commands leave behind. Needs root, for `unshare`."""
import os, signal, subprocess, time
from lab import Lab, check, main, wait

# A child of the command ends after the command; a grandchild of another supervisor is an orphan of process 1.
CONFIG = '''
[[trigger]]
name = "shop"
images.web = "registry.example.com/shop/web:latest"
settle = "0s"
[trigger.target.command]
run = ["sh", "-c", "echo $TAGTRAIL_ROLLOUT_NUMBER >> runs; (sleep 0.3; exit 0) >/dev/null 2>&1 & exit 0"]
[[trigger]]
name = "orphan"
images.job = "registry.example.com/shop/job:latest"
settle = "0s"
[trigger.target.command]
run = ["sh", "-c", "test -e again && exit 0; touch again; sleep 1000 & echo $! > child; kill -KILL $PPID; wait"]
'''


def case():
    with Lab(CONFIG, below=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]) as lab:
        first = int(subprocess.check_output(["pgrep", "-P", str(lab.process.pid)]).split()[0])

        def zombies():
            listed = subprocess.run(["ps", "--ppid", str(first), "-o", "stat=,comm="], capture_output=True, text=True)
            return [line for line in listed.stdout.splitlines() if line.startswith("Z")]

        pushed = [lab.push("shop/web", f"build {n}") for n in range(8) if not time.sleep(0.5)]
        runs = lambda: (lab.dir / "runs").read_text().split() if (lab.dir / "runs").exists() else []
        wait(lambda: len(runs()) == 8, 20)
        check("8 commands ran", runs() == [str(n) for n in range(1, 9)], runs())
        check("the last rollout has the last push", lab.rollouts("shop")[0]["images"]["web"]["digest"] == pushed[-1])
        wait(lambda: not zombies(), 3)
        check("no zombies after 8 commands", not zombies(), zombies())

        lab.push("shop/job", "job")
        done = lambda: [one["state"] for one in lab.rollouts("orphan")] == ["succeeded"]
        check("a command whose supervisor was killed is run again", wait(done, 20), lab.rollouts("orphan"))
        wait(lambda: not zombies(), 20)
        check("its orphans are reaped by process 1", not zombies(), zombies())

        os.kill(first, signal.SIGTERM)
        lab.process.wait(30)
        check("SIGTERM ends process 1 with 0", lab.process.returncode == 0, lab.process.returncode)


main(case)
