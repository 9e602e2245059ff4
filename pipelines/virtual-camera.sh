#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Lays the person before a webcam, or an object, over a blurred background, a picture or a colour, as a virtual camera for
# video conferences and recorders.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: pipelines/virtual-camera.sh [BACKGROUND] [CAMERA] [VIRTUAL]

  BACKGROUND  a picture file, a colour (#rrggbb), blur, or blur:SIGMA in pixels
                                                         (default: blur)
  CAMERA      the input camera                           (default: /dev/video0)
  VIRTUAL     the output device, of v4l2loopback         (default: /dev/video10)

Environment:
  MASK        PNG of an object in the camera's first frame, or in REF_IMAGE (default: the person before the camera)
  REF_IMAGE   the picture MASK was drawn on, for instance a snapshot of the camera:
              gst-launch-1.0 v4l2src num-buffers=30 ! videoconvert ! video/x-raw,width=1280,height=720 ! jpegenc ! multifilesink location=snapshot.jpg
  SIZE        the size of the camera's frames            (default: 1280x720)

To create a virtual camera:
  sudo modprobe v4l2loopback video_nr=10 card_label=fastganseg exclusive_caps=1
EOF
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -gt 3 ]; then usage >&2; exit 2; fi
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
background=${1:-blur}
camera=${2:-/dev/video0}
virtual=${3:-/dev/video10}
size=${SIZE:-1280x720}
need_files ${MASK:+"$MASK"} ${REF_IMAGE:+"$REF_IMAGE"}
need_elements fastganseg v4l2src v4l2sink
[ -c "$camera" ] || fail "camera $camera does not exist: list cameras with ls /dev/video*"
[ -c "$virtual" ] || fail "virtual camera $virtual does not exist: --help shows how to create it"
[[ $size =~ ^[0-9]+x[0-9]+$ ]] || fail "SIZE is $size: use WIDTHxHEIGHT, for instance 1280x720"

case $background in
  blur | blur:* | color:*) ;;
  '#'*) background=color:$background ;;
  *)
    need_files "$background"
    background=image:$background
    ;;
esac
reference=(ref-auto=person)
[ -z "${MASK:-}" ] || reference=(ref-mask="$(quote "$MASK")" ${REF_IMAGE:+ref-image="$(quote "$REF_IMAGE")"})
exec gst-launch-1.0 \
  v4l2src device="$camera" ! decodebin ! videoconvertscale ! "video/x-raw,width=${size%x*},height=${size#*x}" \
  ! queue leaky=downstream max-size-buffers=1 \
  ! fastganseg "${reference[@]}" background="$(quote "$background")" \
  ! videoconvert ! video/x-raw,format=YUY2 ! v4l2sink device="$virtual" sync=false
