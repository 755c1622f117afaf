/* Run state: round trip, damage, hostile buffers, kills between the writes of a checkpoint. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/state.h"
#include "support/fixture.h"

typedef struct Fixture { Arena *arena; Err err; char dir[64]; } Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof *f);
    char path[100];
    f->arena = arena_new();
    folder_make(f->dir);
    snprintf(path, sizeof path, "%s/checkpoints", f->dir);
    assert_true(file_mkdirs(&f->err, path));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    folder_remove(f->dir);
    arena_free(f->arena);
    free(f);
    return 0;
}

static RunState example(void)
{
    return (RunState){.dav_version = "0.1.0", .cpu_level = "haswell", .precision = "f32", .seed = UINT64_MAX,
                      .phase = STATE_ALIGN, .round = 3, .step = 17, .inner_epoch = 1, .forwards = 1ll << 40, .vjps = 5,
                      .reward_forwards = 6, .reward_vjps = 7, .p0_forwards = 8, .ema_step = 9, .metrics_offset = 1234,
                      .events_offset = 4321};
}

static void put(Fixture *f, const RunState *s, const char *role, const char *text)
{
    char path[STATE_PATH];
    assert_true(state_file_path(&f->err, path, f->dir, s, role));
    assert_true(file_write(&f->err, path, text, strlen(text)));
}

static void save(Fixture *f, RunState *s, const char *weights, const char *optimiser)
{
    state_begin(s);
    put(f, s, "weights", weights);
    assert_true(state_add_file(f->arena, &f->err, f->dir, s, "weights"));
    put(f, s, "optimiser", optimiser);
    assert_true(state_add_file(f->arena, &f->err, f->dir, s, "optimiser"));
    state_add_array(s, "replay", "\0\1\2\3", 4);
    state_add_array(s, "empty", NULL, 0);
    assert_true(state_commit(&f->err, f->dir, s));
}

static int count_files(const Fixture *f)
{
    char path[100];
    int n = 0;
    snprintf(path, sizeof path, "%s/checkpoints", f->dir);
    DIR *d = opendir(path);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_round_trip(void **state)
{
    Fixture *f = *state;
    RunState s = example(), t;
    assert_false(state_exists(f->dir));
    save(f, &s, "weights of three", "moments");
    assert_true(state_exists(f->dir));
    assert_true(state_load(f->arena, &f->err, f->dir, &t));
    assert_string_equal(t.dav_version, "0.1.0");
    assert_string_equal(t.cpu_level, "haswell");
    assert_string_equal(t.precision, "f32");
    assert_true(t.seed == UINT64_MAX && t.phase == STATE_ALIGN && t.round == 3 && t.step == 17 && t.inner_epoch == 1);
    assert_true(t.forwards == 1ll << 40 && t.vjps == 5 && t.reward_forwards == 6 && t.reward_vjps == 7);
    assert_true(t.p0_forwards == 8 && t.ema_step == 9 && t.metrics_offset == 1234 && t.events_offset == 4321);
    assert_int_equal(t.serial, 1);
    assert_int_equal(t.n_files, 2);
    assert_int_equal(state_file(&t, "weights")->bytes, 16);
    /* xxhash.xxh64(b"moments").hexdigest() of Python's xxhash */
    assert_int_equal(state_file(&t, "optimiser")->hash, (int64_t)0xa80fca56c8e91ac4ull);
    assert_string_equal(state_file(&t, "weights")->name, "weights-r0003-000001.safetensors");
    assert_null(state_file(&t, "ema"));
    assert_int_equal(t.n_arrays, 2);
    assert_int_equal(state_array(&t, "replay")->bytes, 4);
    assert_memory_equal(state_array(&t, "replay")->data, "\0\1\2\3", 4);
    assert_int_equal(state_array(&t, "empty")->bytes, 0);
    assert_null(state_array(&t, "other"));
}

static void test_old_files_go(void **state)
{
    Fixture *f = *state;
    RunState s = example();
    char note[100];
    snprintf(note, sizeof note, "%s/checkpoints/note.txt", f->dir);
    assert_true(file_write(&f->err, note, "x", 1));
    for (int i = 0; i < 3; i++)
        save(f, &s, "same name would be fatal", "m");
    assert_int_equal(s.serial, 3);
    assert_int_equal(count_files(f), 4); /* run.state, two tensor files, the note that is not ours */
}

/* A kill before the commit: new tensor files lie there, the old checkpoint is whole and its files untouched. */
static void test_kill_before_commit(void **state)
{
    Fixture *f = *state;
    RunState s = example(), t;
    save(f, &s, "old", "old");
    state_begin(&s);
    put(f, &s, "weights", "new");
    put(f, &s, "optimiser", "ne"); /* even torn: nothing names it */
    assert_true(state_load(f->arena, &f->err, f->dir, &t));
    assert_int_equal(t.serial, 1);
    RunState again = t;
    save(f, &again, "new!", "new!"); /* the resumed run takes the same serial and replaces the leftovers */
    assert_true(state_load(f->arena, &f->err, f->dir, &t));
    assert_int_equal(t.serial, 2);
    assert_int_equal(state_file(&t, "weights")->bytes, 4);
}

/* A process that checkpoints all the time, killed at random moments. */
static void test_kills(void **state)
{
    Fixture *f = *state;
    RunState first = example();
    save(f, &first, "w", "o");
    first.round = 1; /* as the process below has it */
    assert_true(state_commit(&f->err, f->dir, &first));
    uint64_t last = 1;
    for (int round = 0; round < 25; round++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            RunState s = example();
            Err err = {0};
            char text[32];
            if (state_exists(f->dir) && !state_load(f->arena, &err, f->dir, &s))
                _exit(1);
            for (;;) {
                state_begin(&s);
                s.round = (int64_t)s.serial;
                for (int i = 0; i < 2; i++) {
                    static const char *const roles[] = {"weights", "optimiser"};
                    char path[STATE_PATH];
                    int n = snprintf(text, sizeof text, "%s %llu", roles[i], (unsigned long long)s.serial);
                    if (!state_file_path(&err, path, f->dir, &s, roles[i]) ||
                        !file_write(&err, path, text, (size_t)n) ||
                        !state_add_file(f->arena, &err, f->dir, &s, roles[i]))
                        _exit(1);
                }
                if (!state_commit(&err, f->dir, &s))
                    _exit(1);
            }
        }
        usleep(20000 + 17000u * (unsigned)(round % 11));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        RunState t;
        if (!state_load(f->arena, &f->err, f->dir, &t))
            fail_msg("%s", f->err.text);
        assert_true(t.serial >= last && t.round == (int64_t)t.serial);
        last = t.serial;
    }
    print_message("%d checkpoints written between 25 kills\n", (int)last - 1);
}

static char *state_bytes(Fixture *f, char path[100], size_t *n)
{
    char *bytes;
    snprintf(path, 100, "%s/checkpoints/run.state", f->dir);
    assert_true(file_read(&f->err, path, 1 << 20, &bytes, n));
    return bytes;
}

/* Any changed byte, any cut: an error that names the file. */
static void test_damage(void **state)
{
    Fixture *f = *state;
    RunState s = example(), t;
    char path[100];
    size_t n;
    save(f, &s, "w", "o");
    char *bytes = state_bytes(f, path, &n);
    for (size_t i = 0; i < n; i += 3) {
        bytes[i] ^= 0x10;
        assert_true(file_write(&f->err, path, bytes, n));
        bytes[i] ^= 0x10;
        assert_false(state_load(f->arena, &f->err, f->dir, &t));
        assert_int_equal(f->err.kind, ERR_USER);
        assert_non_null(strstr(f->err.text, "run.state: "));
        err_clear(&f->err);
    }
    for (size_t i = 0; i < n; i += 5) {
        assert_true(file_write(&f->err, path, bytes, i));
        assert_false(state_load(f->arena, &f->err, f->dir, &t));
        err_clear(&f->err);
    }
    mem_free(bytes);
}

static void test_damaged_tensors(void **state)
{
    Fixture *f = *state;
    RunState s = example(), t;
    char path[STATE_PATH];
    save(f, &s, "weights", "moments");
    put(f, &s, "optimiser", "momentz");
    assert_false(state_load(f->arena, &f->err, f->dir, &t));
    assert_int_equal(f->err.kind, ERR_USER);
    assert_non_null(strstr(f->err.text, "optimiser-r0003-000001.safetensors: 7 bytes with xxhash64 "));
    assert_non_null(strstr(f->err.text, "as run.state says"));
    err_clear(&f->err);
    assert_true(state_file_path(&f->err, path, f->dir, &s, "weights"));
    unlink(path);
    assert_false(state_load(f->arena, &f->err, f->dir, &t));
    assert_non_null(strstr(f->err.text, "weights-r0003-000001.safetensors: no such file"));
}

typedef struct Bytes { char at[4096]; size_t n; } Bytes;

static bool collect(void *arg, Err *err, const void *bytes, size_t n)
{
    (void)err;
    Bytes *b = arg;
    assert_true(n <= sizeof b->at);
    memcpy(b->at, bytes, n);
    b->n = n;
    return true;
}

/* Buffers that a right hash would not save. */
static void test_hostile(void **state)
{
    Fixture *f = *state;
    RunState t, bad[4];
    for (int i = 0; i < 4; i++) {
        bad[i] = example();
        bad[i].files[bad[i].n_files++] = (StateFile){"weights", "a.safetensors", 1, 1};
    }
    bad[0].files[0].name = "../../etc/passwd";
    bad[1].files[0].name = ".hidden";
    bad[2].round = -1;
    bad[3].cpu_level = "";
    for (int i = 0; i < 4; i++) {
        Bytes b;
        assert_true(state_encode(&f->err, &bad[i], collect, &b));
        assert_false(state_decode(f->arena, &f->err, "x", b.at, b.n, &t));
        assert_non_null(strstr(f->err.text, "x: run state with a"));
        err_clear(&f->err);
    }
    Bytes b;
    RunState s = example();
    assert_true(state_encode(&f->err, &s, collect, &b));
    for (size_t i = 0; i < b.n; i++)
        for (int bit = 0; bit < 8; bit++) { /* may well decode: it must only not crash */
            b.at[i] ^= (char)(1 << bit);
            state_decode(f->arena, &f->err, "x", b.at, b.n, &t);
            b.at[i] ^= (char)(1 << bit);
        }
    for (size_t n = 0; n < b.n; n++) /* without its last padding a buffer is whole; without half of it, it is not */
        assert_true(!state_decode(f->arena, &f->err, "x", b.at, n, &t) || n > b.n / 2);
}

static void test_machine(void **state)
{
    Fixture *f = *state;
    RunState s = example();
    assert_true(state_same_machine(&f->err, &s, "0.1.0", "haswell", "f32", false));
    assert_true(state_same_machine(&f->err, &s, "0.2.0", "skylake-avx512", "bf16", true));
    assert_false(state_same_machine(&f->err, &s, "0.1.0", "skylake-avx512", "f32", false));
    assert_string_equal(f->err.text,
                        "the run was made with CPU level haswell, here it is skylake-avx512; its bits would "
                        "differ: --allow-different-bits goes on all the same");
}

static bool load_protected(void *arg)
{
    Fixture *f = arg;
    RunState t;
    return state_load(f->arena, &f->err, f->dir, &t);
}

static void test_allocation_failures(void **state)
{
    Fixture *f = *state;
    RunState s = example();
    save(f, &s, "w", "o");
    bool ok = false;
    for (int n = 1; !ok; n++) {
        Fixture g = {.arena = arena_new()};
        strcpy(g.dir, f->dir);
        int64_t before = mem_live();
        mem_fail_at(n);
        ok = mem_protect(&g.err, load_protected, &g);
        mem_fail_at(0);
        assert_int_equal(g.err.kind, ok ? ERR_NONE : ERR_ENV);
        arena_free(g.arena);
        assert_true(mem_live() < before);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_round_trip), T(test_old_files_go), T(test_kill_before_commit), T(test_kills), T(test_damage),
        T(test_damaged_tensors), T(test_hostile), T(test_machine), T(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
