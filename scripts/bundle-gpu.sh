#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Packs the plugin and its dependencies, except for libtorch; see `scripts/bundle-gpu.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/bundle-gpu.sh [FOLDER]

Packs a bundle into FOLDER and FOLDER.tar.xz (default bundle-gpu): the release plugin, fastganseg-train, the benchmark of
scripts/bench-gpu.sh, GStreamer's tools and libraries, and the plugins that the pipelines of this project use. It
runs on any x86-64 Linux whose glibc is not older than this machine's, without GStreamer or Rust.
libtorch 2.11 is not packed: `FOLDER/run` uses that of python3's torch package, or that of --libtorch DIR.

  FOLDER/run gst-launch-1.0 videotestsrc num-buffers=9 ! fastganseg ! fakesink
  FOLDER/run --libtorch /opt/libtorch fastganseg-train --help
  FOLDER/run gst-launch-1.0 filesrc location=FOLDER/dog.mkv ! decodebin ! fastganseg ref-mask=FOLDER/dog.png ! fakesink
  FOLDER/bench-gpu.sh

Environment:
  PROFILE=dev  pack the debug build
  BUILD=0      do not build; pack the files in target/
EOF
}
die() {
  printf 'bundle-gpu: error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -le 1 ] || { usage >&2; exit 2; }
folder=${1:+$(realpath -m -- "$1")}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${folder:-bundle-gpu}
profile=${PROFILE:-release}
built=${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}

# Plugins of this project's pipelines and the benchmark, without codecs with many dependencies. Names differ between
# versions of GStreamer; missing ones are skipped.
PLUGINS=(
  coreelements app videotestsrc videoconvert videoscale videoconvertscale videorate compositor alpha multifile
  png jpeg matroska isomp4 avi playback typefindfunctions rawparse imagefreeze y4menc videofilter
  videoparsersbad audiotestsrc autodetect
)
# Libraries of the system (glibc, and the C++ run-time, which libtorch needs anyway) and of libtorch.
NOT_PACKED='^(linux-vdso|ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv|libutil|libstdc\+\+|libgcc_s|libtorch.*|libc10.*|libgomp.*|libshm|libcu.*|libnv.*|libnccl.*)\.so'

command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if [ "${BUILD:-1}" != 0 ]; then
  cargo build --profile "$profile" --workspace --lib --bins --example bench_gpu
fi
for file in libgstfastganseg.so examples/bench_gpu fastganseg-train; do
  [ -e "$built/$file" ] || die "$built/$file does not exist" "Run without BUILD=0."
done
plugins=$(pkg-config --variable=pluginsdir gstreamer-1.0) ||
  die "pkg-config finds no gstreamer-1.0" "Run scripts/setup.sh."
scanner=$(pkg-config --variable=pluginscannerdir gstreamer-1.0)/gst-plugin-scanner

if { [ -e "$folder" ] || [ -e "$folder.tar.xz" ]; } && [ ! -e "$folder/.fastganseg-bundle" ]; then
  die "$folder or $folder.tar.xz exists and is not a bundle of this script" "Remove them, or choose another folder."
fi
rm -rf "$folder" "$folder.tar.xz"
mkdir -p "$folder"/{bin,lib,plugins}
touch "$folder/.fastganseg-bundle"

# Strip the debug information, which is larger than the code.
strip -o "$folder/plugins/libgstfastganseg.so" "$built/libgstfastganseg.so"
strip -o "$folder/bin/bench_gpu" "$built/examples/bench_gpu"
strip -o "$folder/bin/fastganseg-train" "$built/fastganseg-train"
for tool in gst-launch-1.0 gst-inspect-1.0; do cp "$(command -v $tool)" "$folder/bin/"; done
cp "$scanner" "$folder/bin/"
for plugin in "${PLUGINS[@]}"; do
  if [ -e "$plugins/libgst$plugin.so" ]; then cp "$plugins/libgst$plugin.so" "$folder/plugins/"; fi
done

# Their libraries, direct and indirect.
find "$folder/bin" "$folder/plugins" -type f -exec ldd {} + 2>/dev/null |
  awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u |
  while read -r name path; do
    if ! grep -qE "$NOT_PACKED" <<<"$name"; then cp -L "$path" "$folder/lib/$name"; fi
  done

cp scripts/bundle-run.sh "$folder/run"
cp scripts/bench-gpu.sh scripts/bench_pytorch.py "$folder/"
cp LICENSE "$folder/LICENSE.fastganseg"
chmod +x "$folder/run" "$folder/bench-gpu.sh"
# A clip of 720p with its mask, whose decoder needs no large libraries.
gst-launch-1.0 -q filesrc location=examples/clips/dog.mp4 ! decodebin ! videoconvertscale ! video/x-raw,width=1280,height=720 \
  ! identity eos-after=120 ! jpegenc quality=90 ! matroskamux ! filesink location="$folder/dog.mkv"
cp examples/clips/dog-mask.png "$folder/dog.png"

# The programs share their largest part, the weights, so an archive with a large dictionary is much smaller.
tar -C "$(dirname "$folder")" -c "$(basename "$folder")" | xz --lzma2=preset=6,dict=128MiB >"$folder.tar.xz"
size=$(du -k "$folder.tar.xz" | cut -f 1)
printf 'bundle-gpu: %s, %s.tar.xz, %s MB\n' "$folder" "$folder" $(((size + 512) / 1024))
[ "$size" -le 51200 ] || die "$folder.tar.xz is larger than 50 MB" "List large files: du -a $folder | sort -n | tail"
