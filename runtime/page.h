/* The page of a run: RUN/index.html, one file that needs nothing else, from what lies in the folder
 * (docs/runfolder.md). reference_path: the figures of real examples, as an eval row (alone or under "real") or a
 * reference table of runtime/seqref.h; NULL or missing: none. */
#pragma once
#include "base/err.h"

bool page_write(Err *err, const char *run_dir, const char *reference_path);
