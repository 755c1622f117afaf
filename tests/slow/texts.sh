#!/bin/bash
# Every text that the tests give to the stand-in's compiler, given to the real one for sm_80, sm_90 and sm_100.
# usage: tests/slow/texts.sh BUILD FOLDER [TEST...]      FOLDER: for the texts and a cache of its own; TEST: those labelled cuda by default
set -u
build=${1:?usage: tests/slow/texts.sh BUILD FOLDER [TEST...]} folder=$(realpath -m "${2:?usage: tests/slow/texts.sh BUILD FOLDER [TEST...]}")
shift 2
mkdir -p "$folder/texts" "$folder/cache"
chosen=(-L cuda)
[ $# -eq 0 ] || chosen=(-R "^($(IFS='|'; echo "$*"))\$")
XDG_CACHE_HOME=$folder/cache DAV_STANDIN_TEXTS=$folder/texts ctest --test-dir "$build" "${chosen[@]}" -j "$(nproc)" --timeout 3000 >"$folder/log"
tail -n 5 "$folder/log"
DAV_CUDA_TEXTS=$folder/texts "$build/tests/test_cuda_text" 'recorded*'
