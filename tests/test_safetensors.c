/* safetensors: what the reference implementation wrote (tests/reference/safetensors_files.py) is read, what we write holds
 * the same, and no damaged or hostile file is accepted or crashes. */
#include "ir/dtype.h"
#include "runtime/safetensors.h"
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define REFERENCE DAV_SOURCE_DIR "/tests/reference/safetensors_small.safetensors"

static char *slurp(const char *path, size_t *n)
{
    Err err = {0};
    char *data = NULL;
    if (!file_read(&err, path, 1 << 20, &data, n))
        fail_msg("%s", err.text);
    return data;
}

static void in_temporary(char path[64], const char *name)
{
    snprintf(path, 64, "/tmp/dav-test-%ld-%s", (long)getpid(), name);
}

/* A file in memory from the text of its header and the number of data bytes. */
static SafeTensors *from_header(Err *err, const char *header, size_t data)
{
    static char file[4096];
    uint64_t n = strlen(header);
    memset(file, 1, sizeof file);
    for (int i = 0; i < 8; i++)
        file[i] = (char)(n >> 8 * i);
    memcpy(file + 8, header, n);
    return safetensors_from_memory(err, "bad.safetensors", file, 8 + n + data);
}

static void refused(const char *header, size_t data, const char *message)
{
    Err err = {0};
    SafeTensors *s = from_header(&err, header, data);
    if (s)
        fail_msg("accepted: %s", header);
    assert_int_equal(err.kind, ERR_USER);
    if (!strstr(err.text, message) || strncmp(err.text, "bad.safetensors: ", 17) != 0)
        fail_msg("%s: expected '%s', found '%s'", header, message, err.text);
}

/* ---- element types ---- */
static void half_floats(void **state)
{
    (void)state;
    /* IEEE 754 binary16: largest, smallest normal, smallest subnormal, ties to even, overflow */
    const struct { float f; uint16_t f16, bf16; } known[] = {
        {0.0f, 0, 0}, {-0.0f, 0x8000, 0x8000}, {1.0f, 0x3c00, 0x3f80}, {65504.0f, 0x7bff, 0x4780},
        {65520.0f, 0x7c00, 0x4780}, {65519.0f, 0x7bff, 0x4780}, {0x1p-14f, 0x0400, 0x3880}, {0x1p-24f, 1, 0x3380},
        {0x1p-25f, 0, 0x3300}, {0x1.8p-25f, 1, 0x3340}, {1.0f + 0x1p-11f, 0x3c00, 0x3f80},
        {1.0f + 0x3p-11f, 0x3c02, 0x3f80}, {1.0f + 0x1p-8f, 0x3c04, 0x3f80}, {1.0f + 0x3p-8f, 0x3c0c, 0x3f82},
        {INFINITY, 0x7c00, 0x7f80}, {-INFINITY, 0xfc00, 0xff80}, {0x1.fffffep127f, 0x7c00, 0x7f80},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(f16_from_f32(known[i].f), known[i].f16);
        assert_int_equal(bf16_from_f32(known[i].f), known[i].bf16);
    }
    assert_true(isnan(f16_to_f32(f16_from_f32(NAN))) && isnan(bf16_to_f32(bf16_from_f32(NAN))));
    assert_true(isnan(bf16_to_f32(bf16_from_f32(f32_from_bits(0x7f800001u)))));
    for (uint32_t h = 0; h < 0x10000; h++) { /* every 16-bit float survives f32 and back */
        uint16_t u = (uint16_t)h;
        if (!isnan(f16_to_f32(u)))
            assert_int_equal(f16_from_f32(f16_to_f32(u)), u);
        if (!isnan(bf16_to_f32(u)))
            assert_int_equal(bf16_from_f32(bf16_to_f32(u)), u);
    }
}

static void dtype_names(void **state)
{
    (void)state;
    for (int i = 0; i < DAV_DTYPE_COUNT; i++) {
        DavDtype t = DAV_DTYPE_COUNT;
        assert_true(dav_dtype_from_name(dav_dtype_name((DavDtype)i), &t));
        assert_int_equal(t, i);
    }
    DavDtype t = DAV_F16;
    assert_false(dav_dtype_from_name("f33", &t) || dav_dtype_from_name(NULL, &t));
    assert_int_equal(t, DAV_F16);
    assert_int_equal(dav_dtype_size(DAV_BF16), 2);
    assert_int_equal(dav_dtype_size(DAV_DTYPE_COUNT), 0);
    assert_string_equal(dav_dtype_name((DavDtype)-1), "invalid");
}

/* ---- reading ---- */
static void reads_the_reference_file(void **state)
{
    (void)state;
    Err err = {0};
    SafeTensors *s = safetensors_open(&err, REFERENCE);
    if (!s)
        fail_msg("%s", err.text);
    assert_int_equal(s->n, 9);
    assert_string_equal(safetensors_meta(s, "format"), "pt");
    assert_null(safetensors_meta(s, "none"));
    assert_null(safetensors_find(s, "none"));
    const char *floats[] = {"f64", "f32", "bf16", "f16"};
    for (int i = 0; i < 4; i++) { /* value j of each is (j - 3) / 2 */
        const SafeTensor *t = safetensors_find(s, floats[i]);
        float v[6];
        assert_non_null(t);
        assert_int_equal(t->dtype, i);
        assert_int_equal(t->rank, 2);
        assert_int_equal(t->dim[0], 2);
        assert_int_equal(t->dim[1], 3);
        assert_true(safetensor_to_f32(&err, s, t, v));
        for (int j = 0; j < 6; j++)
            assert_true(v[j] == (float)(j - 3) / 2);
    }
    const SafeTensor *ids = safetensors_find(s, "i64");
    assert_int_equal(((const int64_t *)ids->data)[1], -5000000000);
    assert_int_equal(safetensors_find(s, "scalar")->rank, 0);
    assert_int_equal(safetensor_count(safetensors_find(s, "scalar")), 1);
    assert_int_equal(safetensors_find(s, "empty")->bytes, 0);
    const SafeTensor *bytes = safetensors_find(s, "u8");
    assert_int_equal(bytes->dtype, DAV_DTYPE_COUNT);
    assert_string_equal(bytes->file_dtype, "U8");
    float one;
    assert_false(safetensor_to_f32(&err, s, ids, &one));
    assert_non_null(strstr(err.text, "tensor 'i64': expected floating-point numbers, found I64"));
    safetensors_close(s);
}

static void copies_misaligned_data(void **state)
{
    (void)state;
    Err err = {0};
    SafeTensors *s = from_header(&err, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                       "\"b\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[1,17]}}", 17);
    if (!s)
        fail_msg("%s", err.text);
    assert_int_equal((uintptr_t)s->tensor[1].data % 8, 0);
    assert_int_equal(((const char *)s->tensor[1].data)[15], 1);
    safetensors_close(s);
}

static void refuses_hostile_headers(void **state)
{
    (void)state;
#define T(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    refused("", 0, "does not begin with '{'");
    refused("[]", 0, "does not begin with '{'");
    refused("{}", 1, "1 bytes after the last tensor");
    refused("{\"a\":1}", 0, "tensor 'a': expected exactly dtype");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "expected exactly dtype");
    refused("{\"a\":" T("F31", "[1]", "[0,4]") "}", 4, "unknown dtype 'F31', did you mean F32?");
    refused("{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8, "duplicate");
    refused("{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[2,6]") "}", 6, "begins at byte 2, expected 4 (overlap)");
    refused("{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 4, "(overlap)");
    refused("{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[8,12]") "}", 12, "(hole)");
    refused("{\"a\":" T("F32", "[1]", "[4,8]") "}", 8, "(hole)");
    refused("{\"a\":" T("F32", "[1]", "[0,4]") "}", 5, "1 bytes after the last tensor");
    refused("{\"a\":" T("F32", "[2]", "[0,8]") "}", 4, "is the file cut short?");
    refused("{\"a\":" T("F32", "[2]", "[0,4]") "}", 4, "need 8 bytes, data_offsets give 4");
    refused("{\"a\":" T("F32", "[1]", "[4,0]") "}", 4, "expected begin <= end");
    refused("{\"a\":" T("F32", "[1]", "[0]") "}", 4, "expected begin <= end");
    refused("{\"a\":" T("F32", "[1]", "[0,4,8]") "}", 4, "at most 2 integers");
    refused("{\"a\":" T("F32", "[1]", "[-4,0]") "}", 4, "data_offsets[0]: expected an integer >= 0");
    refused("{\"a\":" T("F32", "[1.0]", "[0,4]") "}", 4, "shape[0]: expected an integer >= 0");
    refused("{\"a\":" T("F32", "[-1]", "[0,4]") "}", 4, "shape[0]: expected an integer >= 0");
    refused("{\"a\":" T("F32", "3", "[0,4]") "}", 4, "shape: expected a list");
    refused("{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "at most 8 integers");
    refused("{\"a\":" T("F32", "[9223372036854775807]", "[0,4]") "}", 4, "too large for any file");
    refused("{\"a\":" T("F32", "[9223372036854775808]", "[0,4]") "}", 4, "too big");
    refused("{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "too large for any file");
    refused("{\"a\":" T("F32", "[4611686018427387904,0,8]", "[0,0]") "}", 0, "too large for any file");
    refused("{\"a\":" T("F32", "[1]", "[9223372036854775803,9223372036854775807]") "}", 4, "expected begin <= end <= 4");
    refused("{\"__metadata__\":[]}", 0, "__metadata__: expected an object");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ 'a': expected a string");
    refused("{\"a\":" T("F32", "[[1]]", "[0,4]") "}", 4, "nested deeper");
    refused("{\"a\xff\":" T("F32", "[1]", "[0,4]") "}", 4, "unable to decode byte 0xff");
    refused("{} {}", 0, "end of file expected");
#undef T
}

static void refuses_impossible_lengths(void **state)
{
    (void)state;
    const uint64_t lengths[] = {9, UINT64_C(1) << 40, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        char file[17] = "        {}      ";
        Err err = {0};
        for (int i = 0; i < 8; i++)
            file[i] = (char)(lengths[k] >> 8 * i);
        assert_null(safetensors_from_memory(&err, "f", file, 16));
        assert_non_null(strstr(err.text, "or cut short"));
    }
    size_t big = (5u << 20) + 8; /* a header that is there, but larger than allowed */
    char *file = calloc(1, big);
    Err err = {0};
    file[2] = 0x50, file[8] = '{';
    assert_null(safetensors_from_memory(&err, "f", file, big));
    assert_non_null(strstr(err.text, "expected at most 4194304"));
    free(file);
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    size_t n;
    char *file = slurp(REFERENCE, &n);
    for (size_t cut = 0; cut < n; cut++) {
        char *part = malloc(cut ? cut : 1); /* its own block: a sanitizer sees a read past its end */
        memcpy(part, file, cut);
        Err err = {0};
        assert_null(safetensors_from_memory(&err, "cut", part, cut));
        assert_int_equal(err.kind, ERR_USER);
        free(part);
    }
    mem_free(file);
}

/* Each byte in turn replaced by others: whatever is accepted must be readable from end to end. */
static void survives_damaged_bytes(void **state)
{
    (void)state;
    size_t n;
    char *file = slurp(REFERENCE, &n);
    for (size_t i = 0; i < n; i++) {
        const char was = file[i], tries[] = {0, 1, '"', '9', '-', ']', '}', (char)0xff, (char)(was ^ 1), (char)(was ^ 0x80)};
        for (size_t k = 0; k < sizeof tries; k++) {
            file[i] = tries[k];
            Err err = {0};
            SafeTensors *s = safetensors_from_memory(&err, "damaged", file, n);
            unsigned sum = 0;
            for (size_t t = 0; s && t < s->n; t++)
                for (size_t b = 0; b < s->tensor[t].bytes; b++)
                    sum += ((const unsigned char *)s->tensor[t].data)[b];
            assert_true((s != NULL) == (err.kind == ERR_NONE) && sum < 1u << 20);
            safetensors_close(s);
        }
        file[i] = was;
    }
    mem_free(file);
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    Err err = {0};
    assert_null(safetensors_open(&err, "/nonexistent/x.safetensors"));
    assert_string_equal(err.text, "/nonexistent/x.safetensors: no such file");
    err_clear(&err);
    assert_null(safetensors_open(&err, "/tmp"));
    assert_int_equal(err.kind, ERR_USER);
    err_clear(&err);
    assert_null(safetensors_open(&err, "/dev/zero"));
    assert_int_equal(err.kind, ERR_USER);
}

/* ---- writing ---- */
static void writes_the_same_content(void **state)
{
    (void)state;
    Err err = {0};
    double wide[6];
    float f[6];
    uint16_t bf[6], h[6];
    int64_t ids[2] = {7, -5000000000};
    for (int j = 0; j < 6; j++) {
        wide[j] = f[j] = (float)(j - 3) / 2;
        bf[j] = bf16_from_f32(f[j]);
        h[j] = f16_from_f32(f[j]);
    }
    const float one = 1;
    const uint8_t flags[3] = {1, 0, 1};
    const SafeTensor t[] = {
        {.name = "bool", .dtype = DAV_BOOL, .rank = 1, .dim = {3}, .data = flags},
        {.name = "f16", .dtype = DAV_F16, .rank = 2, .dim = {2, 3}, .data = h},
        {.name = "empty", .dtype = DAV_F32, .rank = 2, .dim = {0, 4}, .data = f},
        {.name = "f32", .dtype = DAV_F32, .rank = 2, .dim = {2, 3}, .data = f},
        {.name = "scalar", .dtype = DAV_F32, .rank = 0, .data = &one},
        {.name = "bf16", .dtype = DAV_BF16, .rank = 2, .dim = {2, 3}, .data = bf},
        {.name = "i64", .dtype = DAV_I64, .rank = 1, .dim = {2}, .data = ids},
        {.name = "f64", .dtype = DAV_F64, .rank = 2, .dim = {2, 3}, .data = wide},
    };
    const SafeMeta meta[] = {{"z", "1\n\"é"}, {"format", "pt"}};
    char path[64], again[64];
    in_temporary(path, "a.safetensors");
    in_temporary(again, "b.safetensors");
    assert_true(safetensors_write(&err, path, t, 8, meta, 2));
    SafeTensor turned[8];
    for (int i = 0; i < 8; i++)
        turned[i] = t[7 - i];
    const SafeMeta meta_turned[] = {meta[1], meta[0]};
    assert_true(safetensors_write(&err, again, turned, 8, meta_turned, 2));
    size_t n, m;
    char *a = slurp(path, &n), *b = slurp(again, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    mem_free(a);
    mem_free(b);
    SafeTensors *s = safetensors_open(&err, path), *ref = safetensors_open(&err, REFERENCE);
    assert_non_null(s);
    assert_string_equal(safetensors_meta(s, "z"), "1\n\"é");
    for (int i = 0; i < 8; i++) {
        const SafeTensor *mine = safetensors_find(s, t[i].name), *theirs = safetensors_find(ref, t[i].name);
        assert_string_equal(mine->file_dtype, theirs->file_dtype);
        assert_int_equal(mine->rank, theirs->rank);
        assert_memory_equal(mine->dim, theirs->dim, sizeof mine->dim);
        assert_int_equal(mine->bytes, theirs->bytes);
        assert_memory_equal(mine->data, theirs->data, mine->bytes);
    }
    safetensors_close(s);
    safetensors_close(ref);
    unlink(path);
    unlink(again);
}

static void a_failed_write_leaves_the_old_file(void **state)
{
    (void)state;
    Err err = {0};
    char path[64];
    in_temporary(path, "kept.safetensors");
    const float one = 1;
    const SafeTensor good = {.name = "x", .dtype = DAV_F32, .data = &one};
    const SafeTensor twice[] = {good, good};
    SafeTensor bad = good;
    bad.name = "\xff";
    assert_true(safetensors_write(&err, path, &good, 1, NULL, 0));
    assert_false(safetensors_write(&err, path, twice, 2, NULL, 0));
    assert_int_equal(err.kind, ERR_USER);
    assert_false(safetensors_write(&err, path, &bad, 1, NULL, 0));
    bad.name = "__metadata__";
    assert_false(safetensors_write(&err, path, &bad, 1, NULL, 0));
    err_clear(&err);
    assert_false(safetensors_write(&err, "/nonexistent/x.safetensors", &good, 1, NULL, 0));
    assert_int_equal(err.kind, ERR_ENV);
    SafeTensors *s = safetensors_open(&err, path);
    assert_non_null(s);
    assert_int_equal(s->n, 1);
    safetensors_close(s);
    unlink(path);
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    const int64_t before = mem_live();
    char path[64];
    in_temporary(path, "memory.safetensors");
    const float one = 1;
    const SafeTensor good = {.name = "x", .dtype = DAV_F32, .data = &one};
    bool read_done = false, write_done = false;
    for (int64_t i = 1; !(read_done && write_done); i++) {
        Err err = {0};
        mem_fail_at(i);
        SafeTensors *s = safetensors_open(&err, REFERENCE);
        read_done = s != NULL;
        mem_fail_at(0);
        safetensors_close(s);
        assert_true(read_done || err.kind == ERR_ENV);
        err_clear(&err);
        mem_fail_at(i);
        write_done = safetensors_write(&err, path, &good, 1, NULL, 0);
        mem_fail_at(0);
        assert_true(write_done || err.kind == ERR_ENV);
        assert_int_equal(mem_live(), before);
    }
    unlink(path);
}

static void reads_published_weights(void **state)
{
    (void)state;
    const char *root = getenv("DAV_TEST_DATA");
    if (!root) {
        print_message("SKIPPED: DAV_TEST_DATA is not set\n");
        skip();
    }
    const struct { const char *file; size_t n; const char *name, *dtype; int64_t count; } known[] = {
        {"mpra_dragonn_conv.safetensors", 20, "conv1d_1/kernel", "F32", 5 * 4 * 120},
        {"laion_aesthetic_l14_mlp.safetensors", 10, "layers.0.weight", "F32", 1024 * 768},
        {"taef2_encoder.safetensors", 0, NULL, NULL, 0},
        {"squeezenet1_0.safetensors", 0, NULL, NULL, 0},
    };
    for (size_t i = 0; i < 4; i++) {
        char path[4096];
        Err err = {0};
        snprintf(path, sizeof path, "%s/%s", root, known[i].file);
        SafeTensors *s = safetensors_open(&err, path);
        if (!s)
            fail_msg("%s", err.text);
        if (known[i].name) {
            const SafeTensor *t = safetensors_find(s, known[i].name);
            assert_non_null(t);
            assert_int_equal(s->n, known[i].n);
            assert_int_equal(safetensor_count(t), known[i].count);
        }
        safetensors_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_floats),
        cmocka_unit_test(dtype_names),
        cmocka_unit_test(reads_the_reference_file),
        cmocka_unit_test(copies_misaligned_data),
        cmocka_unit_test(refuses_hostile_headers),
        cmocka_unit_test(refuses_impossible_lengths),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(survives_damaged_bytes),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(writes_the_same_content),
        cmocka_unit_test(a_failed_write_leaves_the_old_file),
        cmocka_unit_test(running_out_of_memory_is_an_error),
        cmocka_unit_test(reads_published_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
