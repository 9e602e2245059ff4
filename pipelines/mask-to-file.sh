#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Writes only the mask, as a grey video or as one PNG per frame.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/mask-to-file.sh IN.mp4 MASK.png OUT [labels]

  IN      any video GStreamer decodes
  MASK    PNG of the object or objects in the first frame as players show it
  OUT     x.mkv (FFV1, lossless grey) or a pattern such as x-%05d.png
  labels  write object ids (0 = background) instead of alpha
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 3 ] || { [ $# -eq 4 ] && [ "$4" = labels ]; } || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_files "$1" "$2"
need_elements fastganseg
check_output "$3" "$1" "$2"
partial=$(partial_of "$3")
case ${3,,} in
  *.mkv)
    need_elements avenc_ffv1 matroskamux
    out=(avenc_ffv1 ! matroskamux ! filesink "location=$(quote "$partial")")
    ;;
  *%*d*.png)
    check_pattern "$3" "$1" "$2"
    need_elements pngenc multifilesink
    out=(pngenc ! multifilesink "location=$(quote "$3")")
    ;;
  *) fail "$3: the name must end in .mkv, or be a pattern such as mask-%05d.png" ;;
esac
need_video "$1"

turn_upright "$1"
deinterlace "$1"
pipeline=(gst-launch-1.0 filesrc location="$(quote "$1")" ! decodebin "${upright[@]}"
  ! fastganseg ref-mask="$(quote "$2")" output="${4:-mask}" ! progressreport update-freq=1 ! "${out[@]}")
case ${3,,} in
  *.png) run "${pipeline[@]}" ;;
  *) write_to "$3" run "${pipeline[@]}" ;;
esac
