#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Runs a program of a bundle of scripts/bundle-gpu.sh, in which this script is named `run`:
# run [--libtorch DIR] PROGRAM [ARGUMENT...]
set -eu

die() {
  echo "run: error: $1" >&2
  exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
libtorch=${LIBTORCH:-}
if [ "${1:-}" = --libtorch ]; then
  [ $# -ge 2 ] || die "--libtorch needs a folder"
  libtorch=$2
  shift 2
fi
if [ $# -eq 0 ]; then
  echo "usage: run [--libtorch DIR] PROGRAM [ARGUMENT...]; programs: $(ls "$here/bin" | tr '\n' ' ')" >&2
  exit 2
fi
if [ -z "$libtorch" ]; then
  find='import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])'
  libtorch=$(python3 -c "$find" 2>/dev/null) || die "python3 has no torch package: use run --libtorch DIR PROGRAM"
fi
[ -e "$libtorch/lib/libtorch_cpu.so" ] || die "$libtorch/lib has no libtorch_cpu.so: give the folder that contains lib/"
if [ -r "$libtorch/version.py" ] && ! grep -q "__version__ = '2\.11\." "$libtorch/version.py"; then
  die "$libtorch is not libtorch 2.11: run pip install torch==2.11.0"
fi

program=$1
shift
[ ! -x "$here/bin/$program" ] || program=$here/bin/$program
cache=$(mktemp -d)
child=
trap 'rm -rf "$cache"' EXIT
# A terminal sends INT to the program, too, which may have to finish its files.
trap : INT
# pass SIGNAL: passes a signal on to the program.
pass() { [ -z "$child" ] || kill "-$1" "$child" 2>/dev/null || true; }
trap 'pass HUP' HUP
trap 'pass TERM' TERM
# The bundle's libraries have priority: libtorch has its own OpenMP.
export LD_LIBRARY_PATH="$here/lib:$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export GST_PLUGIN_SYSTEM_PATH="$here/plugins" GST_PLUGIN_PATH="" GST_PLUGIN_SCANNER="$here/bin/gst-plugin-scanner"
export GST_REGISTRY="$cache/registry.bin" GIO_MODULE_DIR="$cache"
status=0
# Without a descriptor of its own, the program in the background would have no standard input, and it would ignore INT.
if (exec 3<&0) 2>/dev/null; then exec 3<&0; else exec 3</dev/null; fi
# Older versions of env have no such option.
default="env --default-signal=INT"
$default true 2>/dev/null || default=
# shellcheck disable=SC2086 # words
$default "$program" "$@" <&3 3<&- &
child=$!
wait "$child" || status=$?
# A signal ends `wait`, but not the program.
while kill -0 "$child" 2>/dev/null; do
  status=0
  wait "$child" || status=$?
done
exit $status
