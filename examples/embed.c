// SPDX-License-Identifier: MPL-2.0

/* Plays a clip with an object cut out, from C. Changes the mask after two seconds.
 *
 *   cc -o embed examples/embed.c $(pkg-config --cflags --libs gstreamer-1.0)
 *   GST_PLUGIN_PATH=target/release ./embed in.mp4 mask.png [second-mask.png]
 */
#include <gst/gst.h>

typedef struct {
  GMainLoop *loop;
  GstElement *pipeline;
  GstElement *cut;
  const char *second;
  gboolean failed;
} App;

static gboolean
on_message (GstBus * bus, GstMessage * message, gpointer data)
{
  App *app = data;
  GError *error = NULL;

  (void) bus;
  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_EOS:
      g_main_loop_quit (app->loop);
      break;
    case GST_MESSAGE_ERROR:
      gst_message_parse_error (message, &error, NULL);
      g_printerr ("error: %s\n", error->message);
      app->failed = TRUE;
      g_main_loop_quit (app->loop);
      break;
    case GST_MESSAGE_WARNING:
      gst_message_parse_warning (message, &error, NULL);
      g_printerr ("warning: %s\n", error->message);
      break;
    case GST_MESSAGE_LATENCY:
      /* In live pipelines, when the latency of an element changes. */
      gst_bin_recalculate_latency (GST_BIN (app->pipeline));
      break;
    case GST_MESSAGE_ELEMENT:
      if (gst_message_has_name (message, "fastganseg-reference")) {
        gchar *text = gst_structure_to_string (gst_message_get_structure (message));
        g_print ("reference: %s\n", text);
        g_free (text);
      }
      break;
    default:
      break;
  }
  g_clear_error (&error);
  return G_SOURCE_CONTINUE;
}

static gboolean
swap_mask (gpointer data)
{
  App *app = data;

  /* Allowed at any time from any thread. */
  g_object_set (app->cut, "ref-mask", app->second, NULL);
  return G_SOURCE_REMOVE;
}

int
main (int argc, char **argv)
{
  App app = { 0 };
  GError *error = NULL;

  gst_init (&argc, &argv);
  if (argc != 3 && argc != 4) {
    g_printerr ("usage: embed IN.mp4 MASK.png [SECOND_MASK.png]\n");
    return 2;
  }

  GstElement *pipeline = gst_parse_launch ("filesrc name=file ! decodebin ! fastganseg name=cut "
      "! compositor background=checker ! videoconvert ! autovideosink", &error);
  if (error != NULL) {
    g_printerr ("error: %s\n", error->message);
    g_clear_error (&error);
    gst_clear_object (&pipeline);
    return 1;
  }
  GstElement *file = gst_bin_get_by_name (GST_BIN (pipeline), "file");
  g_object_set (file, "location", argv[1], NULL);
  gst_object_unref (file);
  app.pipeline = pipeline;
  app.cut = gst_bin_get_by_name (GST_BIN (pipeline), "cut");
  g_object_set (app.cut, "ref-mask", argv[2], NULL);
  app.loop = g_main_loop_new (NULL, FALSE);

  GstBus *bus = gst_element_get_bus (pipeline);
  gst_bus_add_watch (bus, on_message, &app);
  if (argc == 4) {
    app.second = argv[3];
    g_timeout_add_seconds (2, swap_mask, &app);
  }
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  g_main_loop_run (app.loop);

  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_bus_remove_watch (bus);
  gst_object_unref (bus);
  gst_object_unref (app.cut);
  gst_object_unref (pipeline);
  g_main_loop_unref (app.loop);
  return app.failed ? 1 : 0;
}
