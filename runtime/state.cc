// The codec of RunState.  Base's allocator unwinds with longjmp, so nothing here that has a destructor is alive while
// it is called: encoding uses only C++'s memory, decoding only the arena's.
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <new>

#define _Noreturn [[noreturn]] /* base's headers are C */
extern "C" {
#include "base/text.h"
}
#undef _Noreturn
#include "runtime/state.h"

#include "runtime/state_generated.h"

namespace fb = flatbuffers;
namespace fs = dav::state;

static fb::Offset<fs::State> build(fb::FlatBufferBuilder &b, const RunState &s)
{
    std::vector<fb::Offset<fs::File>> files;
    std::vector<fb::Offset<fs::Array>> arrays;
    for (int i = 0; i < s.n_files; i++)
        files.push_back(fs::CreateFileDirect(b, s.files[i].role, s.files[i].name, s.files[i].bytes, s.files[i].hash));
    for (int i = 0; i < s.n_arrays; i++) {
        auto bytes = b.CreateVector(static_cast<const uint8_t *>(s.arrays[i].data), s.arrays[i].bytes);
        arrays.push_back(fs::CreateArray(b, b.CreateString(s.arrays[i].name), bytes));
    }
    return fs::CreateStateDirect(b, STATE_FORMAT, s.dav_version, s.cpu_level, s.precision, s.seed,
                                 static_cast<fs::Phase>(s.phase), s.round, s.step, s.inner_epoch, s.forwards, s.vjps,
                                 s.reward_forwards, s.reward_vjps, s.p0_forwards, s.ema_step, s.serial,
                                 s.metrics_offset, s.events_offset, &files, &arrays);
}

bool state_encode(Err *err, const RunState *s, bool (*sink)(void *, Err *, const void *, size_t), void *arg)
{
    size_t total = 0;
    for (int i = 0; i < s->n_arrays; i++)
        total += s->arrays[i].bytes;
    if (total > STATE_MAX_BYTES - (1 << 20)) /* the builder itself would end the program beyond 2 GiB */
        return err_env(err, "run state of %zu bytes, expected at most %d", total, STATE_MAX_BYTES - (1 << 20));
    try {
        fb::FlatBufferBuilder b(4096);
        fs::FinishStateBuffer(b, build(b, *s));
        return sink(arg, err, b.GetBufferPointer(), b.GetSize());
    } catch (const std::bad_alloc &) {
        return err_env(err, "out of memory while the run state was written");
    }
}

// A string of 1..limit characters without zero bytes; NULL otherwise.
static const char *text_of(Arena *a, const fb::String *s, size_t limit)
{
    if (!s || s->size() == 0 || s->size() > limit || strlen(s->c_str()) != s->size())
        return nullptr;
    return arena_strn(a, s->c_str(), s->size());
}

static bool is_plain_name(const char *name)
{
    return name && name[0] != '.' && !strchr(name, '/');
}

static bool decode_files(Arena *a, const fs::State &t, RunState *s)
{
    unsigned n = t.files() ? t.files()->size() : 0;
    if (n > STATE_MAX_FILES)
        return false;
    for (unsigned i = 0; i < n; i++) {
        const fs::File *f = t.files()->Get(i);
        StateFile out = {text_of(a, f->role(), 64), text_of(a, f->name(), 255), f->bytes(), f->xxhash64()};
        if (!out.role || !is_plain_name(out.name))
            return false;
        s->files[s->n_files++] = out;
    }
    return true;
}

static bool decode_arrays(Arena *a, const fs::State &t, RunState *s)
{
    unsigned n = t.arrays() ? t.arrays()->size() : 0;
    if (n > STATE_MAX_ARRAYS)
        return false;
    for (unsigned i = 0; i < n; i++) {
        const fs::Array *from = t.arrays()->Get(i);
        StateArray out = {text_of(a, from->name(), 64), nullptr, from->bytes() ? from->bytes()->size() : 0};
        if (!out.name)
            return false;
        out.data = arena_copy(a, out.bytes ? from->bytes()->data() : nullptr, out.bytes);
        s->arrays[s->n_arrays++] = out;
    }
    return true;
}

static bool decode_numbers(const fs::State &t, RunState *s)
{
    s->seed = t.seed();
    s->phase = static_cast<StatePhase>(t.phase());
    s->serial = t.serial();
    s->metrics_offset = t.metrics_offset();
    s->events_offset = t.events_offset();
    const int64_t from[] = {t.round(), t.step(), t.inner_epoch(), t.forwards(), t.vjps(), t.reward_forwards(),
                            t.reward_vjps(), t.p0_forwards(), t.ema_step()};
    int64_t *to[] = {&s->round, &s->step, &s->inner_epoch, &s->forwards, &s->vjps, &s->reward_forwards,
                     &s->reward_vjps, &s->p0_forwards, &s->ema_step};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        if (from[i] < 0)
            return false;
        *to[i] = from[i];
    }
    return t.phase() >= fs::Phase_MIN && t.phase() <= fs::Phase_MAX && s->serial < UINT64_MAX;
}

bool state_decode(Arena *a, Err *err, const char *place, const void *bytes, size_t n, RunState *s)
{
    *s = RunState{};
    if (n > STATE_MAX_BYTES)
        return err_user(err, "%s: %zu bytes, expected at most %d", place, n, STATE_MAX_BYTES);
    auto *data = static_cast<const uint8_t *>(arena_copy(a, bytes, n)); /* aligned for the reader */
    fb::Verifier verifier(data, n, 8, 1000);
    if (n < 8 || !fs::StateBufferHasIdentifier(data) || !fs::VerifyStateBuffer(verifier))
        return err_user(err, "%s: expected a run state, found something else or a damaged one", place);
    const fs::State &t = *fs::GetState(data);
    if (t.format() != STATE_FORMAT)
        return err_user(err, "%s: run state of format %u, expected %d", place, t.format(), STATE_FORMAT);
    s->dav_version = text_of(a, t.dav_version(), 64);
    s->cpu_level = text_of(a, t.cpu_level(), 64);
    s->precision = text_of(a, t.precision(), 64);
    if (!s->dav_version || !s->cpu_level || !s->precision || !decode_numbers(t, s))
        return err_user(err, "%s: run state with a missing or impossible value", place);
    if (!decode_files(a, t, s) || !decode_arrays(a, t, s))
        return err_user(err, "%s: run state with an impossible file or array", place);
    return true;
}
