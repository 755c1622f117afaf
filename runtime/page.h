/* The page of a run: RUN/index.html, one file that needs nothing else, from what lies in the folder (docs/runfolder.md).
 * reference_path: a JSON object laid out as an eval row (or with one under "real") with the figures of real examples;
 * NULL or missing: none. */
#pragma once
#include "base/err.h"

bool page_write(Err *err, const char *run_dir, const char *reference_path);
