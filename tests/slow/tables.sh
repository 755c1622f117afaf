#!/bin/bash
# Writes docs/cuda/kernels.tsv and docs/cuda/sass.tsv anew, in some minutes.
# usage: tests/slow/tables.sh BUILD NVDISASM      NVDISASM: the toolkit's, or of PyPI's triton wheel
set -eu
build=$(realpath "${1:?usage: tests/slow/tables.sh BUILD NVDISASM}") disassembler=${2:?usage: tests/slow/tables.sh BUILD NVDISASM}
cd "$(dirname "$0")/../.."
cubins=$(mktemp -d)
trap 'rm -r "$cubins"' EXIT
DAV_CUDA_TABLE=docs/cuda/kernels.tsv DAV_CUDA_CUBINS=$cubins "$build/tests/test_cuda_text"
python3 tests/slow/sass.py "$disassembler" "$cubins" >docs/cuda/sass.tsv
