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
case ${3,,} in *.mp4) ;; *) fail "$3: the name must end in .mp4" ;; esac
case ${4:-checker} in
  checker | black | white | transparent) ;;
  *) fail "the background $4 is not checker, black, white or transparent" ;;
esac
check_output "$3" "$1" "$2"
need_video "$1"
read -r width height rate < <(video_facts "$1") || fail "$1 has no frames that can be decoded"
read -r frames start < <(count_frames "$1" "$rate") || fail "$1 has no frames that can be decoded"

turn_upright "$1"
deinterlace "$1"
make_square "$1"
encode_sound "$1"
# identity ends the stream with IN, at the buffer after its last one: compositor may repeat the last frame.
partial=$(partial_of "$3")
write_to "$3" run gst-launch-1.0 \
  filesrc location="$(quote "$1")" ! decodebin name=in \
  in. "${upright[@]}" ! fastganseg ref-mask="$(quote "$2")" "${square[@]}" ! mix.sink_0 \
  compositor name=mix background="${4:-checker}" start-time-selection=set start-time="$start" \
  sink_0::width="$width" sink_0::height="$height" \
  ! "video/x-raw,width=$width,height=$height,framerate=$rate,pixel-aspect-ratio=1/1" \
  ! identity eos-after=$((frames + 1)) ! progressreport update-freq=1 \
  ! videoconvert ! "video/x-raw,format={I420,I420_10LE}" ! x264enc ! h264parse ! queue ! out. \
  "${sound[@]}" \
  mp4mux name=out ! filesink location="$(quote "$partial")"
