#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs the plugin and the libtorch libraries that it needs. See `scripts/install.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/install.sh PLUGINS

Copies libgstfastganseg.so of the release build to the folder PLUGINS, and libtorch's CPU libraries (about 450 MB) to
the folder `fastganseg` next to PLUGINS, where the plugin looks for them. The checkout is not needed afterwards.

Environment:
  CARGO_TARGET_DIR   build folder of cargo [default: target]
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 1 ] || { usage >&2; exit 2; }

plugins=$(realpath -m -- "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
plugin=${CARGO_TARGET_DIR:-target}/release/libgstfastganseg.so
[ -e "$plugin" ] || { echo "install: error: $plugin does not exist: run 'make build' first" >&2; exit 1; }

mkdir -p "$plugins"
libraries=$(dirname "$plugins")/fastganseg
mkdir -p "$libraries"
# System libraries are not copied.
mapfile -t needed < <(ldd "$plugin" | awk '$3 ~ /\/(torch|nvidia)\// {print $3}')
[ ${#needed[@]} -gt 0 ] || { echo "install: error: $plugin cannot find libtorch: run 'make build' again" >&2; exit 1; }
for library in "${needed[@]}"; do
  install -m 644 "$(readlink -f "$library")" "$libraries/$(basename "$library")"
done
install -m 755 "$plugin" "$plugins/"
echo "installed $plugins/libgstfastganseg.so and libtorch in $libraries"
if [ -e "$(dirname "${needed[0]}")/../../.cuda-complete" ]; then
  echo "The installed libtorch supports CPUs only. To use the GPU, use the build in this checkout: GST_PLUGIN_PATH=$PWD/$(dirname "$plugin")"
fi
