#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Cuts an object out of a clip and shows the result; see `scripts/demo.sh --help`.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/demo.sh [CLIP MASK]

Installs the dependencies, builds the plugin, and cuts an object out of a clip:
  CLIP   a video GStreamer can decode       (default: examples/clips/dog.mp4)
  MASK   PNG of the object in CLIP's first frame: white on black, or a picture with alpha

Writes demo/cutout.mp4, the object over a checkerboard with the clip's sound, and
demo/contact-sheet.png, frames of the clip above the same frames of the cut-out.

Environment:
  PROFILE=dev  build with fewer optimisations, which is faster
EOF
}
die() {
  printf 'demo: error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}
step() { printf '\n[%s/5] %s\n' "$1" "$2"; }

case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -le 2 ] || { usage >&2; exit 2; }
clip=${1:-}
mask=${2:-}

# Check the arguments before the build, which takes minutes.
if [ -n "$clip$mask" ]; then
  [ -n "$clip" ] || die "the clip is missing" "Give both: make demo CLIP=in.mp4 MASK=mask.png"
  [ -n "$mask" ] || die "the mask is missing" "Give both: make demo CLIP=$clip MASK=mask.png" \
    "The mask is a PNG: white for the object in the first frame, black elsewhere."
  for file in "$clip" "$mask"; do
    [ -e "$file" ] || die "$file does not exist"
    if ! [ -f "$file" ] || ! [ -r "$file" ]; then die "$file cannot be read, or is not a file"; fi
  done
  [ "$(head -c 8 -- "$mask" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || die "$mask is not a PNG"
  clip=$(realpath -- "$clip")
  mask=$(realpath -- "$mask")
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
for file in "$clip" "$mask"; do
  for out in demo/cutout.mp4 demo/contact-sheet.png; do
    if [ "$file" -ef "$out" ]; then die "$out is an output: give the clip and the mask other names"; fi
  done
done
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
profile=${PROFILE:-release}
built=${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}

step 1 "Setting up"
scripts/setup.sh

step 2 "Building (the first time takes some minutes)"
cargo build --profile "$profile" --lib --example contact_sheet
GST_PLUGIN_PATH=$(realpath "$built")
export GST_PLUGIN_PATH
. pipelines/common.sh
need_elements fastganseg

mkdir -p demo
step 3 "The clip"
clip=${clip:-examples/clips/dog.mp4}
mask=${mask:-examples/clips/dog-mask.png}
has_video "$clip" || die "$clip has no video that GStreamer can decode" "Inspect it with: gst-discoverer-1.0 $clip"
echo "$clip, with mask $mask"

step 4 "Cutting out"
rm -f demo/cutout.mp4 demo/contact-sheet.png
echo "pipelines/cut-out.sh $clip $mask demo/cutout.mp4"
run pipelines/cut-out.sh "$clip" "$mask" demo/cutout.mp4 || die "the pipeline failed; its message is above"

step 5 "The contact sheet"
run "$built/examples/contact_sheet" "$clip" demo/cutout.mp4 demo/contact-sheet.png ||
  die "the cut-out differs in length from the clip, or cannot be read" \
    "If the clip has a variable frame rate, convert it to a constant rate first (videorate)."

printf '\nThe cut-out:       %s\nThe contact sheet: %s\n' "$PWD/demo/cutout.mp4" "$PWD/demo/contact-sheet.png"
