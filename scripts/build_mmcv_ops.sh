#!/usr/bin/env bash
# Rebuilds mmcv with its compiled operators, in .venv. `make mmcv-ops` runs it after the set-up.
# Nothing in the toolkit needs them; they make deformable attention faster on a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
log=.venv/mmcv-ops.log
version=$(sed -n 's/^onedl-mmcv==//p' constraints.txt)

fail() {
    echo "mmcv-ops: $*" >&2
    exit 1
}

command -v "${CXX:-c++}" >/dev/null || fail "no C++ compiler was found (on Debian and Ubuntu:" \
    "apt-get install g++; or name one with CXX=...)."
if $python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    cuda=$($python -c 'import torch; print(torch.version.cuda)')
    [ -n "${CUDA_HOME:-}" ] || command -v nvcc >/dev/null ||
        fail "this torch is built for CUDA $cuda, and compiling for it needs the CUDA toolkit" \
            "(nvcc) of that version, or CUDA_HOME that names it."
    export FORCE_CUDA=${FORCE_CUDA:-1} # also where no GPU is visible while building
    target="CUDA $cuda"
else
    target="the CPU only"
fi
# at most 8, and 3 GiB for each
free=$(awk '/^MemAvailable/ {print int($2 / 3 / 2^20)}' /proc/meminfo 2>/dev/null || true)
jobs=$(printf '%s\n' "$(getconf _NPROCESSORS_ONLN)" "${free:-2}" 8 | sort -n | head -n 1)
export MAX_JOBS=${MAX_JOBS:-$((jobs > 0 ? jobs : 1))} MMCV_WITH_OPS=1

echo "mmcv-ops: compiling onedl-mmcv $version for $target with $MAX_JOBS jobs"
echo "mmcv-ops: this takes about 15 minutes on two cores, longer for CUDA; log: $log"
$python -m pip install --no-cache-dir 'wheel>=0.43' >$log 2>&1 ||
    fail "wheel could not be downloaded (log: $log)."
# Without build isolation: the build has to see torch, or it leaves the operators out.
$python -m pip install --no-cache-dir --no-compile --no-deps --force-reinstall \
    --no-build-isolation --no-binary onedl-mmcv "onedl-mmcv==$version" >>$log 2>&1 ||
    fail "compiling failed; the end of $log: $(grep -iE 'error' $log | tail -n 1 | cut -c 1-160)"
# The stand-in is a module of the same name, written in Python.
$python -c 'import sys, torch, mmcv._ext as ops; sys.exit(ops.__file__.endswith(".py"))' 2>>$log ||
    fail "mmcv was built, but its operators cannot be loaded (log: $log)."
echo "mmcv-ops: done in $SECONDS s"
