/* What a dump says of registers and spills. */
#include "codegen/codegen.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_counts(void **state)
{
    (void)state;
    static const struct { const char *level, *text; AsmCount want; } row[] = {
        {"skylake-avx512",
         "\t.globl\tk_xmm9\nk_xmm9:                # @k\n"
         "\tvmovups\t%zmm31, 64(%rsp)                # 64-byte Spill\n"
         "\tmovq\t%rax, -72(%rsp)                 # 8-byte Spill\n"
         "\tvmovss\t%xmm3, (%rsp)               # 4-byte Spill\n"
         "\tvmovups\t64(%rsp), %zmm31                # 64-byte Reload\n"
         "\tvfmadd231ps\t(%rdi){1to16}, %zmm3, %zmm12 {%k1} # %zmm20 is only named\n"
         "\tvaddps\t%ymm0, %ymm0, %ymm12\n"
         "\tvmovaps\t%zmm1, 128(%rsp)              # 32-byte Folded Spill\n",
         {5, 2, 2}},
        {"neon",
         "\tfmla\tv17.4s, v0.4s, v1.s[2]\n\tstr\tq17, [sp, #16]                  // 16-byte Folded Spill\n"
         "\tldr\tq3, [x1]\n\tstr\tx19, [sp]                       // 8-byte Folded Spill\n\tmov\tx30, x5\n\tbl\tv9\n",
         {5, 1, 1}},
        {"haswell", "", {0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        Err err = {0};
        CpuTarget t;
        assert_true(cpu_target_named(&err, row[i].level, &t));
        AsmCount c = asm_count(row[i].text, &t);
        assert_int_equal(c.vector_registers, row[i].want.vector_registers);
        assert_int_equal(c.vector_spills, row[i].want.vector_spills);
        assert_int_equal(c.scalar_spills, row[i].want.scalar_spills);
    }
}

static json_int_t number(const json_t *step, const char *key)
{
    assert_true(json_is_integer(json_object_get(step, key)));
    return json_integer_value(json_object_get(step, key));
}

static void inspect_shows_spills(const char *dir)
{
    char command[1000], line[4000];
    bool shown = false;
    snprintf(command, sizeof command, "'%s' inspect %s", DAV_BINARY, dir);
    FILE *f = popen(command, "r");
    while (fgets(line, sizeof line, f))
        shown |= strstr(line, "spills  kernel") != NULL;
    assert_int_equal(pclose(f), 0);
    assert_true(shown);
}

/* Every register tile of the released network's forward and training graph in f32 stays in registers. */
static void test_tiles_do_not_spill(void **state)
{
    (void)state;
    const char *lacks = cpu_target_lacks("skylake-avx512");
    if (lacks) {
        print_message("SKIPPED: this machine lacks %s\n", lacks);
        skip();
    }
    static const char *const tasks[] = {"forward", "learn"};
    char dir[] = "/tmp/dav-dump-XXXXXX", command[1000], file[100];
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command, "DAV_CPU=skylake-avx512 '%s' compile DNAConv --task %s --rows 2 --dump %s >%s/said 2>&1",
                 DAV_BINARY, tasks[i], dir, dir);
        assert_int_equal(system(command), 0);
        snprintf(file, sizeof file, "%s/kernels.json", dir);
        json_t *steps = json_load_file(file, 0, NULL), *s;
        size_t at;
        int tiles = 0;
        json_array_foreach(steps, at, s) {
            if (strncmp(json_string_value(json_object_get(s, "name")), "contract", 8) != 0)
                continue;
            tiles++;
            if (number(s, "vector_spills"))
                fail_msg("%s: %s spills %d vector registers", tasks[i], json_string_value(json_object_get(s, "name")),
                         (int)number(s, "vector_spills"));
            assert_true(number(s, "vector_registers") > 0 && number(s, "vector_registers") <= 32);
            assert_true(number(s, "scalar_spills") >= 0);
        }
        assert_true(tiles >= 20);
        json_decref(steps);
    }
    inspect_shows_spills(dir);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts), cmocka_unit_test(test_tiles_do_not_spill)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
