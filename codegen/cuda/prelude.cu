/* What generated kernels call, on top of machine.cu or its stand-in. */
typedef long long i64;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;

/* Buffers of the launches that share one. */
template <int N> struct dav_pointers { void *at[N]; };

/* ---- 16-bit floats: computed in f32, rounded after every operation (ir/dtype.h) ---- */
DAV_FN float dav_from_bf16(u16 h) { return dav_float((unsigned)h << 16); }
DAV_FN u16 dav_to_bf16(float f)
{
    unsigned u = dav_bits(f);
    return (u16)(f != f ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
DAV_FN u16 dav_upper_half(float f) { return (u16)(dav_bits(f) >> 16); } /* of what is a bf16 already */
DAV_FN float dav_from_f16(u16 h)
{
    unsigned sign = (unsigned)(h & 0x8000u) << 16, mag = h & 0x7fffu;
    if (mag >= 0x7c00u)
        return dav_float(sign | 0x7f800000u | (mag & 0x3ffu) << 13 | (mag > 0x7c00u ? 0x400000u : 0u));
    return mag >= 0x400u ? dav_float(sign | ((mag << 13) + 0x38000000u)) : dav_float(sign | dav_bits((float)mag * 0x1p-24f));
}
DAV_FN u16 dav_to_f16(float f)
{
    unsigned u = dav_bits(f), mag = u & 0x7fffffffu, sign = u >> 16 & 0x8000u;
    if (mag > 0x7f800000u)
        return (u16)(sign | 0x7e00u | (mag >> 13 & 0x3ffu));
    if (mag >= 0x477ff000u)
        return (u16)(sign | 0x7c00u);
    if (mag < 0x38800000u)
        return (u16)(sign | (dav_bits(dav_float(mag) + 0.5f) - 0x3f000000u));
    return (u16)(sign | (mag + 0xfffu + (mag >> 13 & 1u) - 0x38000000u) >> 13);
}
DAV_FN float dav_round_bf16(float f) { return dav_from_bf16(dav_to_bf16(f)); }
DAV_FN float dav_round_f16(float f) { return dav_from_f16(dav_to_f16(f)); }

/* ---- elementwise: the meaning that ir/ops.def gives ---- */
DAV_FN float dav_add(float x, float y) { return x + y; }
DAV_FN double dav_add(double x, double y) { return x + y; }
DAV_FN int dav_add(int x, int y) { return (int)((unsigned)x + (unsigned)y); }
DAV_FN unsigned dav_add(unsigned x, unsigned y) { return x + y; }
DAV_FN i64 dav_add(i64 x, i64 y) { return (i64)((u64)x + (u64)y); }
DAV_FN bool dav_add(bool x, bool y) { return x != y; }
DAV_FN float dav_sub(float x, float y) { return x - y; }
DAV_FN double dav_sub(double x, double y) { return x - y; }
DAV_FN int dav_sub(int x, int y) { return (int)((unsigned)x - (unsigned)y); }
DAV_FN unsigned dav_sub(unsigned x, unsigned y) { return x - y; }
DAV_FN i64 dav_sub(i64 x, i64 y) { return (i64)((u64)x - (u64)y); }
DAV_FN float dav_mul(float x, float y) { return x * y; }
DAV_FN double dav_mul(double x, double y) { return x * y; }
DAV_FN int dav_mul(int x, int y) { return (int)((unsigned)x * (unsigned)y); }
DAV_FN unsigned dav_mul(unsigned x, unsigned y) { return x * y; }
DAV_FN i64 dav_mul(i64 x, i64 y) { return (i64)((u64)x * (u64)y); }
DAV_FN float dav_div(float x, float y) { return x / y; }
DAV_FN double dav_div(double x, double y) { return x / y; }
DAV_FN int dav_div(int x, int y) { return y == 0 ? 0 : y == -1 ? dav_sub(0, x) : x / y; }
DAV_FN unsigned dav_div(unsigned x, unsigned y) { return y == 0 ? 0 : x / y; }
DAV_FN i64 dav_div(i64 x, i64 y) { return y == 0 ? 0 : y == -1 ? dav_sub((i64)0, x) : x / y; }
DAV_FN int dav_rem(int x, int y) { return y == 0 || y == -1 ? 0 : x % y; }
DAV_FN unsigned dav_rem(unsigned x, unsigned y) { return y == 0 ? 0 : x % y; }
DAV_FN i64 dav_rem(i64 x, i64 y) { return y == 0 || y == -1 ? 0 : x % y; }
template <class V> DAV_FN V dav_neg(V x) { return dav_sub((V)0, x); }
DAV_FN float dav_neg(float x) { return -x; }
DAV_FN double dav_neg(double x) { return -x; }
template <class V> DAV_FN V dav_abs(V x) { return x < 0 ? dav_neg(x) : x; }
DAV_FN float dav_abs(float x) { return fabsf(x); }
DAV_FN double dav_abs(double x) { return fabs(x); }
DAV_FN unsigned dav_abs(unsigned x) { return x; }
template <class V> DAV_FN V dav_sign(V x) { return x > 0 ? (V)1 : x < 0 ? (V)-1 : x; }
DAV_FN unsigned dav_sign(unsigned x) { return x > 0; }
template <class V> DAV_FN V dav_max(V x, V y) { return x != x ? x : y != y ? y : x >= y ? x : y; }
template <class V> DAV_FN V dav_min(V x, V y) { return x != x ? x : y != y ? y : x <= y ? x : y; }
template <class V> DAV_FN V dav_not(V x) { return ~x; }
DAV_FN bool dav_not(bool x) { return !x; }
DAV_FN int dav_shl(int x, int y) { return (unsigned)y < 32 ? (int)((unsigned)x << y) : 0; }
DAV_FN unsigned dav_shl(unsigned x, unsigned y) { return y < 32 ? x << y : 0; }
DAV_FN i64 dav_shl(i64 x, i64 y) { return (u64)y < 64 ? (i64)((u64)x << y) : 0; }
DAV_FN int dav_shr(int x, int y) { return x >> ((unsigned)y < 32 ? y : 31); }
DAV_FN unsigned dav_shr(unsigned x, unsigned y) { return y < 32 ? x >> y : 0; }
DAV_FN i64 dav_shr(i64 x, i64 y) { return x >> ((u64)y < 64 ? y : 63); }

#define DAV_MATH(name, f32, f64)                     \
    DAV_FN float dav_##name(float x) { return f32; } \
    DAV_FN double dav_##name(double x) { return f64; }
DAV_MATH(floor, floorf(x), floor(x))
DAV_MATH(ceil, ceilf(x), ceil(x))
DAV_MATH(round, rintf(x), rint(x))
DAV_MATH(sqrt, sqrtf(x), sqrt(x))
DAV_MATH(rsqrt, 1 / sqrtf(x), 1 / sqrt(x))
DAV_MATH(exp, expf(x), exp(x))
DAV_MATH(expm1, expm1f(x), expm1(x))
DAV_MATH(log, logf(x), log(x))
DAV_MATH(log1p, log1pf(x), log1p(x))
DAV_MATH(atan, atanf(x), atan(x))
DAV_MATH(sin, sinf(x), sin(x))
DAV_MATH(cos, cosf(x), cos(x))
DAV_MATH(tanh, tanhf(x), tanh(x))
DAV_MATH(erf, erff(x), erf(x))

/* ---- casts: towards zero, saturating, NaN to 0 ---- */
DAV_FN i64 dav_to_i64(double x)
{
    return x != x ? 0 : x >= 0x1p63 ? 0x7fffffffffffffffll : x <= -0x1p63 ? -0x7fffffffffffffffll - 1 : (i64)x;
}
DAV_FN int dav_to_i32(double x) { return x != x ? 0 : x >= 0x1p31 ? 0x7fffffff : x <= -0x1p31 ? -0x7fffffff - 1 : (int)x; }
DAV_FN unsigned dav_to_u32(double x) { return !(x > 0) ? 0 : x >= 0x1p32 ? 0xffffffffu : (unsigned)x; }

/* ---- Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) ---- */
DAV_FN unsigned dav_philox(unsigned k0, unsigned k1, unsigned c0, unsigned c1, unsigned c2, unsigned c3, int word)
{
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u64 p0 = (u64)c0 * 0xD2511F53u, p1 = (u64)c2 * 0xCD9E8D57u;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return word == 0 ? c0 : word == 1 ? c1 : word == 2 ? c2 : c3;
}

/* ---- lines: N elements of memory next to each other, at a multiple of their bytes, or of 16 ---- */
DAV_FN void dav_of_words(unsigned w, unsigned, float &x) { x = dav_float(w); }
DAV_FN void dav_of_words(unsigned w, unsigned, int &x) { x = (int)w; }
DAV_FN void dav_of_words(unsigned w, unsigned, unsigned &x) { x = w; }
DAV_FN void dav_of_words(unsigned w, unsigned, u16 &x) { x = (u16)w; }
DAV_FN void dav_of_words(unsigned w, unsigned, u8 &x) { x = (u8)w; }
DAV_FN void dav_of_words(unsigned low, unsigned high, i64 &x) { x = (i64)((u64)high << 32 | low); }
DAV_FN void dav_of_words(unsigned low, unsigned high, double &x) { x = dav_double((u64)high << 32 | low); }
DAV_FN u64 dav_to_words(float x) { return dav_bits(x); }
DAV_FN u64 dav_to_words(double x) { return dav_bits(x); }
DAV_FN u64 dav_to_words(i64 x) { return (u64)x; }
DAV_FN u64 dav_to_words(int x) { return (unsigned)x; }
DAV_FN u64 dav_to_words(unsigned x) { return x; }

template <class V, int N> struct dav_line {
    enum { SIZE = (int)sizeof(V), WORDS = N * SIZE / 4, AT_ONCE = WORDS < 4 ? WORDS : 4, IN_WORD = SIZE < 4 ? 4 / SIZE : 1 };
    dav_words<AT_ONCE> part[WORDS / AT_ONCE];
    DAV_MEMBER unsigned &word(int i) { return part[i / AT_ONCE].at[i % AT_ONCE]; }
    DAV_MEMBER void read(const V *p)
    {
#pragma unroll
        for (int i = 0; i < WORDS / AT_ONCE; i++)
            part[i] = dav_read_words(p + i * 4 * AT_ONCE / SIZE, part[i]);
    }
    DAV_MEMBER void write(V *p)
    {
#pragma unroll
        for (int i = 0; i < WORDS / AT_ONCE; i++)
            dav_write_words(p + i * 4 * AT_ONCE / SIZE, part[i]);
    }
    DAV_MEMBER void clear()
    {
#pragma unroll
        for (int i = 0; i < WORDS; i++)
            word(i) = 0;
    }
    DAV_MEMBER V get(int lane)
    {
        V x;
        if (SIZE == 8)
            dav_of_words(word(2 * lane % WORDS), word((2 * lane + 1) % WORDS), x);
        else
            dav_of_words(word(lane / IN_WORD) >> lane % IN_WORD * 8 * SIZE % 32, 0, x);
        return x;
    }
    DAV_MEMBER void set(int lane, V x) /* in ascending order */
    {
        const u64 w = dav_to_words(x);
        if (SIZE == 8) {
            word(2 * lane % WORDS) = (unsigned)w;
            word((2 * lane + 1) % WORDS) = (unsigned)(w >> 32);
        } else {
            word(lane / IN_WORD) = (lane % IN_WORD ? word(lane / IN_WORD) : 0) | (unsigned)w << lane % IN_WORD * 8 * SIZE % 32;
        }
    }
};

/* ---- teams: T threads that run one iteration of the parallel loop together; a power of two ---- */
template <int T> DAV_FN unsigned dav_team_mask()
{
    return T >= 32 ? 0xffffffffu : ((1u << (T & 31)) - 1u) << (dav_thread() & 31u & ~(unsigned)(T - 1));
}
template <int T> DAV_FN void dav_sync()
{
    if (T > 32)
        dav_sync_block();
    else if (T > 1)
        dav_sync_lanes(dav_team_mask<T>());
}

DAV_FN unsigned dav_pass(unsigned m, unsigned v, int lane) { return dav_shuffle(m, v, lane); }
DAV_FN int dav_pass(unsigned m, int v, int lane) { return (int)dav_shuffle(m, (unsigned)v, lane); }
DAV_FN bool dav_pass(unsigned m, bool v, int lane) { return dav_shuffle(m, v, lane) != 0; }
DAV_FN float dav_pass(unsigned m, float v, int lane) { return dav_float(dav_shuffle(m, dav_bits(v), lane)); }
DAV_FN u64 dav_pass(unsigned m, u64 v, int lane)
{
    unsigned low = dav_shuffle(m, (unsigned)v, lane), high = dav_shuffle(m, (unsigned)(v >> 32), lane);
    return (u64)high << 32 | low;
}
DAV_FN i64 dav_pass(unsigned m, i64 v, int lane) { return (i64)dav_pass(m, (u64)v, lane); }
DAV_FN double dav_pass(unsigned m, double v, int lane) { return dav_double(dav_pass(m, dav_bits(v), lane)); }

struct dav_join_add { template <class V> DAV_MEMBER static V of(V x, V y) { return dav_add(x, y); } };
struct dav_join_add_bf16 { DAV_MEMBER static float of(float x, float y) { return dav_round_bf16(x + y); } };
struct dav_join_add_f16 { DAV_MEMBER static float of(float x, float y) { return dav_round_f16(x + y); } };
struct dav_join_max { template <class V> DAV_MEMBER static V of(V x, V y) { return dav_max(x, y); } };
struct dav_join_min { template <class V> DAV_MEMBER static V of(V x, V y) { return dav_min(x, y); } };

/* Every thread gets the join of all: in a warp the upper half of the lanes onto the lower one, then warps in order. */
template <int T, class Op, class V> DAV_FN V dav_join(V v, unsigned char *room)
{
    unsigned mask = dav_team_mask<T>(), lane = dav_thread() & 31u;
    const int W = T < 32 ? T : 32;
    unsigned first = lane & ~(unsigned)(W - 1);
#pragma unroll
    for (int half = W / 2; half >= 1; half /= 2) {
        unsigned from = lane + (unsigned)half;
        V other = dav_pass(mask, v, (int)(from & 31u));
        if (from - first < (unsigned)(2 * half))
            v = Op::of(v, other);
    }
    if (T <= 32)
        return T == 1 ? v : dav_pass(mask, v, (int)first);
    V *part = (V *)room;
    dav_sync_block();
    if (lane == 0)
        part[dav_thread() / 32] = v;
    dav_sync_block();
    v = part[0];
#pragma unroll
    for (int warp = 1; warp < T / 32; warp++)
        v = Op::of(v, part[warp]);
    return v;
}
