#!/usr/bin/env bash
# What is owed on a GPU, within ten minutes on an H100 or H200: equality with the CPU, a step's
# time for the true shapes, and captions. Random weights are written once, 4 GB (1B) and 15 GB (7B).
# Usage: benchmarks/gpu.sh [FOLDER FOR RANDOM WEIGHTS]; SHAPES="janus-pro-1b" leaves out the larger.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
folder=${1:-runs/shapes}
results=benchmarks/results
deadline=$((SECONDS + 570))

left() { echo $((deadline - SECONDS)); }
bench() { # name, arguments: one result, as long as there is time
    if [ "$(left)" -lt 20 ]; then
        echo "No time is left for $1"
        return
    fi
    timeout "$(left)" "$python" -m janus_kit bench --device cuda --rounds 3 --folder "$folder" \
        -o "$results/gpu-$1.json" "${@:2}" || echo "$1 has failed"
}

nvidia-smi --query-gpu=name,memory.total --format=csv
timeout "$(left)" "$python" -m pytest -q -m gpu tests/test_gpu.py || echo "tests have failed"
bench embedded --dtype float32
for shape in ${SHAPES:-janus-pro-1b janus-pro-7b}; do
    bench "$shape-bf16" --shape "$shape" --dtype bfloat16 --codes 100 --tokens 64
    bench "$shape-bf16-16" --shape "$shape" --dtype bfloat16 --codes 100 --batch 16 --no-captions
    bench "$shape-bf16-64" --shape "$shape" --dtype bfloat16 --batch 64 --no-captions \
        --peers generate
    bench "$shape-bf16-32" --shape "$shape" --dtype bfloat16 --codes 4 --batch 32 --tokens 64
    for bits in int8 int4; do
        bench "$shape-$bits" --shape "$shape" --dtype bfloat16 --quantization $bits --codes 100 \
            --no-captions
    done
done
