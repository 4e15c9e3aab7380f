#!/usr/bin/env bash
# Makes .venv with everything that the toolkit needs, from PyPI alone. `make setup` runs it, and so
# does every other verb of the Makefile, with --if-needed, which is silent where nothing is to do.
#
#   PYTHON=...      the Python (3.11, 3.12 or 3.13) to make the environment from
#   DETECTRON2=...  another detectron2 than ./third_party/detectron2: what pip calls a requirement,
#                   for example git+URL of the upstream repository (built here: needs a C++ compiler);
#                   remembered until DETECTRON2=default
#
# Nothing is done twice: .venv/setup.stamp holds a hash of all inputs. A set-up that was interrupted
# leaves .venv/setup.unfinished behind, and the next one starts over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

venv=.venv
log=$venv/setup.log
stamp=$venv/setup.stamp
unfinished=$venv/setup.unfinished
choice=$venv/setup.detectron2 # kept, so that the next verb does not undo it
DETECTRON2=${DETECTRON2:-$(cat $choice 2>/dev/null || true)}
[ "$DETECTRON2" != default ] || DETECTRON2=""
PYTHON=${PYTHON:-}

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

# ---------------------------------------------------------------- is there anything to do?
inputs() {
    cat pyproject.toml setup.py constraints.txt scripts/setup.sh third_party/detectron2/pyproject.toml \
        third_party/detectron2/repack.py third_party/mmcv_operators/pyproject.toml \
        third_party/mmcv_operators/*.py
    ls eva_*/__init__.py */eva_*/__init__.py 2>/dev/null || true # an editable install lists them
    echo "$DETECTRON2"
}
current=$(inputs | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1)
wanted="$current $root" # a virtual environment cannot be moved

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
other_python() { [ -n "$PYTHON" ] && [ "$(version_of "$PYTHON")" != "$(version_of $venv/bin/python)" ]; }

if [ -x $venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ] && ! other_python; then
    [ "${1:-}" = --if-needed ] || say "nothing to do, $venv is up to date"
    exit 0
fi

# ---------------------------------------------------------------- a Python
# The pinned numpy (opencv's bound) has no wheel for Python 3.14, and compiling it takes long.
usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }
complete() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() {
    local candidate found=""
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        usable "$candidate" || continue
        found=${found:-$candidate}
        if complete "$candidate"; then
            python=$candidate
            return
        fi
    done
    if [ -n "$found" ]; then
        fail "$found has no 'venv' module; install it (on Debian and Ubuntu: apt-get install" \
            "python3-venv), or name another Python with 'make setup PYTHON=...'."
    elif [ -n "$PYTHON" ]; then
        fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 that can be started."
    fi
    fail "Python 3.11, 3.12 or 3.13 is needed, and none was found (tried python3.11, python3.12," \
        "python3.13 and python3); install one, or name it with 'make setup PYTHON=...'."
}

# ---------------------------------------------------------------- uv, which reads no configuration of pip
trap 'fail "interrupted; the next set-up starts over."' INT TERM

follow_pip() { # export, for uv, what pip is told on this machine
    local settings name
    settings=$($venv/bin/python -m pip config list)
    told() { sed -n "s/^[^=]*\\.$1='\\(.*\\)'$/\\1/p" <<<"$settings" | head -n 1 | sed 's/\\n/ /g'; }
    export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$(told index-url)} UV_CONSTRAINT=${UV_CONSTRAINT:-$(told constraint)}
    export UV_EXTRA_INDEX_URL=${UV_EXTRA_INDEX_URL:-$(told extra-index-url)}
    export UV_FIND_LINKS=${UV_FIND_LINKS:-$(told find-links | tr -s ' ' ,)} SSL_CERT_FILE=${SSL_CERT_FILE:-$(told cert)}
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}
    for name in UV_DEFAULT_INDEX UV_CONSTRAINT UV_EXTRA_INDEX_URL UV_FIND_LINKS SSL_CERT_FILE; do
        [ -n "${!name}" ] || unset "$name"
    done
}

install() { # show what takes time; the log has every package
    $venv/bin/uv pip install --python $venv/bin/python "$@" 2>&1 | tee -a $log | { grep -vE '^ [-+~] ' || true; } || {
        say "uv could not; pip, which may know this network better, takes twice as long ..."
        $venv/bin/python -m pip install --no-cache-dir --no-compile --progress-bar off "$@" 2>&1 | tee -a $log |
            { grep -E '^(ERROR|WARNING)' || true; }
    }
}

# ---------------------------------------------------------------- the work
recreate() { # is the present environment unusable, or not the wanted one?
    [ -e $unfinished ] || ! usable $venv/bin/python || other_python ||
        { [ -e $stamp ] && ! grep -qF " $root" $stamp; }
}

if [ -e $venv ] && recreate; then
    find_python
    say "removing the old $venv"
    rm -rf $venv
elif [ ! -e $venv ]; then
    find_python
fi
if [ ! -e $venv ]; then
    say "making $venv with $(version_of "$python") ($python)"
    mkdir $venv
    touch $unfinished
    "$python" -m venv $venv >$log 2>&1 || fail "'$python -m venv' failed (its log: $log)."
fi
rm -f $stamp
touch $unfinished
: >$log

say "installing from PyPI: about a minute on two cores, 3 GB (more with CUDA); log: $log"
$venv/bin/python -m pip install --no-compile --quiet -c constraints.txt uv >>$log 2>&1 ||
    fail "pip cannot install uv: $(tail -n 1 $log) (log: $log)"
follow_pip
$venv/bin/uv pip uninstall --python $venv/bin/python sal-detectron2 detectron2 >>$log 2>&1 || true
failed="the packages could not be installed (log: $log)"
if [ -z "$DETECTRON2" ]; then
    install -c constraints.txt ./third_party/detectron2 ./third_party/mmcv_operators -e '.[all,dev]' || fail "$failed"
else
    # Upstream detectron2 imports torch when it is built, and wants an older iopath.
    grep -v '^iopath==' constraints.txt >$venv/constraints.txt
    install -c $venv/constraints.txt ./third_party/mmcv_operators -e '.[all,dev]' || fail "$failed"
    say "  $SECONDS s: building $DETECTRON2"
    install -c $venv/constraints.txt --no-build-isolation "$DETECTRON2" || fail "$failed"
fi
$venv/bin/uv pip check --python $venv/bin/python >>$log 2>&1 ||
    fail "the installed packages do not fit together: $(tail -n 1 $log) (log: $log)"

$venv/bin/python -c 'import cv2' >>$log 2>&1 ||
    fail "OpenCV cannot be loaded; on a slim image its libraries are missing (on Debian and Ubuntu:" \
        "apt-get install libgl1 libglib2.0-0; log: $log)."

echo "$DETECTRON2" >$choice
echo "$wanted" >$stamp
rm -f $unfinished
say "done in $SECONDS s: Python $(version_of $venv/bin/python) in $venv, the packages fit together"
