#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs the plugin and the libtorch libraries that it needs. See `scripts/install.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/install.sh [--uninstall] PLUGINS

Copies libgstfastganseg.so of the release build to the folder PLUGINS, and libtorch's CPU libraries (about 450 MB) to
the folder `fastganseg` next to PLUGINS, where the plugin looks for them. The checkout is not needed afterwards. A libtorch
of the system is not copied.

  --uninstall        remove what was installed

Environment:
  CARGO_TARGET_DIR   build folder of cargo [default: target]
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
uninstall=
if [ "${1:-}" = --uninstall ]; then
  uninstall=1
  shift
fi
[ $# -eq 1 ] || { usage >&2; exit 2; }

plugins=$(realpath -m -- "$1")
libraries=$(dirname "$plugins")/fastganseg
# Names of the libraries that were installed. The folder may have other files.
list=$libraries/.installed
remove_libraries() {
  [ -e "$list" ] || return 0
  while read -r name; do rm -f -- "$libraries/$name"; done <"$list"
  rm -- "$list"
}
if [ -n "$uninstall" ]; then
  rm -f -- "$plugins/libgstfastganseg.so"
  remove_libraries
  rmdir -- "$libraries" 2>/dev/null || [ ! -e "$libraries" ] || echo "$libraries has other files, which are kept"
  exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
plugin=${CARGO_TARGET_DIR:-target}/release/libgstfastganseg.so
[ -e "$plugin" ] || { echo "install: error: $plugin does not exist: run 'make build' first" >&2; exit 1; }

mapfile -t needed < <(ldd "$plugin" | sed -n 's/^.* => \(\/.*\) (0x[0-9a-f]*)$/\1/p')
torch=
for library in "${needed[@]}"; do
  case $library in */libtorch_cpu.so) torch=$(dirname "$library") ;; esac
done
[ -n "$torch" ] || { echo "install: error: $plugin cannot find libtorch: run 'make build' again" >&2; exit 1; }

mkdir -p "$plugins"
case $torch in
  /lib* | /usr/lib*) copied=" (with libtorch of the system)" ;;
  *)
    copied=" and libtorch in $libraries"
    if [ -n "$(ls -A -- "$libraries" 2>/dev/null)" ] && ! [ -e "$list" ]; then
      echo "install: error: $libraries has files that are not in its .installed, such as those of an earlier version: remove it, or give another PLUGINS" >&2
      exit 1
    fi
    mkdir -p "$libraries"
    remove_libraries
    for library in "${needed[@]}"; do
      # Other libraries are those of the system.
      case $library in
        "$torch"/* | */nvidia/*)
          basename "$library" >>"$list"
          install -m 644 "$(readlink -f "$library")" "$libraries/$(basename "$library")"
          ;;
      esac
    done
    ;;
esac
install -m 755 "$plugin" "$plugins/"
echo "installed $plugins/libgstfastganseg.so$copied"
if [ -e "$torch/../../.cuda-complete" ]; then
  echo "The installed libtorch supports CPUs only. To use the GPU, use the build in this checkout: GST_PLUGIN_PATH=$PWD/$(dirname "$plugin")"
fi
