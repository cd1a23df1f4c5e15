#!/usr/bin/env bash
# Trains the embedded model on a GPU in one call of about ten minutes, sized on the machine itself:
# the first minute counts and times the steps (janus_kit/training/sizing.py).
# Usage: [MINUTES=8] [START=MODEL] [BUDGET=gpu] benchmarks/train_gpu.sh FOLDER
# It goes on from the embedded model, from nothing with START= (which first takes minutes to lay out
# codes). FOLDER/model is the result, in files of at most 15 MB; START=FOLDER/model goes on from it.
# The picture bank and the perceptual network must lie in $XDG_CACHE_HOME/janus_kit: `janus-kit train
# data` makes the one, the first training fetches the other (27 MB together).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD
folder=${1:?the folder to train in}

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total --format=csv
start=${START-embedded}
"$python" -m janus_kit train embedded --budget "${BUDGET:-gpu}" --minutes "${MINUTES:-8}" \
    ${start:+--start "$start"} -o "$folder"
cp "$folder/plan.json" benchmarks/results/training-plan.json
ls -l "$folder/model"
