/* The object cache: hits, misses with their reasons, damaged files, many processes at once. */
#define _GNU_SOURCE
#include "codegen/cache.h"
#include <dirent.h>
#include <fcntl.h>
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

static void touch(const char *dir, const char *name, int64_t bytes, int64_t written)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    for (int64_t i = 0; i < bytes; i++)
        fputc('x', file);
    fclose(file);
    assert_int_equal(utimensat(AT_FDCWD, path, (struct timespec[2]){{.tv_sec = written}, {.tv_sec = written}}, 0), 0);
}

static bool stands(const char *dir, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* The objects written longest ago go until three quarters of the bound are left; nothing else is touched. */
static void test_trim(void **state)
{
    Fix *f = *state;
    static const char *const name[] = {"0000000000000000.o", "0000000000000001.o", "0000000000000002.o", "0000000000000003.o"};
    static const int64_t written[] = {4000, 1000, 3000, 2000};
    for (int i = 0; i < 4; i++)
        touch(f->dir, name[i], 100, written[i]);
    touch(f->dir, "notes.txt", 1000, 1);
    touch(f->dir, "0000000000000001.o.77.1", 1000, 1); /* being written by another process */
    cache_trim(f->dir, 400);
    for (int i = 0; i < 4; i++)
        assert_true(stands(f->dir, name[i])); /* not over the bound */
    cache_trim(f->dir, 399);
    assert_false(stands(f->dir, name[1])); /* 299 are allowed: two go */
    assert_false(stands(f->dir, name[3]));
    assert_true(stands(f->dir, name[0]) && stands(f->dir, name[2]));
    assert_true(stands(f->dir, "notes.txt") && stands(f->dir, "0000000000000001.o.77.1"));
    cache_trim("/does/not/exist", 1);
}

/* Whichever allocation fails, from the first of jit_new to the last of jit_compile: an error of the environment or, where only
 * the cache was served worse, right code; nothing is left behind. */
typedef struct Whole { Fix *fix; Err *err; Jit *jit; KernelCode code[3]; } Whole;

static bool new_and_compile(void *arg)
{
    Whole *w = arg;
    CpuTarget t;
    w->jit = cpu_target(w->err, NULL, &t) ? jit_new(w->err, &t, w->fix->dir) : NULL;
    return w->jit && jit_compile(w->jit, w->err, w->fix->kernel, 3, 1, w->code);
}

static void test_out_of_memory(void **state)
{
    Fix *f = *state;
    int failed = 0, worked = 0;
    for (int64_t n = 1; worked < 12; n++) { /* a dozen in a row: the last allocation is behind us */
        each_file(f->dir, n % 2 ? remove_file : make_empty); /* new, then damaged */
        int64_t live = mem_live();
        Err err = {0};
        Whole w = {.fix = f, .err = &err};
        mem_fail_at(n);
        bool ok = mem_protect(&err, new_and_compile, &w);
        mem_fail_at(0);
        assert_true(ok || err.kind == ERR_ENV);
        failed += !ok;
        worked = ok ? worked + 1 : 0;
        jit_free(w.jit);
        if (mem_live() != live)
            fail_msg("allocation %d fails, %d are left", (int)n, (int)(mem_live() - live));
    }
    assert_true(failed > 10);
}

static void test_text_out_of_memory(void **state)
{
    Fix *f = *state;
    CpuTarget t;
    assert_true(cpu_target(&f->err, NULL, &t));
    int worked = 0;
    for (int64_t n = 2; !worked; n++) { /* the first is the worker's own */
        int64_t live = mem_live();
        Err err = {0};
        Buf ir = {0}, assembly = {0};
        mem_fail_at(n);
        worked = jit_text(&t, &err, f->kernel[0], &ir, &assembly, NULL);
        mem_fail_at(0);
        assert_true(worked || err.kind == ERR_ENV);
        buf_free(&ir);
        buf_free(&assembly);
        assert_int_equal(mem_live(), live);
    }
}

/* Code for one processor is never taken for another's. */
static void test_key(void **state)
{
    (void)state;
    CpuTarget t = {.name = "level", .cpu = "cpu", .features = "+a"}, other[3] = {t, t, t};
    other[0].name = "lower";
    other[1].cpu = "newer";
    other[2].features = "+a,+b";
    Buf key = {0}, again = {0};
    cache_key(&key, &t, 7);
    cache_key(&again, &t, 7);
    assert_string_equal(key.at, again.at);
    for (int i = 0; i < 4; i++) {
        again.len = 0;
        cache_key(&again, i < 3 ? &other[i] : &t, i < 3 ? 7 : 8);
        assert_string_not_equal(key.at, again.at);
    }
    buf_free(&key);
    buf_free(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hit_and_miss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unwritable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_processes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trim, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_out_of_memory, setup, teardown),
        cmocka_unit_test(test_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
