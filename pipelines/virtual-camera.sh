#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Cuts an object out of a webcam live, as a virtual camera for video conferences and recorders.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/virtual-camera.sh MASK.png [BACKGROUND] [CAMERA] [VIRTUAL]

  MASK        PNG of the object in the camera's first frame, or of an object in REF_IMAGE
  BACKGROUND  a picture file, or checker, black, white   (default: black)
  CAMERA      the input camera                           (default: /dev/video0)
  VIRTUAL     the output device, of v4l2loopback         (default: /dev/video10)

Environment:
  REF_IMAGE   the picture MASK was drawn on, for instance a snapshot of the camera:
              gst-launch-1.0 v4l2src num-buffers=30 ! videoconvert ! video/x-raw,width=1280,height=720 ! jpegenc ! multifilesink location=snapshot.jpg
  SIZE        the size of the camera's frames            (default: 1280x720)

To create a virtual camera:
  sudo modprobe v4l2loopback video_nr=10 card_label=fastganseg exclusive_caps=1
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 1 ] || [ $# -gt 4 ]; then usage >&2; exit 2; fi
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
background=${2:-black}
camera=${3:-/dev/video0}
virtual=${4:-/dev/video10}
size=${SIZE:-1280x720}
need_files "$1" ${REF_IMAGE:+"$REF_IMAGE"}
need_elements fastganseg compositor v4l2src v4l2sink
[ -c "$camera" ] || fail "camera $camera does not exist: list cameras with ls /dev/video*"
[ -c "$virtual" ] || fail "virtual camera $virtual does not exist: --help shows how to create it"
[[ $size =~ ^[0-9]+x[0-9]+$ ]] || fail "SIZE is $size: use WIDTHxHEIGHT, for instance 1280x720"

behind=()
case $background in
  checker | black | white | transparent) ;;
  *)
    need_files "$background"
    # A picture: a layer of its own, repeated as a still.
    behind=(filesrc "location=$background" ! decodebin ! imagefreeze is-live=true ! videoconvert ! videoscale
      ! "video/x-raw,width=${size%x*},height=${size#*x},framerate=30/1" ! queue ! mix.sink_0)
    background=black
    ;;
esac
exec gst-launch-1.0 \
  v4l2src device="$camera" ! decodebin ! videoconvertscale ! "video/x-raw,width=${size%x*},height=${size#*x}" \
  ! queue leaky=downstream max-size-buffers=1 \
  ! fastganseg ref-mask="$1" ref-image="${REF_IMAGE:-}" ! queue ! mix.sink_1 \
  "${behind[@]}" \
  compositor name=mix background="$background" sink_1::zorder=1 \
  ! videoconvert ! video/x-raw,format=YUY2 ! v4l2sink device="$virtual" sync=false
