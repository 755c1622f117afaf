#include "support/fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void folder_make(char folder[64])
{
    strcpy(folder, "/tmp/dav-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

void folder_remove(const char *folder)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

Arena *arena;

int arena_set_up(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

int arena_tear_down(void **state)
{
    (void)state;
    arena_free(arena);
    return 0;
}
