#!/usr/bin/env bash
# What is owed on a GPU, within ten minutes a part on an H100 or H200.
# Usage: benchmarks/gpu.sh [PART ...] with parts of: tests profile 1b 7b 1b-more 7b-more; without,
# all of them.
#   tests    pytest -m gpu: captured steps equal plain ones, nothing waits for the device in a row
#   profile  kernels of the 1B shape's steps by their share
#   1b 7b    Janus-Pro's shapes with random weights (4 and 15 GB, written once): pictures beside
#            transformers, batches, captions, first call, peak memory, int8, int4 and fp8
#   1b-more 7b-more  by torch.compile in place of as they are, loading, transformers compiled
# The package need not be installed: its metadata must lie beside it (pip install -e . once makes
# janus_kit.egg-info). Wheels in the folder wheels/, such as torchao's, are installed first.
# PYTHON, FOLDER (for the weights), RESULTS and SECONDS_LEFT change what they say; DEVICE=cpu and
# MODEL (a folder in place of both shapes) try the script out. Where OUT names a folder, the results
# are also packed into one file there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
folder=${FOLDER:-runs/shapes}
results=${RESULTS:-benchmarks/results}
deadline=$((SECONDS + ${SECONDS_LEFT:-570}))
device=${DEVICE:-cuda}
export PYTHONPATH=$PWD
mkdir -p "$results"

"$python" -c "from janus_kit.loading import version; version()" ||
    { echo "janus_kit.egg-info must lie beside the package" && exit 1; }
keep() { # pack what there is, however it ends
    if [ -n "${OUT:-}" ]; then tar czf "$OUT/results.tgz" -C "$results" .; fi
}
trap keep EXIT

left() { echo $((deadline - SECONDS)); }
bench() { # name, arguments: one result, as long as there is time
    if [ "$(left)" -lt 20 ]; then
        echo "No time is left for $1"
        return
    fi
    echo "== $1, $(left) s left"
    local code=0
    timeout -k 10 "$(left)" "$python" -m janus_kit bench --device "$device" --folder "$folder" \
        -o "$results/gpu-$1.json" "${@:2}" || code=$?
    case $code in
    0) ;;
    1) echo "$1: codes or tokens are not equal, or it has failed: see above" ;;
    *) echo "$1 has failed with $code" ;;
    esac
    keep
}

part_tests() {
    timeout -k 10 150 "$python" -m pytest -q -m gpu tests/test_gpu.py 2>&1 |
        tee "$results/gpu-tests.txt" || echo "tests have failed"
    bench embedded --dtype float32 --rounds 2
}

of() { # a shape: the options that name it
    if [ -n "${MODEL:-}" ]; then printf '%s\n' --model "$MODEL"; else printf '%s\n' --shape "$1"; fi
}

part_shape() { # the common measures of a shape
    local name=$2 peers=$3 shape
    mapfile -t shape < <(of "$1")
    local own=("${shape[@]}" --dtype bfloat16 --no-captions --peers "" --components draw --rounds 3)
    bench "$name-bf16-draw" "${own[@]}"
    bench "$name-bf16" "${shape[@]}" --dtype bfloat16 --rounds 1 --tokens 64 --peers "$peers"
    if "$python" -c "import torchao" 2>/dev/null; then
        for bits in int8 int4 fp8; do bench "$name-$bits" "${own[@]}" --quantization $bits; done
    else
        echo "There is no torchao: int8, int4 and fp8 are left out"
    fi
    bench "$name-bf16-16" "${own[@]}" --batch 16
    bench "$name-bf16-captions-32" "${shape[@]}" --dtype bfloat16 --codes 4 --batch 32 \
        --tokens 64 --rounds 1 --peers ""
    bench "$name-bf16-64" "${own[@]}" --batch 64 --rounds 1
    bench "$name-bf16-4" "${own[@]}" --batch 4
}

part_profile() {
    if [ "$(left)" -lt 20 ]; then
        echo "No time is left for a profile"
        return
    fi
    timeout -k 10 "$(left)" "$python" benchmarks/profile_steps.py --shape "${MODEL:-janus-pro-1b}" \
        --folder "$folder" --device "$device" -o "$results/gpu-profile.txt" ||
        echo "the profile has failed"
}

part_more() { # a shape: what else there is to know of it
    local name=$2 shape own
    mapfile -t shape < <(of "$1")
    own=("${shape[@]}" --dtype bfloat16 --no-captions --peers "" --components draw)
    bench "$name-load" "${own[@]}" --codes 4 --rounds 1 --load
    bench "$name-compiled" "${own[@]}" --compile
    bench "$name-compiled-again" "${own[@]}" --compile --rounds 1 # what a kernel cache saves
    if "$python" -c "import torchao" 2>/dev/null; then
        for bits in int8 fp8 int4; do
            bench "$name-$bits-compiled" "${own[@]}" --compile --quantization $bits
        done
    fi
    own=("${shape[@]}" --dtype bfloat16 --no-captions --rounds 1 --peers generate)
    bench "$name-bf16-16-peers" "${own[@]}" --batch 16
    bench "$name-peers" "${own[@]}" --compiled
}

if [ "$device" = cuda ]; then nvidia-smi --query-gpu=name,memory.total --format=csv || true; fi
if compgen -G "wheels/*.whl" > /dev/null; then
    "$python" -m pip install -q --no-index --no-deps wheels/*.whl ||
        echo "The wheels could not be installed"
fi
[ $# -gt 0 ] || set -- tests profile 1b 7b 1b-more 7b-more
for part in "$@"; do
    case $part in
    tests) part_tests ;;
    1b) part_shape janus-pro-1b 1b "generate,published loop" ;;
    7b) part_shape janus-pro-7b 7b generate ;;
    profile) part_profile ;;
    1b-more) part_more janus-pro-1b 1b ;;
    7b-more) part_more janus-pro-7b 7b ;;
    *) echo "part must be of tests, profile, 1b, 7b, 1b-more, 7b-more, not $part" && exit 2 ;;
    esac
done
