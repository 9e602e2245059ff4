#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Selects an object of a clip or camera with the mouse, and saves its mask.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/pick.sh IN [MASK.png]

  IN    a video file, or a camera such as /dev/video0
  MASK  PNG to which the key s saves the mask (default: mask.png); the frame is saved beside it, with -frame before the
        extension (mask-frame.png)

Click on the object, or drag a box around it. Then click to add to the object, right click to remove from it, double
click to select another object, Escape to clear.

Environment:
  SINK  GStreamer sink that opens a window (default: autovideosink)
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 1 ] || [ $# -eq 2 ] || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_elements fastganseg "${SINK:-autovideosink}"
need_display "${SINK:-autovideosink}"
open_input "$1"
# Without a queue, which would hold frames: a click would apply to a later frame than the one that is shown.
exec gst-launch-1.0 -m "${source[@]}" ! decodebin "${upright[@]}" ! fastganseg interactive=true output=overlay \
  mask-location="$(quote "${2:-mask.png}")" ! videoconvert ! "${SINK:-autovideosink}"
