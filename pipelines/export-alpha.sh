#!/usr/bin/env bash
# Editor: writes the cut-out with its alpha channel, for a compositing or editing program.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/export-alpha.sh IN.mp4 MASK.png OUT

  IN    any video GStreamer decodes
  MASK  PNG of the object in the first frame
  OUT   its name says what is written, the alpha always with it:
          x.mov        ProRes 4444, for editing programs
          x.mkv        FFV1 (YUVA 4:2:0), lossless
          x-%05d.png   one PNG a frame (any printf pattern)
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 3 ] || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_files "$1" "$2"
case $3 in
  *.mov)
    need_elements avenc_prores_ks qtmux
    out=(videoconvert ! "video/x-raw,format=A444_10LE" ! avenc_prores_ks profile=4444 ! qtmux ! filesink "location=$3")
    ;;
  *.mkv)
    need_elements avenc_ffv1 matroskamux
    out=(videoconvert ! "video/x-raw,format=A420" ! avenc_ffv1 ! matroskamux ! filesink "location=$3")
    ;;
  *%*d*.png)
    need_elements pngenc multifilesink
    out=(videoconvert ! "video/x-raw,format=RGBA" ! pngenc ! multifilesink "location=$3")
    ;;
  *.png) fail "$3 is one file: give a pattern, such as ${3%.png}-%05d.png" ;;
  *) fail "$3: the name must end in .mov, .mkv or .png" ;;
esac
need_elements fastganseg
has_video "$1" || fail "there is no video in $1 that GStreamer can decode"

exec gst-launch-1.0 -e filesrc location="$1" ! decodebin ! fastganseg ref-mask="$2" \
  ! progressreport update-freq=1 ! "${out[@]}"
