#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Plays a clip or a camera in a window, with the object tinted.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/preview.sh IN MASK.png

  IN    a video file, or a camera such as /dev/video0
  MASK  PNG of the object in the first frame

Environment:
  SINK  GStreamer sink (default: autovideosink)
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 2 ] || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_files "$2"
need_elements fastganseg "${SINK:-autovideosink}"
need_display "${SINK:-autovideosink}"
open_input "$1"
exec gst-launch-1.0 "${source[@]}" ! decodebin "${upright[@]}" ! fastganseg ref-mask="$(quote "$2")" output=overlay ! queue \
  ! videoconvert ! "${SINK:-autovideosink}"
