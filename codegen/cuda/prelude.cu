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

/* ---- tile contraction: all threads of a block, T of them ---- */
/* The largest of several sizes. */
template <int A, int... Rest> struct dav_most {
    static const int value = A > dav_most<Rest...>::value ? A : dav_most<Rest...>::value;
};
template <int A> struct dav_most<A> { static const int value = A; };

/* What a panel holds: f32, bf16, or words that are pairs of bf16 along k. */
template <class S> struct dav_panel {
    typedef S Element;
    DAV_MEMBER static S at(const S *p, i64 off, int k, i64 k_stride) { return p[off + k * k_stride]; }
};
template <> struct dav_panel<unsigned> {
    typedef u16 Element;
    DAV_MEMBER static u16 at(const unsigned *p, i64 off, int k, i64 k_stride) { return (u16)(p[off + k / 2 * k_stride] >> 16 * (k & 1)); }
};

/* The two panels of a tile_contract (ir/kernel.h). */
template <class S, int ROW_STEP, int DIV, i64 EXT, i64 ROW_STRIDE, i64 K_STRIDE, i64 B_STRIDE, bool PACKED> struct dav_panels {
    typedef typename dav_panel<S>::Element E;
    static const bool ROWS_NEAR = K_STRIDE != 1 && (ROW_STEP * ROW_STRIDE == 1 || ROW_STEP * ROW_STRIDE == -1);
    /* Eight bf16 next to each other in memory, at places that are multiples of 16 bytes when the operand's is: */
    static const int LINE = 16 / (int)sizeof(S);
    static const bool A_WIDE = sizeof(E) == 2 && DIV == 1 && K_STRIDE == 1 && ROW_STRIDE % LINE == 0;
    static const bool B_WIDE = sizeof(S) == 2 && !PACKED && B_STRIDE % LINE == 0;
    const S *a, *b;
    i64 row0;
    int rows, cols, k;

    DAV_MEMBER bool a_aligned() const { return ((u64)a & 15) == 0; }
    DAV_MEMBER bool b_aligned() const { return ((u64)b & 15) == 0; }
    DAV_MEMBER static int bytes_of(int left) { return left <= 0 ? 0 : left < 8 ? 2 * left : 16; }
    DAV_MEMBER int bytes_a(int r, int at) const
    {
        i64 i = row0 + r * ROW_STEP;
        return r < rows && (EXT == 0 || (i >= 0 && i < EXT)) ? bytes_of(k - at) : 0;
    }
    DAV_MEMBER int bytes_b(int at, int j) const { return at < k ? bytes_of(cols - j) : 0; }
    DAV_MEMBER const void *place_a(int r, int at) const { return (const u16 *)(a + (row0 + r * ROW_STEP) * ROW_STRIDE) + at; }
    DAV_MEMBER const void *place_b(int at, int j) const { return b + at * B_STRIDE + j; }

    DAV_MEMBER E at_a(int r, int at) const
    {
        i64 number = row0 + r * ROW_STEP, i = number / DIV;
        bool in = r < rows && at < k && i * DIV == number && (EXT == 0 || (i >= 0 && i < EXT));
        return in ? dav_panel<S>::at(a, i * ROW_STRIDE, at, K_STRIDE) : (E)0;
    }
    DAV_MEMBER E at_b(int at, int j, int nr) const
    {
        if (at >= k || j >= cols)
            return (E)0;
        if (!PACKED)
            return dav_panel<S>::at(b, j, at, B_STRIDE);
        return (E)(sizeof(S) == 2 ? b[(i64)(at / 2 * nr + j) * 2 + at % 2] : b[(i64)at * nr + j]);
    }
};

DAV_FN float dav_widen(float x) { return x; }
DAV_FN float dav_widen(u16 x) { return dav_from_bf16(x); }

/* Both panels pass through shared memory in steps of KC; a thread owns rows y, y + TY, ... and columns x, x + TX, ... */
template <int MR, int NR, int T> struct dav_fma_tile {
    static const int TX = NR >= 16 ? 16 : NR >= 8 ? 8 : 4, TY = T / TX, KC = 16;
    static const int M = (MR + TY - 1) / TY, N = (NR + TX - 1) / TX, COUNT = M * N;
    static const int A_ROW = MR + 1, B_ROW = (NR + TX - 1) / TX * TX;
    static const int ROOM = dav_most<KC * (A_ROW + B_ROW) * 4, MR * NR * 4>::value;
    float v[M][N];

    DAV_MEMBER void zero()
    {
#pragma unroll
        for (int e = 0; e < COUNT; e++)
            v[e / N][e % N] = 0;
    }
    DAV_MEMBER static int row(int e) { return (int)dav_thread() / TX + e / N * TY; }
    DAV_MEMBER static int col(int e) { return (int)dav_thread() % TX + e % N * TX; }
    DAV_MEMBER float get(int e) const { return v[e / N][e % N]; }

    template <class P> DAV_MEMBER void contract(const P &p, unsigned char *room)
    {
        float *as = (float *)room, *bs = as + KC * A_ROW;
        int lane = (int)dav_thread(), x = lane % TX, y = lane / TX;
        for (int k0 = 0; k0 < p.k; k0 += KC) {
            dav_sync_block();
            for (int e = lane; e < MR * KC; e += T) {
                int r = P::ROWS_NEAR ? e % MR : e / KC, k = P::ROWS_NEAR ? e / MR : e % KC;
                as[k * A_ROW + r] = dav_widen(p.at_a(r, k0 + k));
            }
            for (int e = lane; e < KC * NR; e += T)
                bs[e / NR * B_ROW + e % NR] = dav_widen(p.at_b(k0 + e / NR, e % NR, NR));
            dav_sync_block();
#pragma unroll 4
            for (int k = 0; k < KC; k++) {
                float b[N];
#pragma unroll
                for (int j = 0; j < N; j++)
                    b[j] = bs[k * B_ROW + x + j * TX];
#pragma unroll
                for (int i = 0; i < M; i++) {
                    int r = y + i * TY;
                    float a = as[k * A_ROW + (r < MR ? r : MR - 1)];
#pragma unroll
                    for (int j = 0; j < N; j++)
                        v[i][j] = dav_fma(a, b[j], v[i][j]);
                }
            }
        }
    }
};

/* bf16 by tensor cores; the fragments' layout is that of mma.m16n8k16. Warps WY x WX, each FM x FN fragments of 16x8.  Panels of KC
 * pass through STAGES places in shared memory, so that copies are under way while products are made: A as [row][k], B as
 * [k][column], 16 bytes at once where the operand's strides and place allow. */
template <int MR, int NR, int T> struct dav_mma_tile {
    static const int WX = NR > 16 ? 2 : 1, WY = T / 32 / WX, KC = 32;
    static const int FM = ((MR + 15) / 16 + WY - 1) / WY, FN = ((NR + 7) / 8 + WX - 1) / WX, COUNT = FM * FN * 4;
    static const int ROWS = WY * FM * 16, COLS = WX * FN * 8, A_ROW = KC + 8, B_ROW = COLS + 8; /* no two rows of 8 in one bank */
    static const int STAGE = (ROWS * A_ROW + KC * B_ROW) * 2, STAGES = 3 * STAGE <= 40 * 1024 ? 3 : 2;
    static const int ROOM = dav_most<STAGES * STAGE, MR * NR * 4>::value;
    float v[FM][FN][4];

    DAV_MEMBER void zero()
    {
#pragma unroll
        for (int e = 0; e < COUNT; e++)
            v[e / 4 / FN][e / 4 % FN][e % 4] = 0;
    }
    DAV_MEMBER static int warp_row() { return (int)dav_thread() / 32 / WX * FM * 16; }
    DAV_MEMBER static int warp_col() { return (int)dav_thread() / 32 % WX * FN * 8; }
    DAV_MEMBER static int row(int e) { return warp_row() + e / 4 / FN * 16 + e % 4 / 2 * 8 + (int)dav_thread() % 32 / 4; }
    DAV_MEMBER static int col(int e) { return warp_col() + e / 4 % FN * 8 + e % 2 + (int)dav_thread() % 4 * 2; }
    DAV_MEMBER float get(int e) const { return v[e / 4 / FN][e / 4 % FN][e % 4]; }

    template <bool WIDE, class P> DAV_MEMBER static void fill_a(const P &p, int k0, u16 *as)
    {
        if (WIDE) {
            for (int e = (int)dav_thread(); e < ROWS * (KC / 8); e += T) {
                int r = e / (KC / 8), k = k0 + e % (KC / 8) * 8, bytes = p.bytes_a(r, k);
                dav_copy_async(as + r * A_ROW + k - k0, bytes ? p.place_a(r, k) : (const void *)p.a, bytes);
            }
            return;
        }
        for (int e = (int)dav_thread(); e < ROWS * KC; e += T) {
            int r = P::ROWS_NEAR ? e % ROWS : e / KC, k = P::ROWS_NEAR ? e / ROWS : e % KC;
            as[r * A_ROW + k] = p.at_a(r, k0 + k);
        }
    }
    template <bool WIDE, class P> DAV_MEMBER static void fill_b(const P &p, int k0, u16 *bs)
    {
        if (WIDE) {
            for (int e = (int)dav_thread(); e < KC * (COLS / 8); e += T) {
                int k = k0 + e / (COLS / 8), j = e % (COLS / 8) * 8, bytes = p.bytes_b(k, j);
                dav_copy_async(bs + (k - k0) * B_ROW + j, bytes ? p.place_b(k, j) : (const void *)p.b, bytes);
            }
            return;
        }
        for (int e = (int)dav_thread(); e < KC * COLS; e += T)
            bs[e / COLS * B_ROW + e % COLS] = e % COLS < NR ? p.at_b(k0 + e / COLS, e % COLS, NR) : (u16)0;
    }

    DAV_MEMBER void multiply(const u16 *as, const u16 *bs)
    {
        const int lane = (int)dav_thread() % 32, in = lane % 8, which = lane / 8; /* this lane's row of which 8x8 */
#pragma unroll
        for (int step = 0; step < KC; step += 16) {
            unsigned a[FM][4], b[FN + 1][2];
#pragma unroll
            for (int i = 0; i < FM; i++)
                dav_load_matrices(a[i], as + (warp_row() + i * 16 + which % 2 * 8 + in) * A_ROW + step + which / 2 * 8);
#pragma unroll
            for (int j = 0; j < FN; j += 2) {
                unsigned both[4];
                dav_load_matrices_across(both, bs + (step + which % 2 * 8 + in) * B_ROW + warp_col() + j * 8 + which / 2 * 8);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    b[j + i / 2][i % 2] = both[i];
            }
#pragma unroll
            for (int f = 0; f < FM * FN; f++)
                dav_mma_bf16(v[f / FN][f % FN], a[f / FN], b[f % FN]);
        }
    }

    template <bool A_WIDE, bool B_WIDE, class P> DAV_MEMBER static void fill(const P &p, int k0, unsigned char *stage)
    {
        if (k0 < p.k) {
            fill_a<A_WIDE>(p, k0, (u16 *)stage);
            fill_b<B_WIDE>(p, k0, (u16 *)stage + ROWS * A_ROW);
        }
        dav_copy_commit();
    }
    template <bool A_WIDE, bool B_WIDE, class P> DAV_MEMBER void pipeline(const P &p, unsigned char *room)
    {
        dav_sync_block();
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++)
            fill<A_WIDE, B_WIDE>(p, s * KC, room + s * STAGE);
        for (int k0 = 0, s = 0; k0 < p.k; k0 += KC, s = s + 1 == STAGES ? 0 : s + 1) {
            const int free = s == 0 ? STAGES - 1 : s - 1;
            dav_copy_wait<STAGES - 2>();
            dav_sync_block(); /* the stage is whole, and everybody is done with the one before */
            fill<A_WIDE, B_WIDE>(p, k0 + (STAGES - 1) * KC, room + free * STAGE);
            multiply((const u16 *)(room + s * STAGE), (const u16 *)(room + s * STAGE) + ROWS * A_ROW);
        }
        dav_copy_wait<0>();
    }
    template <class P> DAV_MEMBER void contract(const P &p, unsigned char *room)
    {
        if ((!P::A_WIDE || p.a_aligned()) && (!P::B_WIDE || p.b_aligned()))
            pipeline<P::A_WIDE, P::B_WIDE>(p, room);
        else
            pipeline<false, false>(p, room);
    }
};

/* f32 by tensor cores, operands rounded to tf32 (10 bits of mantissa): mma.m16n8k8. */
template <int MR, int NR, int T> struct dav_tf32_tile {
    static const int WX = NR > 16 ? 2 : 1, WY = T / 32 / WX, KC = 16;
    static const int FM = ((MR + 15) / 16 + WY - 1) / WY, FN = ((NR + 7) / 8 + WX - 1) / WX, COUNT = FM * FN * 4;
    static const int ROWS = WY * FM * 16, COLS = WX * FN * 8, A_ROW = KC + 4, B_ROW = (COLS + 31) / 32 * 32 + 8;
    static const int ROOM = dav_most<(ROWS * A_ROW + KC * B_ROW) * 4, MR * NR * 4>::value;
    float v[FM][FN][4];

    DAV_MEMBER void zero()
    {
#pragma unroll
        for (int e = 0; e < COUNT; e++)
            v[e / 4 / FN][e / 4 % FN][e % 4] = 0;
    }
    DAV_MEMBER static int warp_row() { return (int)dav_thread() / 32 / WX * FM * 16; }
    DAV_MEMBER static int warp_col() { return (int)dav_thread() / 32 % WX * FN * 8; }
    DAV_MEMBER static int row(int e) { return warp_row() + e / 4 / FN * 16 + e % 4 / 2 * 8 + (int)dav_thread() % 32 / 4; }
    DAV_MEMBER static int col(int e) { return warp_col() + e / 4 % FN * 8 + e % 2 + (int)dav_thread() % 4 * 2; }
    DAV_MEMBER float get(int e) const { return v[e / 4 / FN][e / 4 % FN][e % 4]; }

    template <class P> DAV_MEMBER void contract(const P &p, unsigned char *room)
    {
        unsigned *as = (unsigned *)room, *bs = as + ROWS * A_ROW;
        int lane = (int)dav_thread(), g = lane % 32 / 4, t = lane % 4;
        for (int k0 = 0; k0 < p.k; k0 += KC) {
            dav_sync_block();
            for (int e = lane; e < ROWS * KC; e += T) {
                int r = P::ROWS_NEAR ? e % ROWS : e / KC, k = P::ROWS_NEAR ? e / ROWS : e % KC;
                as[r * A_ROW + k] = dav_to_tf32(p.at_a(r, k0 + k));
            }
            for (int e = lane; e < KC * COLS; e += T)
                bs[e / COLS * B_ROW + e % COLS] = e % COLS < NR ? dav_to_tf32(p.at_b(k0 + e / COLS, e % COLS, NR)) : 0;
            dav_sync_block();
#pragma unroll
            for (int step = 0; step < KC; step += 8) {
                unsigned a[FM][4], b[FN][2];
#pragma unroll
                for (int i = 0; i < FM * 4; i++)
                    a[i / 4][i % 4] = as[(warp_row() + i / 4 * 16 + i % 2 * 8 + g) * A_ROW + step + i % 4 / 2 * 4 + t];
#pragma unroll
                for (int j = 0; j < FN * 2; j++)
                    b[j / 2][j % 2] = bs[(step + j % 2 * 4 + t) * B_ROW + warp_col() + j / 2 * 8 + g];
#pragma unroll
                for (int f = 0; f < FM * FN; f++)
                    dav_mma_tf32(v[f / FN][f % FN], a[f / FN], b[f % FN]);
            }
        }
    }
};

/* A tile laid out in shared memory, for loops that walk it in another order than its owners. */
template <int MR, int NR, int T, class Tile> DAV_FN const float *dav_spread(const Tile &tile, unsigned char *room)
{
    float *all = (float *)room;
    dav_sync_block();
#pragma unroll
    for (int e = 0; e < Tile::COUNT; e++)
        if (Tile::row(e) < MR && Tile::col(e) < NR)
            all[Tile::row(e) * NR + Tile::col(e)] = tile.get(e);
    dav_sync_block();
    return all;
}
