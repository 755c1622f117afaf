/* What test programs of several areas set up around a test. */
#pragma once
#include "base/mem.h"

/* A new folder below /tmp, and its end with everything in it. */
void folder_make(char folder[64]);
void folder_remove(const char *folder);

/* cmocka set-up and tear-down of a test with an arena. */
extern Arena *arena;
int arena_set_up(void **state);
int arena_tear_down(void **state);
