/* CPU levels: a table, what this machine has, and the choice among them. */
#include "codegen/codegen.h"
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X86 "x86_64-unknown-linux-gnu"

typedef struct Level {
    CpuTarget target;
    const char *alias;
    const char *needs; /* CPU features by the names of the compiler's builtin, ascending levels repeat nothing */
} Level;

static const Level level[] = {
    {{"x86-64", X86, "x86-64", "", 16, 16, false, false, false, false, false, 6, 8}, "baseline", ""},
    {{"haswell", X86, "haswell", "", 32, 16, true, false, false, false, false, 6, 16}, "x86-64-v3", "avx2 fma bmi2"},
    {{"skylake-avx512", X86, "skylake-avx512", "", 64, 32, true, true, false, false, false, 6, 64}, "x86-64-v4",
     "avx2 fma bmi2 avx512f avx512bw avx512dq avx512vl avx512cd"},
    {{"cooperlake", X86, "skylake-avx512", "+avx512bf16", 64, 32, true, true, true, false, false, 6, 64}, "znver4",
     "avx2 fma bmi2 avx512f avx512bw avx512dq avx512vl avx512cd avx512bf16"},
    {{"sapphirerapids", X86, "skylake-avx512", "+avx512bf16,+amx-tile,+amx-bf16", 64, 32, true, true, true, true, false, 6, 64}, "amx",
     "avx2 fma bmi2 avx512f avx512bw avx512dq avx512vl avx512cd avx512bf16 amx-bf16"},
    {{"neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, true, false, false, false, false, 6, 16}, "aarch64", "aarch64"},
};
enum { LEVELS = sizeof level / sizeof *level };

#if defined(__x86_64__)
/* CPUID 7.0 EDX: bit 22 AMX-BF16, bit 24 AMX-TILE; and the kernel lets this process have the tile registers. */
static bool has_amx(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a = 7, b, c = 0, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (d >> 22 & 1) && (d >> 24 & 1) && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

static bool machine_has(const char *feature)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    const struct { const char *name; int has; } table[] = {
        {"avx2", __builtin_cpu_supports("avx2")},         {"fma", __builtin_cpu_supports("fma")},
        {"bmi2", __builtin_cpu_supports("bmi2")},         {"avx512f", __builtin_cpu_supports("avx512f")},
        {"avx512bw", __builtin_cpu_supports("avx512bw")}, {"avx512dq", __builtin_cpu_supports("avx512dq")},
        {"avx512vl", __builtin_cpu_supports("avx512vl")}, {"avx512cd", __builtin_cpu_supports("avx512cd")},
        {"avx512bf16", __builtin_cpu_supports("avx512bf16")},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, feature) == 0)
            return table[i].has != 0;
    if (strcmp(feature, "amx-bf16") == 0)
        return has_amx();
#elif defined(__aarch64__)
    if (strcmp(feature, "aarch64") == 0)
        return true;
#endif
    return false;
}

static const char *first_lacking(const Level *l)
{
    static _Thread_local char word[32];
#if defined(__aarch64__)
    if (!*l->needs || strcmp(l->needs, "aarch64") != 0)
        return "x86-64";
#endif
    for (const char *p = l->needs; *p;) {
        size_t n = strcspn(p, " ");
        must(n < sizeof word);
        memcpy(word, p, n);
        word[n] = 0;
        if (!machine_has(word))
            return word;
        p += n;
        p += strspn(p, " ");
    }
    return NULL;
}

static const Level *find_level(const char *name)
{
    for (int i = 0; i < LEVELS; i++)
        if (strcmp(level[i].target.name, name) == 0 || strcmp(level[i].alias, name) == 0)
            return &level[i];
    return NULL;
}

int cpu_target_count(void)
{
    return LEVELS;
}

const char *cpu_target_name(int i)
{
    return level[i].target.name;
}

const char *cpu_target_lacks(const char *name)
{
    const Level *l = find_level(name);
    return l ? first_lacking(l) : "such a level";
}

bool cpu_target_named(Err *err, const char *name, CpuTarget *out)
{
    const Level *l = find_level(name);
    if (!l) {
        const char *names[LEVELS];
        for (int i = 0; i < LEVELS; i++)
            names[i] = level[i].target.name;
        const char *near = err_nearest(name, names, LEVELS);
        return err_user(err, "CPU level '%s': expected x86-64, haswell, skylake-avx512, cooperlake, sapphirerapids or neon%s%s%s",
                        name, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    *out = l->target;
    return true;
}

bool cpu_target(Err *err, const char *forced, CpuTarget *out)
{
    if (!forced || !*forced)
        forced = getenv("DAV_CPU");
    if (forced && *forced) {
        if (!cpu_target_named(err, forced, out))
            return false;
        const char *lacks = first_lacking(find_level(forced));
        return !lacks || err_user(err, "CPU level '%s' (DAV_CPU): this machine lacks %s", forced, lacks);
    }
    for (int i = LEVELS - 1; i >= 0; i--)
        if (!first_lacking(&level[i])) {
            *out = level[i].target;
            return true;
        }
    return err_env(err, "no CPU level fits this machine");
}
