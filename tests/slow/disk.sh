#!/usr/bin/env bash
# A full disk and a folder that cannot be written: one line, status 1, the last good checkpoint resumes to equal bits.
#   tests/slow/disk.sh build/dav
# As root on a small tmpfs; else by the limit of a file's size (full) and by permissions (read-only).
set -eu
dav=$(realpath "$1")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
disk=$work/disk
mkdir "$disk"
root=$([ "$(id -u)" = 0 ] && mount -t tmpfs -o size=24m tmpfs "$disk" 2>/dev/null && echo yes || echo no)
trap '[ $root = no ] || umount -l "$disk"; chmod -R u+w "$work"; rm -rf "$work"' EXIT
align="align --config configs/yeast-demo.yaml --set num_epochs=3 --set sample.trajectories=16 --set sample.num_steps=8
       --set eval.samples=64 --set eval.posterior=0 --set threads=1"
pretrain="pretrain --config $work/pretrain.yaml --data $work/lines.txt"

fail() { echo "disk.sh: $*" >&2; cat "$work/said" >&2; exit 1; }

awk 'BEGIN { srand(3); for (i = 0; i < 200; i++) { s = ""; for (j = 0; j < 80; j++) s = s substr("ACGT", 1 + int(4 * rand()), 1); print s } }' \
    >"$work/lines.txt"
cat >"$work/pretrain.yaml" <<'END'
model: {name: DNAConv, alphabet_size: 5, hidden_dim: 32, num_cnn_stacks: 1, length: 80}
data: {folds: all}
seed: 1
threads: 1
train: {steps: 300, batch_size: 32, micro_batch: 32}
eval: {every: 100}
checkpoint: {every: 20}
END

# One line at the end that begins with "dav" or names the file; lines of progress may stand before it.
one_line() { # STATUS
    [ "$1" = 1 ] || fail "expected status 1, found $1"
    [ "$(grep -Ec '^dav|No space|File too large|Read-only|Permission denied' "$work/said")" = 1 ] || fail "expected one line"
    tail -n 1 "$work/said" | grep -Eq 'No space|File too large|Read-only|Permission denied' || fail "expected the reason"
}

same() { # FOLDER FOLDER
    local file
    for file in metrics.jsonl diffusion_pytorch_model.safetensors; do
        cmp "$1/$file" "$2/$file" || fail "$1 and $2 differ"
    done
}

fill() { if [ $root = yes ]; then cat /dev/zero >"$disk/filler" 2>/dev/null || true; else prlimit --pid "$1" --fsize=512; fi; }
clear() { rm -f "$disk/filler"; }

run_full() { # NAME COMMAND...: stopped after its first checkpoint, the disk filled, let on; then room again, resumed
    local name=$1 pid status=0
    shift
    "$dav" "$@" --out "$work/whole-$name" >/dev/null 2>"$work/said" || fail "the uninterrupted run"
    "$dav" "$@" --out "$disk/$name" >/dev/null 2>"$work/said" &
    pid=$!
    while [ ! -s "$disk/$name/checkpoints/run.state" ]; do kill -0 $pid 2>/dev/null || fail "ended before a checkpoint"; sleep 0.01; done
    kill -STOP $pid
    fill $pid
    kill -CONT $pid
    wait $pid || status=$?
    one_line $status
    clear
    "$dav" "$1" --resume "$disk/$name" ${resume_with-} >/dev/null 2>"$work/said" || fail "the resumed run"
    same "$work/whole-$name" "$disk/$name"
    echo "$name: a full disk ends it, it resumes to equal bits"
    rm -rf "${disk:?}/$name"
}

# shellcheck disable=SC2086
run_full align $align
# shellcheck disable=SC2086
resume_with="--data $work/lines.txt" run_full pretrain $pretrain

# sample and compile --dump: no room from the start
check_full() { # WHAT COMMAND...
    local status=0 what=$1
    shift
    if [ $root = yes ]; then
        fill 0
        "$@" >/dev/null 2>"$work/said" || status=$?
        clear
    else
        (ulimit -f 1; "$@" >/dev/null 2>"$work/said") || status=$?
    fi
    one_line $status
    [ -z "$(find "$disk" -type f -size +1k ! -path '*/kernels/*' -name '*.tmp*')" ] || fail "$what leaves a part behind"
    echo "$what: a full disk ends it"
}
check_full sample "$dav" sample --model checkpoints/yeast-denoiser-small --n 64 --out "$disk/samples.fasta"
[ ! -e "$disk/samples.fasta" ] || fail "sample leaves a part behind"
check_full compile "$dav" compile DNAConv --rows 2 --dump "$disk/dump"

# read-only
mkdir -p "$disk/run"
if [ $root = yes ]; then mount -o remount,ro "$disk"; else chmod -R u-w "$disk"; fi
read_only() { # WHAT COMMAND...
    local status=0 what=$1
    shift
    "$@" >/dev/null 2>"$work/said" || status=$?
    one_line $status
    echo "$what: a read-only folder ends it"
}
# shellcheck disable=SC2086
read_only align "$dav" $align --out "$disk/a"
# shellcheck disable=SC2086
read_only pretrain "$dav" $pretrain --out "$disk/p"
read_only sample "$dav" sample --model checkpoints/yeast-denoiser-small --n 64 --out "$disk/samples.fasta"
read_only compile "$dav" compile DNAConv --rows 2 --dump "$disk/d"
[ $root = no ] && chmod -R u+w "$disk" || mount -o remount,rw "$disk"
