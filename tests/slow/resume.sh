#!/usr/bin/env bash
# An alignment killed at random moments and resumed equals the uninterrupted one, bit for bit.
#   tests/slow/resume.sh build/dav [KILLS]
set -eu
dav=$(realpath "$1")
kills=${2:-20}
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
small="--config configs/yeast-demo.yaml --set num_epochs=3 --set sample.trajectories=16 --set sample.num_steps=8
       --set eval.samples=64 --set eval.posterior=32 --set eval.elbo=16"

# shellcheck disable=SC2086
"$dav" align $small --out "$work/whole" >/dev/null 2>&1
done_kills=0
n=0
while [ "$done_kills" -lt "$kills" ]; do
    n=$((n + 1))
    # shellcheck disable=SC2086
    "$dav" align $small --out "$work/run$n" >/dev/null 2>&1 &
    pid=$!
    while :; do
        sleep "0.$((RANDOM % 90 + 5))"
        kill -9 $pid 2>/dev/null || { wait $pid || { echo "run $n failed"; exit 1; }; break; }
        wait $pid 2>/dev/null || true
        done_kills=$((done_kills + 1))
        # killed before the folder held its settings: nothing to resume, begin again
        if [ -f "$work/run$n/config.yaml" ]; then
            "$dav" align --resume "$work/run$n" >/dev/null 2>"$work/err" &
        else
            rm -rf "$work/run$n"
            # shellcheck disable=SC2086
            "$dav" align $small --out "$work/run$n" >/dev/null 2>"$work/err" &
        fi
        pid=$!
    done
    for file in metrics.jsonl diffusion_pytorch_model.safetensors samples/after.fasta samples/posterior.fasta; do
        cmp "$work/whole/$file" "$work/run$n/$file"
    done
    echo "run $n equals the uninterrupted one ($done_kills kills so far)"
done
