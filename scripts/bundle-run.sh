#!/bin/sh
# Runs a program of the bundle that scripts/bundle-gpu.sh packs, where this is named `run`:
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
  libtorch=$(python3 -c "$find" 2>/dev/null) || die "python3 has no torch package: run --libtorch DIR PROGRAM"
fi
[ -e "$libtorch/lib/libtorch_cpu.so" ] || die "$libtorch/lib has no libtorch_cpu.so: name the folder with lib/ in it"
if [ -r "$libtorch/version.py" ] && ! grep -q "__version__ = '2\.11\." "$libtorch/version.py"; then
  die "$libtorch is not libtorch 2.11: pip install torch==2.11.0"
fi

program=$1
shift
[ ! -x "$here/bin/$program" ] || program=$here/bin/$program
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
# Behind the bundle's own libraries: libtorch brings an OpenMP of its own.
export LD_LIBRARY_PATH="$here/lib:$libtorch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export GST_PLUGIN_SYSTEM_PATH="$here/plugins" GST_PLUGIN_PATH="" GST_PLUGIN_SCANNER="$here/bin/gst-plugin-scanner"
export GST_REGISTRY="$cache/registry.bin" GIO_MODULE_DIR="$cache"
status=0
"$program" "$@" || status=$?
exit $status
