#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Puts an object of a clip on a colour or a checkerboard, with the clip's sound.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/cut-out.sh IN.mp4 MASK.png OUT.mp4 [BACKGROUND]

  IN          any video GStreamer decodes
  MASK        PNG of the object in the first frame as players show it, white on black (or with alpha)
  OUT         output MP4: H.264, and AAC if IN has sound
  BACKGROUND  checker (default), black, white or transparent (black in MP4)
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 3 ] || [ $# -eq 4 ] || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_files "$1" "$2"
need_elements fastganseg compositor x264enc avenc_aac mp4mux
has_video "$1" || fail "$1 has no video that GStreamer can decode"

turn_upright "$1"
sound=()
if has_audio "$1"; then
  sound=(in. ! queue ! audioconvert ! audioresample ! avenc_aac ! aacparse ! queue ! out.)
fi
exec gst-launch-1.0 -e \
  filesrc location="$1" ! decodebin name=in \
  in. "${upright[@]}" ! fastganseg ref-mask="$2" ! compositor background="${4:-checker}" start-time-selection=first \
  ! progressreport update-freq=1 ! videoconvert ! x264enc ! h264parse ! queue ! out. \
  "${sound[@]}" \
  mp4mux name=out ! filesink location="$3"
