#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Plays a clip with an object cut out, from Python. Changes the mask after two seconds.

    GST_PLUGIN_PATH=target/release python3 examples/embed.py in.mp4 mask.png [second-mask.png]

Needs GStreamer's Python bindings: apt-get install python3-gi gir1.2-gstreamer-1.0
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402


def main(clip, mask, second=None):
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "filesrc name=file ! decodebin ! fastganseg name=cut ! compositor background=checker "
        "! videoconvert ! autovideosink"
    )
    pipeline.get_by_name("file").set_property("location", clip)
    cut = pipeline.get_by_name("cut")
    cut.set_property("ref-mask", mask)

    loop = GLib.MainLoop()
    failed = False

    def on_message(_bus, message):
        nonlocal failed
        if message.type == Gst.MessageType.EOS:
            loop.quit()
        elif message.type == Gst.MessageType.ERROR:
            print("error:", message.parse_error()[0].message, file=sys.stderr)
            failed = True
            loop.quit()
        elif message.type == Gst.MessageType.WARNING:
            print("warning:", message.parse_warning()[0].message, file=sys.stderr)
        elif message.type == Gst.MessageType.LATENCY:
            # In live pipelines, when the latency of an element changes.
            pipeline.recalculate_latency()
        elif message.type == Gst.MessageType.ELEMENT and message.has_name("fastganseg-reference"):
            print("reference:", message.get_structure().to_string())

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", on_message)
    if second:
        GLib.timeout_add_seconds(2, lambda: cut.set_property("ref-mask", second))
    pipeline.set_state(Gst.State.PLAYING)
    try:
        loop.run()
    finally:
        pipeline.set_state(Gst.State.NULL)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: embed.py IN.mp4 MASK.png [SECOND_MASK.png]")
    sys.exit(main(*sys.argv[1:]))
