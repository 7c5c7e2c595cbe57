#!/usr/bin/env bash
# Installs this folder as a user would, into a fresh environment, and uses it away from here: the package must bring
# all of its files, and its metadata must name all that it needs.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'kill "${service:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"

"${1:-python3}" -m venv env
env/bin/pip install --quiet --disable-pip-version-check "$source"
env/bin/tallystick init >/dev/null
echo '{"event_type":"user.permission_changed","entity_id":"user-7","actor":"jane"}' | env/bin/tallystick append >/dev/null
env/bin/tallystick query event_type=user.permission_changed >found
grep -q user-7 found
env/bin/tallystick verify >/dev/null
env/bin/tallystick evidence CC6.3 --output pack >/dev/null
# The README's first lines of Python, as a reader would paste them.
sed -n '/^```python$/,/^```$/{/^```/d;p}' "$source/README.md" >snippet.py
mkdir snippet && (cd snippet && ../env/bin/python ../snippet.py >../said)
grep -q '^True ()$' said
echo "pip install .              works: a ledger, a query, a verification, evidence"

env/bin/pip install --quiet --disable-pip-version-check "$source[serve,pdf]" "$source/verifier"
env/bin/tallystick keys export --trust-file >trust.policy
env/bin/tallystick-verify pack/bundle --trust trust.policy >/dev/null
env/bin/tallystick serve --data served --port 0 >served.log 2>&1 &
service=$!
address=$(timeout 30 bash -c 'until grep -om1 "http://[0-9.:]*" served.log | grep -m1 .; do sleep 0.1; done') || { cat served.log; exit 1; }
env/bin/python -c 'import sys, urllib.request; assert urllib.request.urlopen(sys.argv[1] + "/health/ready").status == 200' "$address"
echo "pip install '.[serve,pdf]'  works: the service is ready"
