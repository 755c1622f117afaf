/* The object cache: hits, misses with their reasons, damaged files, many processes at once. */
#define _GNU_SOURCE
#include "codegen/codegen.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { N = 40 };

typedef struct Fix { Arena *arena; Err err; char dir[64]; const Graph *kernel[3]; } Fix;

/* y = x * factor */
static Graph *scale_kernel(Fix *f, double factor)
{
    Graph *k = kernel_new(f->arena, &f->err, "scale");
    int64_t n = N;
    Val x = k_buf(k, "p0", BUF_IN, 0, type_make(DAV_F32, 1, &n)), y = k_buf(k, "p1", BUF_OUT, 1, type_make(DAV_F32, 1, &n));
    Val p = k_for(k, LOOP_PARALLEL, 0, 1, 1), j = k_for(k, LOOP_VECTOR, 0, N, 1);
    k_store(k, y, j, k_op(k, OP_MUL, k_load(k, x, j, 0), k_num(k, DAV_F32, factor), 0), 0);
    k_end(k, j);
    k_end(k, p);
    return k;
}

static int setup(void **state)
{
    Fix *f = calloc(1, sizeof *f);
    f->arena = arena_new();
    strcpy(f->dir, "/tmp/dav-cache-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    f->kernel[0] = scale_kernel(f, 2);
    f->kernel[1] = scale_kernel(f, 3);
    f->kernel[2] = scale_kernel(f, 2); /* equal to the first */
    *state = f;
    return 0;
}

static void each_file(const char *dir, void (*fn)(const char *path))
{
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            fn(path);
    }
    closedir(d);
}

static void remove_file(const char *path)
{
    unlink(path);
}

static int teardown(void **state)
{
    Fix *f = *state;
    chmod(f->dir, 0700);
    each_file(f->dir, remove_file);
    rmdir(f->dir);
    arena_free(f->arena);
    free(f);
    return 0;
}

static bool compile(Fix *f, const char *dir, KernelCode code[3])
{
    CpuTarget t;
    Jit *j = cpu_target(&f->err, NULL, &t) ? jit_new(&f->err, &t, dir) : NULL;
    if (!j || !jit_compile(j, &f->err, f->kernel, 3, 2, code))
        return false;
    float x[N], y[3][N];
    bool right = true;
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    for (int k = 0; k < 3; k++) {
        code[k].fn((void *const[]){x, y[k]}, 0, 1, NULL);
        for (int i = 0; i < N; i++)
            right &= y[k][i] == x[i] * (k == 1 ? 3.0f : 2.0f);
    }
    jit_free(j);
    return right;
}

static void test_hit_and_miss(void **state)
{
    Fix *f = *state;
    KernelCode code[3];
    assert_true(compile(f, f->dir, code));
    assert_string_equal(code[0].miss_reason, "new kernel");
    assert_false(code[0].from_cache);
    assert_int_equal(code[2].same_as, 0);
    assert_int_equal(code[1].same_as, -1);
    assert_ptr_equal(code[2].fn, code[0].fn);
    assert_true(compile(f, f->dir, code));
    assert_true(code[0].from_cache && code[1].from_cache);
    assert_null(code[0].miss_reason);
    assert_true(code[0].code_bytes > 0);
    assert_true(compile(f, NULL, code));
    assert_string_equal(code[0].miss_reason, "no cache folder");
}

static void flip_byte(const char *path)
{
    FILE *file = fopen(path, "r+b");
    fseek(file, 0, SEEK_END);
    long at = ftell(file) / 2;
    fseek(file, at, SEEK_SET);
    int c = fgetc(file);
    fseek(file, at, SEEK_SET);
    fputc(c ^ 0x10, file);
    fclose(file);
}

static void cut_short(const char *path)
{
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(truncate(path, s.st_size - 9), 0);
}

static void make_empty(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void grow(const char *path)
{
    FILE *file = fopen(path, "ab");
    fputs("more", file);
    fclose(file);
}

static void test_damage(void **state)
{
    Fix *f = *state;
    void (*const harm[])(const char *) = {flip_byte, cut_short, make_empty, grow};
    KernelCode code[3];
    assert_true(compile(f, f->dir, code));
    for (size_t i = 0; i < sizeof harm / sizeof *harm; i++) {
        each_file(f->dir, harm[i]);
        assert_true(compile(f, f->dir, code));
        assert_string_equal(code[0].miss_reason, "damaged file");
        assert_true(compile(f, f->dir, code)); /* mended */
        assert_true(code[0].from_cache);
    }
}

static void test_unwritable(void **state)
{
    Fix *f = *state;
    KernelCode code[3];
    char inside_file[128];
    snprintf(inside_file, sizeof inside_file, "%s/file", f->dir);
    fclose(fopen(inside_file, "w"));
    strcat(inside_file, "/cache"); /* a folder that can never be */
    assert_true(compile(f, inside_file, code));
    assert_string_equal(code[0].miss_reason, "new kernel");
}

static void test_processes(void **state)
{
    Fix *f = *state;
    for (int round = 0; round < 3; round++) {
        each_file(f->dir, remove_file);
        pid_t child[4];
        for (int i = 0; i < 4; i++)
            if ((child[i] = fork()) == 0) {
                KernelCode code[3];
                bool ok = true;
                for (int again = 0; again < 3; again++)
                    ok &= compile(f, f->dir, code);
                _exit(ok ? 0 : 1);
            }
        for (int i = 0; i < 4; i++) {
            int status = 0;
            waitpid(child[i], &status, 0);
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        }
    }
    KernelCode code[3];
    assert_true(compile(f, f->dir, code));
    assert_true(code[0].from_cache && code[1].from_cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hit_and_miss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unwritable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_processes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
