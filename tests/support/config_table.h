/* The table that the tests and fuzz targets of configurations share. */
#pragma once
#include "dav/config.h"
#include <stddef.h>

static const DavKey table[] = {
    {"steps", DAV_KEY_INT, "128", 1, 4096, NULL, "reverse steps"},
    {"search", DAV_KEY_STRING, "dav", 0, 0, "none|dav|best", "how trajectories are made"},
    {"search.gamma", DAV_KEY_FLOAT, "0.9", 0, 1, NULL, "discount"},
    {"search.duplicate", DAV_KEY_INT, "10", 1, 1024, NULL, "children a step"},
    {"train.lr", DAV_KEY_FLOAT, "3e-4", 0, 1, NULL, "learning rate"},
    {"train.replay", DAV_KEY_BOOL, "true", 0, 0, NULL, "keep a replay buffer"},
    {"model.dilations", DAV_KEY_INTS, "[1, 1, 4]", 1, 512, NULL, "dilation of each layer"},
    {"model.name", DAV_KEY_STRING, NULL, 0, 0, NULL, "the network"},
};
enum { N_KEYS = sizeof table / sizeof *table };
