/* What libraries that stand beside the driver's stand-in share with it. */
#pragma once
#include <functional>
#include <stddef.h>

struct Stream;
#define SHARED extern "C" __attribute__((visibility("default")))
/* Counts a call; true: it is to fail. */
SHARED bool dav_standin_call();
/* Objects made (1) and destroyed (-1). */
SHARED void dav_standin_count(int objects);
/* Does [at, at + bytes) lie in one allocation of the device whose context is current? */
SHARED bool dav_standin_holds(const void *at, size_t bytes);
SHARED bool dav_standin_captures(const Stream *stream);
/* Puts work on the stream, to be done when somebody waits for it, or at each launch of the graph that is being captured. */
SHARED void dav_standin_queue(Stream *stream, const std::function<void()> &work);
