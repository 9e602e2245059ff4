#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Puts the object of one clip in front of another clip.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/replace-background.sh IN.mp4 MASK.png BACKGROUND.mp4 OUT.mp4

  IN          the clip with the object; its size, frame rate (30 if it has none), length and sound
              are kept
  MASK        PNG of the object in IN's first frame as players show it
  BACKGROUND  the background clip, scaled to IN's size; if it is shorter, its last frame stays
  OUT         output MP4
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -eq 4 ] || { usage >&2; exit 2; }
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_files "$1" "$2" "$3"
need_elements fastganseg compositor x264enc avenc_aac mp4mux
case ${4,,} in *.mp4) ;; *) fail "$4: the name must end in .mp4" ;; esac
check_output "$4" "$1" "$2" "$3"
for clip in "$1" "$3"; do need_video "$clip"; done
read -r width height rate < <(video_facts "$1") || fail "$1 has no frames that can be decoded"
read -r frames start < <(count_frames "$1" "$rate") || fail "$1 has no frames that can be decoded"

turn_upright "$3"
deinterlace "$3"
background=("${upright[@]}")
turn_upright "$1"
deinterlace "$1"
make_square "$1"
encode_sound "$1"
# identity ends the stream with IN, at the buffer after its last one: compositor would continue to the end of the longer clip.
partial=$(partial_of "$4")
write_to "$4" run gst-launch-1.0 \
  filesrc location="$(quote "$1")" ! decodebin name=in \
  in. "${upright[@]}" ! fastganseg ref-mask="$(quote "$2")" "${square[@]}" ! queue ! mix.sink_1 \
  filesrc location="$(quote "$3")" ! decodebin "${background[@]}" ! videoconvert ! videoscale ! videorate \
  ! "video/x-raw,width=$width,height=$height,framerate=$rate,pixel-aspect-ratio=1/1" \
  ! queue ! mix.sink_0 \
  compositor name=mix start-time-selection=set start-time="$start" sink_0::zorder=0 sink_0::repeat-after-eos=true \
  sink_1::zorder=1 sink_1::repeat-after-eos=true sink_1::width="$width" sink_1::height="$height" \
  ! "video/x-raw,width=$width,height=$height,framerate=$rate,pixel-aspect-ratio=1/1" \
  ! identity eos-after=$((frames + 1)) ! progressreport update-freq=1 \
  ! videoconvert ! "video/x-raw,format={I420,I420_10LE}" ! x264enc ! h264parse ! queue ! out. \
  "${sound[@]}" \
  mp4mux name=out ! filesink location="$(quote "$partial")"
