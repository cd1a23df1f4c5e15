#!/usr/bin/env bash
# Trains the embedded model on a GPU in calls of about ten minutes, each sized on the machine itself:
# the first minute counts and times the steps (janus_kit/training/sizing.py). MINUTES are those of
# the steps: imports, trials and the last look at held-out scenes come on top, and with START= codes.
# Usage: [STAGES="vision model"] [MINUTES=6] [SEED=0] [START=MODEL] [BUDGET=gpu] \
#        benchmarks/train_gpu.sh FOLDER
# It goes on from the embedded model, from nothing with START= (which first takes minutes to lay out
# codes, so that MINUTES is 3). Another SEED shows other scenes. STAGES are those of vq, vision and
# model that learn; without it all three do. FOLDER/model is the result, 38 MB in files of some
# 15 MB; START=FOLDER/model goes on from it. Where OUT names a folder, the result and its plan are
# packed there in pieces of 15 MB: cat model.tar.* | tar x.
# RESULTS (benchmarks/results) gets the plan. PYTHON is the interpreter.
# The picture bank and the perceptual network must lie in $XDG_CACHE_HOME/janus_kit: `python
# benchmarks/carry.py` gathers both, in 26 MB, for a machine without a network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD
folder=${1:?the folder to train in}
results=${RESULTS:-benchmarks/results}

if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,memory.total --format=csv
fi
if [ -d /dev/shm ]; then df -h /dev/shm; fi # through it workers hand over their batches
start=${START-embedded}
minutes=6
[ -n "$start" ] || minutes=3
chosen=()
for stage in ${STAGES:-}; do chosen+=(--stage "$stage"); done
"$python" -m janus_kit train embedded --budget "${BUDGET:-gpu}" \
    --minutes "${MINUTES:-$minutes}" --seed "${SEED:-0}" \
    ${start:+--start "$start"} "${chosen[@]}" -o "$folder"
mkdir -p "$results"
cp "$folder/plan.json" "$results/training-plan.json"
ls -l "$folder/model"
if [ -n "${OUT:-}" ]; then
    tar cf - -C "$folder" model plan.json | split -b 15000000 - "$OUT/model.tar."
fi
