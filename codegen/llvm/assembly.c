/* What the assembly text says of registers and spills. */
#include "codegen/codegen.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* The number in "%zmm17" (x86-64) or "v17.4s", "q17" (AArch64); -1: no vector register begins here. */
static int register_number(const char *p, bool aarch64)
{
    if (aarch64 ? !strchr("vq", *p) : !(p[0] == '%' && p[1] && strchr("xyz", p[1]) && p[2] == 'm' && p[3] == 'm'))
        return -1;
    const char *digits = p + (aarch64 ? 1 : 4);
    if (!isdigit((unsigned char)*digits))
        return -1;
    char *end;
    long n = strtol(digits, &end, 10);
    return n < 64 && !isalpha((unsigned char)*end) ? (int)n : -1;
}

static void count_registers(const char *line, const char *end, bool aarch64, uint64_t *used)
{
    for (const char *p = line; p < end; p++) {
        bool begins = p == line || (!isalnum((unsigned char)p[-1]) && p[-1] != '_' && p[-1] != '.' && p[-1] != '%');
        int n = *p && begins ? register_number(p, aarch64) : -1;
        if (n >= 0)
            *used |= UINT64_C(1) << n;
    }
}

/* LLVM ends the line of a spill by a comment: "64-byte Spill", "16-byte Folded Spill". */
static void count_spill(const char *comment, const char *end, AsmCount *c)
{
    const char *bytes = NULL, *spill = NULL;
    for (const char *p = comment; p + 6 <= end; p++) {
        if (strncmp(p, "-byte ", 6) == 0)
            bytes = p;
        if (strncmp(p, " Spill", 6) == 0)
            spill = p;
    }
    if (!bytes || !spill)
        return;
    while (bytes > comment && isdigit((unsigned char)bytes[-1]))
        bytes--;
    *(atoi(bytes) >= 16 ? &c->vector_spills : &c->scalar_spills) += 1;
}

AsmCount asm_count(const char *assembly, const CpuTarget *target)
{
    AsmCount c = {0};
    uint64_t used = 0;
    bool aarch64 = strncmp(target->triple, "aarch64", 7) == 0;
    const char *mark = aarch64 ? "//" : "#";
    for (const char *line = assembly, *next; *line; line = next) {
        const char *end = strchr(line, '\n'), *comment = strstr(line, mark);
        end = end ? end : line + strlen(line);
        next = *end ? end + 1 : end;
        comment = comment && comment < end ? comment : end;
        if (line[0] == '\t' && line[1] != '.') /* an instruction */
            count_registers(line, comment, aarch64, &used);
        count_spill(comment, end, &c);
    }
    c.vector_registers = __builtin_popcountll(used);
    return c;
}
