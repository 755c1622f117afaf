
/* ---- tile contraction (ir/kernel.h): T threads of a block at one tile; kinds and sizes are chosen in tile.c ---- */
/* The larger of two sizes. */
template <int A, int B> struct dav_most { static const int value = A > B ? A : B; };

/* What a panel holds: f32, bf16, or words that are pairs of bf16 along k. */
template <class S> struct dav_panel {
    typedef S Element;
    DAV_MEMBER static S at(const S *p, i64 off, int k, i64 k_stride) { return p[off + k * k_stride]; }
};
template <> struct dav_panel<unsigned> {
    typedef u16 Element;
    DAV_MEMBER static u16 at(const unsigned *p, i64 off, int k, i64 k_stride) { return (u16)(p[off + k / 2 * k_stride] >> 16 * (k & 1)); }
};

/* The two panels of a tile_contract.  A_LINES, B_LINES: they can be copied by lines of 16 bytes, whole or to the last one of their
 * rows.  K_WHOLE, COLS_WHOLE: the sum's length, the number of valid columns (of A across the sum: rows) are multiples of it. */
template <class S, int ROW_STEP_, int DIV_, i64 EXT, i64 ROW_STRIDE_, i64 K_STRIDE, i64 B_STRIDE_, bool PACKED_, bool A_LINES_, bool B_LINES_,
          int K_WHOLE_, int ROWS_WHOLE_, int COLS_WHOLE_>
struct dav_panels {
    typedef S Stored;
    typedef typename dav_panel<S>::Element E;
    static const int ROW_STEP = ROW_STEP_, DIV = DIV_, K_WHOLE = K_WHOLE_, ROWS_WHOLE = ROWS_WHOLE_, COLS_WHOLE = COLS_WHOLE_;
    static const bool PACKED = PACKED_;
    static const i64 ROW_STRIDE = ROW_STRIDE_, A_STRIDE = K_STRIDE, B_STRIDE = B_STRIDE_;
    static const bool ROWS_NEAR = K_STRIDE != 1 && (ROW_STEP * ROW_STRIDE == 1 || ROW_STEP * ROW_STRIDE == -1);
    static const bool A_LINES = A_LINES_, B_LINES = B_LINES_;
    static const bool A_PAIRS = A_LINES && sizeof(S) > sizeof(E), B_PAIRS = B_LINES && (PACKED || sizeof(S) > sizeof(E));
    static const bool A_ACROSS = A_LINES && (A_PAIRS || K_STRIDE != 1); /* [k][row] in shared memory */
    const S *a, *b;
    i64 row0;
    int rows, cols, k;

    DAV_MEMBER bool has_row(int r) const
    {
        i64 number = row0 + r * ROW_STEP, i = number / DIV;
        return r < rows && i * DIV == number && (EXT == 0 || (i >= 0 && i < EXT));
    }
    DAV_MEMBER E at_a(int r, int at) const
    {
        i64 i = (row0 + r * ROW_STEP) / DIV;
        return has_row(r) && at < k ? dav_panel<S>::at(a, i * ROW_STRIDE, at, K_STRIDE) : (E)0;
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
DAV_FN void dav_put(float *to, float x) { *to = x; }
DAV_FN void dav_put(float *to, u16 x) { *to = dav_from_bf16(x); }
DAV_FN void dav_put(u16 *to, u16 x) { *to = x; }

/* ---- a panel on its way to a stage in shared memory, KC of the sum at a time ---- */
/* ROWS rows of LINES lines each: a thread has one place in a row, and COUNT rows, next to each other (so that their offsets fit into
 * instructions) or APART. */
template <int ROWS, int LINES, int T, bool APART> struct dav_share {
    static const int PER = T / LINES, COUNT = (ROWS + PER - 1) / PER, STEP = APART ? PER : 1;
    DAV_MEMBER static int row() { return (int)dav_thread() / LINES * (APART ? 1 : COUNT); }
    DAV_MEMBER static int line() { return (int)dav_thread() % LINES; }
    DAV_MEMBER static bool has(int i)
    {
        return (T % LINES == 0 || (int)dav_thread() < PER * LINES) && (ROWS == PER * COUNT || row() + i * STEP < ROWS);
    }
};

/* A block's shared memory, for stores and as the place that copies and loads start from. */
struct dav_room {
    unsigned char *bytes;
    dav_place place;
};

/* A whose lines run along the sum: [row][k].  All that depends on the row is found out once. */
template <class P, class Tile> struct dav_a_along {
    typedef typename P::E E;
    static const int LINE = 16 / (int)sizeof(E), PITCH = Tile::A_PITCH * (int)sizeof(E);
    typedef dav_share<Tile::ROWS, Tile::KC / LINE, Tile::THREADS, P::DIV != 1> Share;
    static const i64 STEP = (i64)Share::STEP * P::ROW_STEP / P::DIV * P::ROW_STRIDE;
    const E *from;
    unsigned there; /* a bit for each row of this thread */
    dav_place to;
    int left;

    DAV_MEMBER dav_a_along(const P &p, const dav_room &room) : there(0), left(p.k - Share::line() * LINE)
    {
        from = (const E *)p.a + (p.row0 + Share::row() * P::ROW_STEP) / P::DIV * P::ROW_STRIDE + Share::line() * LINE;
        to = dav_kept(room.place + Share::row() * PITCH + Share::line() * 16);
#pragma unroll
        for (int i = 0; i < Share::COUNT; i++)
            there |= (unsigned)p.has_row(Share::row() + i * Share::STEP) << i;
        there = dav_kept(there);
    }
    DAV_MEMBER void fill(int stage)
    {
        const unsigned now = P::K_WHOLE % Tile::KC == 0 || left > 0 ? there : 0;
        const dav_place panel = to + stage;
#pragma unroll
        for (int i = 0; i < Share::COUNT; i++)
            if (Share::has(i))
                dav_copy_line(panel + i * Share::STEP * PITCH, from + i * STEP, now & 1u << i);
        from += Tile::KC;
        left -= Tile::KC;
    }
};

/* A panel whose lines run across the sum: [k][COLS], STEPS of the sum in a stage, PITCH apart in shared memory. */
template <class E, int STEPS, int COLS, int PITCH_, i64 STRIDE, bool WHOLE, int COLS_WHOLE, int T> struct dav_across {
    static const int LINE = 16 / (int)sizeof(E), PITCH = PITCH_ * (int)sizeof(E);
    typedef dav_share<STEPS, COLS / LINE, T, false> Share;
    const E *from;
    dav_place to;
    int bytes, left;
    unsigned whole; /* no bits where the lines are beyond the columns */

    DAV_MEMBER dav_across(const void *panel, int cols, int k, dav_place place)
        : from((const E *)panel + Share::row() * STRIDE + Share::line() * LINE), left(k - Share::row())
    {
        const int have = (cols - Share::line() * LINE) * (int)sizeof(E);
        bytes = have < 0 ? 0 : have > 16 ? 16 : have;
        whole = dav_kept(have > 0 ? ~0u : 0u);
        to = dav_kept(place + Share::row() * PITCH + Share::line() * 16);
    }
    DAV_MEMBER void fill(int stage)
    {
        const unsigned all = (1u << Share::COUNT) - 1u, first = left <= 0 ? 0 : all & ((1u << (left & 31)) - 1u);
        const unsigned now = WHOLE || left >= Share::COUNT ? all : first; /* a bit for each row */
        const dav_place panel = to + stage;
#pragma unroll
        for (int i = 0; i < Share::COUNT; i++) {
            if (Share::has(i) && COLS_WHOLE % LINE == 0)
                dav_copy_line(panel + i * PITCH, from + i * STRIDE, now & whole & 1u << i);
            else if (Share::has(i))
                dav_copy_part(panel + i * PITCH, from + i * STRIDE, now >> i & 1 ? bytes : 0);
        }
        from += STEPS * STRIDE;
        left -= STEPS;
    }
};
/* Pairs are words, one for two steps of the sum. */
template <class E, bool PAIRS, int COLS, int PITCH, i64 STRIDE, class P, int COLS_WHOLE, class Tile> struct dav_panel_across {
    typedef dav_across<E, Tile::KC, COLS, PITCH, STRIDE, P::K_WHOLE % Tile::KC == 0, COLS_WHOLE, Tile::THREADS> Type;
};
template <class E, int COLS, int PITCH, i64 STRIDE, class P, int COLS_WHOLE, class Tile>
struct dav_panel_across<E, true, COLS, PITCH, STRIDE, P, COLS_WHOLE, Tile> {
    typedef dav_across<unsigned, Tile::KC / 2, COLS, PITCH, STRIDE, P::K_WHOLE % Tile::KC == 0, COLS_WHOLE, Tile::THREADS> Type;
};
template <class P, class Tile> struct dav_a_across {
    typename dav_panel_across<typename P::E, P::A_PAIRS, Tile::ROWS, Tile::A_PITCH_ACROSS, P::A_STRIDE, P, P::ROWS_WHOLE, Tile>::Type panel;
    DAV_MEMBER dav_a_across(const P &p, const dav_room &room) : panel(p.a + p.row0, p.rows, P::A_PAIRS ? (p.k + 1) / 2 : p.k, room.place) {}
    DAV_MEMBER void fill(int stage) { panel.fill(stage); }
};
template <class P, class Tile> struct dav_b_across {
    static const i64 STRIDE = P::PACKED ? Tile::COLUMNS : P::B_STRIDE;
    typename dav_panel_across<typename P::E, P::B_PAIRS, Tile::COLS, Tile::B_PITCH, STRIDE, P, P::COLS_WHOLE, Tile>::Type panel;
    DAV_MEMBER dav_b_across(const P &p, const dav_room &room)
        : panel(p.b, p.cols, P::B_PAIRS ? (p.k + 1) / 2 : p.k, room.place + Tile::A_BYTES) {}
    DAV_MEMBER void fill(int stage) { panel.fill(stage); }
};

/* What has no lines: one element at a time. */
template <class P, class Tile> struct dav_a_single {
    typedef typename Tile::Element Element;
    const P &p;
    unsigned char *to;
    int k0;
    DAV_MEMBER dav_a_single(const P &panels, const dav_room &room) : p(panels), to(room.bytes), k0(0) {}
    DAV_MEMBER void fill(int stage)
    {
        for (int e = (int)dav_thread(); e < Tile::ROWS * Tile::KC; e += Tile::THREADS) {
            int r = P::ROWS_NEAR ? e % Tile::ROWS : e / Tile::KC, k = P::ROWS_NEAR ? e / Tile::ROWS : e % Tile::KC;
            dav_put((Element *)(to + stage) + r * Tile::A_PITCH + k, p.at_a(r, k0 + k));
        }
        k0 += Tile::KC;
    }
};
template <class P, class Tile> struct dav_b_single {
    typedef typename Tile::Element Element;
    const P &p;
    unsigned char *to;
    int k0;
    DAV_MEMBER dav_b_single(const P &panels, const dav_room &room) : p(panels), to(room.bytes + Tile::A_BYTES), k0(0) {}
    DAV_MEMBER void fill(int stage)
    {
        for (int e = (int)dav_thread(); e < Tile::KC * Tile::COLS; e += Tile::THREADS) {
            int k = e / Tile::COLS, j = e % Tile::COLS;
            dav_put((Element *)(to + stage) + k * Tile::B_PITCH + j, j < Tile::COLUMNS ? p.at_b(k0 + k, j, Tile::COLUMNS) : (typename P::E)0);
        }
        k0 += Tile::KC;
    }
};

template <bool FIRST, class A, class B> struct dav_either { typedef A Type; };
template <class A, class B> struct dav_either<false, A, B> { typedef B Type; };

/* Panels of KC pass through STAGES places in shared memory, so that copies are under way while products are made.  What is copied
 * but not yet multiplied may be finished by the next contraction into the same tile. */
template <class Tile> struct dav_pipe {
    static const int AHEAD = Tile::STAGES - 1, LAST = AHEAD * Tile::STAGE;
    int full, at, next; /* stages that are copied or on their way; the first of them, the one after them */
    DAV_MEMBER dav_pipe() : full(0), at(0), next(0) {}
    DAV_MEMBER static int after(int stage) { return stage == LAST ? 0 : stage + Tile::STAGE; }
};

template <class Tile, class P> DAV_FN void dav_contract(Tile &tile, dav_pipe<Tile> &pipe, const P &p, unsigned char *bytes)
{
    typedef typename dav_either<P::A_ACROSS, dav_a_across<P, Tile>, dav_a_along<P, Tile>>::Type Lines;
    const dav_room room = {bytes, dav_place_of(bytes)};
    typename dav_either<P::A_LINES, Lines, dav_a_single<P, Tile>>::Type a(p, room);
    typename dav_either<P::B_LINES, dav_b_across<P, Tile>, dav_b_single<P, Tile>>::Type b(p, room);
    const dav_place as = Tile::template place_of_a<P>(room.place), bs = Tile::template place_of_b<P>(room.place + Tile::A_BYTES);
    int left = p.k;
    if (pipe.full == 0)
        dav_sync_block(); /* whatever was in the room has been read */
#pragma unroll 1
    for (; left > 0 && pipe.full < pipe.AHEAD; left -= Tile::KC) {
        a.fill(pipe.next);
        b.fill(pipe.next);
        dav_copy_commit();
        pipe.full++;
        pipe.next = pipe.after(pipe.next);
    }
    int at = pipe.at, next = pipe.next;
#pragma unroll 1
    for (; left > 0; left -= Tile::KC) {
        dav_copy_wait<dav_pipe<Tile>::AHEAD - 1>();
        dav_sync_block(); /* the stage is whole, and everybody is done with the one before */
        a.fill(next);
        b.fill(next);
        dav_copy_commit();
        tile.template multiply<P>(as + at, bs + at, left);
        next = at;
        at = pipe.after(at);
    }
    pipe.at = at;
    pipe.next = next;
}

template <class P, class Tile> DAV_FN void dav_finish(Tile &tile, dav_pipe<Tile> &pipe, unsigned char *bytes)
{
    const dav_place room = dav_place_of(bytes);
    const dav_place as = Tile::template place_of_a<P>(room), bs = Tile::template place_of_b<P>(room + Tile::A_BYTES);
    dav_copy_wait<0>();
    dav_sync_block();
#pragma unroll 1
    for (; pipe.full > 0; pipe.full--) {
        tile.template multiply<P>(as + pipe.at, bs + pipe.at, Tile::KC);
        pipe.at = pipe.after(pipe.at);
    }
    pipe = dav_pipe<Tile>();
}

/* The same where B lies in shared memory already: the tile's NEAR is the pitch of its rows. */
template <class Tile, class P> DAV_FN void dav_contract_near(Tile &tile, const P &p, unsigned char *bytes)
{
    typedef typename dav_either<P::A_ACROSS, dav_a_across<P, Tile>, dav_a_along<P, Tile>>::Type Lines;
    const dav_room room = {bytes, dav_place_of(bytes)};
    typename dav_either<P::A_LINES, Lines, dav_a_single<P, Tile>>::Type a(p, room);
    const dav_place as = Tile::template place_of_a<P>(room.place);
    dav_place bs = Tile::template place_of_b<P>(dav_place_of((unsigned char *)p.b));
    const int AHEAD = Tile::STAGES - 1;
    dav_sync_block(); /* B is whole, and whatever was in the room has been read */
#pragma unroll
    for (int s = 0; s < AHEAD; s++) {
        if (s * Tile::KC < p.k)
            a.fill(s * Tile::STAGE);
        dav_copy_commit();
    }
    int at = 0, next = AHEAD * Tile::STAGE;
#pragma unroll 1
    for (int left = p.k; left > 0; left -= Tile::KC) {
        dav_copy_wait<AHEAD - 1>();
        dav_sync_block();
        if (left > AHEAD * Tile::KC)
            a.fill(next);
        dav_copy_commit();
        tile.template multiply<P>(as + at, bs, left);
        bs += Tile::KC * Tile::NEAR * (int)sizeof(typename P::E);
        next = at;
        at = at == AHEAD * Tile::STAGE ? 0 : at + Tile::STAGE;
    }
    dav_copy_wait<0>();
}

/* ---- tensor cores: WY x WX warps, each with FM x FN fragments of 16x8 ---- */
template <class Element_, int MR, int NR, int WY, int WX, int KC_, int STAGES_, int NEAR_> struct dav_fragments {
    typedef Element_ Element;
    static const int THREADS = WY * WX * 32, KC = KC_, STAGES = STAGES_, NEAR = NEAR_, COLUMNS = NR;
    static const int FM = (MR + 16 * WY - 1) / (16 * WY), FN = (NR + 8 * WX - 1) / (8 * WX), COUNT = FM * FN * 4;
    static const int ROWS = WY * FM * 16, COLS = WX * FN * 8;
    float v[FM][FN][4];

    /* Of a panel that is not staged nothing is known behind the sum's last row. */
    template <class P> DAV_MEMBER static bool ends(int step, int left) { return NEAR > 0 && P::K_WHOLE % KC != 0 && step >= left; }
    DAV_MEMBER void zero()
    {
#pragma unroll
        for (int e = 0; e < COUNT; e++)
            v[e / 4 / FN][e / 4 % FN][e % 4] = 0;
    }
    DAV_MEMBER static int warp_row() { return (int)dav_thread() / 32 / WX * FM * 16; }
    DAV_MEMBER static int warp_col() { return (int)dav_thread() / 32 % WX * FN * 8; }
    DAV_MEMBER static int row(int e) { return warp_row() + e / 4 / FN * 16 + e % 4 / 2 * 8 + (int)dav_thread() % 32 / 4; }
    DAV_MEMBER float get(int e) const { return v[e / 4 / FN][e / 4 % FN][e % 4]; }
};

/* bf16 by mma.m16n8k16.  Rows of a panel in shared memory are 16 bytes longer than they need be: no two of 8 in one bank. */
template <int MR, int NR, int WY, int WX, int KC, int STAGES, int NEAR>
struct dav_mma_tile : dav_fragments<u16, MR, NR, WY, WX, KC, STAGES, NEAR> {
    typedef dav_fragments<u16, MR, NR, WY, WX, KC, STAGES, NEAR> Base;
    using Base::FM;
    using Base::FN;
    using Base::v;
    using Base::warp_row;
    using Base::warp_col;
    static const int A_PITCH = KC + 8, A_PITCH_ACROSS = Base::ROWS + 8, B_PITCH = NEAR ? NEAR : Base::COLS + 8;
    static const int A_BYTES = dav_most<Base::ROWS * A_PITCH, KC * A_PITCH_ACROSS>::value * 2, STAGE = A_BYTES + (NEAR ? 0 : KC * B_PITCH * 2);

    DAV_MEMBER static int col(int e) { return warp_col() + e / 4 % FN * 8 + e % 2 + (int)dav_thread() % 4 * 2; }

    /* By matrices: of lane l row l % 8 of the 8x8 number l / 8.  Pairs are a fragment's words as they are. */
    template <class P> DAV_MEMBER static dav_place place_of_a(dav_place panel)
    {
        const int lane = (int)dav_thread() % 32, in = lane % 8, which = lane / 8;
        return dav_kept(panel + (P::A_PAIRS    ? 4 * (lane % 4 * A_PITCH_ACROSS + warp_row() + lane / 4)
                                 : P::A_ACROSS ? 2 * ((which / 2 * 8 + in) * A_PITCH_ACROSS + warp_row() + which % 2 * 8)
                                               : 2 * ((warp_row() + which % 2 * 8 + in) * A_PITCH + which / 2 * 8)));
    }
    template <class P> DAV_MEMBER static dav_place place_of_b(dav_place panel)
    {
        const int lane = (int)dav_thread() % 32, in = lane % 8, which = lane / 8;
        return dav_kept(panel + (P::B_PAIRS ? 4 * (lane % 4 * B_PITCH + warp_col() + lane / 4)
                                            : 2 * ((which % 2 * 8 + in) * B_PITCH + warp_col() + which / 2 * 8)));
    }
    template <class P> DAV_MEMBER static void load_a(unsigned (&a)[4], dav_place as, int i, int step)
    {
#pragma unroll
        for (int r = 0; r < 4 && P::A_PAIRS; r++)
            a[r] = dav_load_words(as + 4 * ((step / 2 + r / 2 * 4) * A_PITCH_ACROSS + i * 16 + r % 2 * 8), dav_words<1>()).at[0];
        if (P::A_ACROSS && !P::A_PAIRS)
            dav_load_matrices_across(a, as + 2 * (step * A_PITCH_ACROSS + i * 16));
        if (!P::A_ACROSS)
            dav_load_matrices(a, as + 2 * (i * 16 * A_PITCH + step));
    }
    /* Fragments j and j + 1. */
    template <class P> DAV_MEMBER static void load_b(unsigned (&b)[2][2], dav_place bs, int j, int step)
    {
        unsigned both[4];
        if (!P::B_PAIRS)
            dav_load_matrices_across(both, bs + 2 * (step * B_PITCH + j * 8));
#pragma unroll
        for (int i = 0; i < 4; i++)
            b[i / 2][i % 2] = !P::B_PAIRS ? both[i]
                                          : dav_load_words(bs + 4 * ((step / 2 + i % 2 * 4) * B_PITCH + (j + i / 2) * 8), dav_words<1>()).at[0];
    }
    template <class P> DAV_MEMBER void multiply(dav_place as, dav_place bs, int left)
    {
#pragma unroll
        for (int step = 0; step < KC; step += 16) {
            if (Base::template ends<P>(step, left))
                break;
            unsigned a[FM][4], b[(FN + 1) / 2][2][2];
#pragma unroll
            for (int i = 0; i < FM; i++)
                load_a<P>(a[i], as, i, step);
#pragma unroll
            for (int j = 0; j < FN; j += 2)
                load_b<P>(b[j / 2], bs, j, step);
#pragma unroll
            for (int f = 0; f < FM * FN; f++)
                dav_mma_bf16(v[f / FN][f % FN], a[f / FN], b[f % FN / 2][f % FN % 2]);
        }
    }
};

/* f32 by mma.m16n8k8, operands rounded to tf32 (10 bits of mantissa) on their way from shared memory.  B comes word by word: what is
 * loaded four words at a time lies in other registers than the instruction wants, and moving it there takes more than the loads. */
template <int MR, int NR, int WY, int WX, int KC, int STAGES, int NEAR>
struct dav_tf32_tile : dav_fragments<float, MR, NR, WY, WX, KC, STAGES, NEAR> {
    typedef dav_fragments<float, MR, NR, WY, WX, KC, STAGES, NEAR> Base;
    using Base::FM;
    using Base::FN;
    using Base::v;
    using Base::warp_row;
    using Base::warp_col;
    static const int A_PITCH = KC + 4, A_PITCH_ACROSS = (Base::ROWS + 31) / 32 * 32 + 8, B_PITCH = NEAR ? NEAR : (Base::COLS + 31) / 32 * 32 + 8;
    static const int A_BYTES = dav_most<Base::ROWS * A_PITCH, KC * A_PITCH_ACROSS>::value * 4, STAGE = A_BYTES + (NEAR ? 0 : KC * B_PITCH * 4);

    DAV_MEMBER static int col(int e) { return warp_col() + e / 4 % FN * 8 + e % 2 + (int)dav_thread() % 4 * 2; }

    template <class P> DAV_MEMBER static dav_place place_of_a(dav_place panel)
    {
        const int lane = (int)dav_thread() % 32;
        return dav_kept(panel + 4 * (P::A_ACROSS ? lane % 4 * A_PITCH_ACROSS + warp_row() + lane / 4
                                            : (warp_row() + lane / 8 % 2 * 8 + lane % 8) * A_PITCH + lane / 16 * 4));
    }
    template <class P> DAV_MEMBER static dav_place place_of_b(dav_place panel)
    {
        const int lane = (int)dav_thread() % 32;
        return dav_kept(panel + 4 * (lane % 4 * B_PITCH + warp_col() + lane / 4));
    }
    template <class P> DAV_MEMBER void multiply(dav_place as, dav_place bs, int left)
    {
#pragma unroll
        for (int step = 0; step < KC; step += 8) {
            if (Base::template ends<P>(step, left))
                break;
            unsigned a[FM][4], b[FN][2];
#pragma unroll
            for (int i = 0; i < FM; i++) {
                if (!P::A_ACROSS)
                    dav_load_matrices(a[i], as + 4 * (i * 16 * A_PITCH + step)); /* 8 rows of 4 words */
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    if (P::A_ACROSS)
                        a[i][r] = dav_load_words(as + 4 * ((step + r / 2 * 4) * A_PITCH_ACROSS + i * 16 + r % 2 * 8), dav_words<1>()).at[0];
                    a[i][r] = dav_to_tf32(dav_float(a[i][r]));
                }
            }
#pragma unroll
            for (int w = 0; w < FN * 2; w++)
                b[w / 2][w % 2] = dav_to_tf32(dav_float(dav_load_words(bs + 4 * ((step + w % 2 * 4) * B_PITCH + w / 2 * 8), dav_words<1>()).at[0]));
#pragma unroll
            for (int f = 0; f < FM * FN; f++)
                dav_mma_tf32(v[f / FN][f % FN], a[f / FN], b[f % FN]);
        }
    }
};

/* By multiply-add, f32 in shared memory: a thread has M rows and N columns, in runs of RUN_M and RUN_N neighbours. */
template <int MR, int NR, int TY, int TX, int KC_, int STAGES_, int NEAR_> struct dav_fma_tile {
    typedef float Element;
    static const int THREADS = TY * TX, KC = KC_, STAGES = STAGES_, NEAR = NEAR_, COLUMNS = NR;
    static const int M = (MR + TY - 1) / TY, N = (NR + TX - 1) / TX, COUNT = M * N, ROWS = M * TY, COLS = N * TX;
    static const int RUN_M = M % 4 == 0 ? 4 : 1, RUN_N = N % 4 == 0 ? 4 : 1;
    static const int A_PITCH = KC + 4, A_PITCH_ACROSS = (ROWS + 3) / 4 * 4 + 4, B_PITCH = NEAR ? NEAR : (COLS + 3) / 4 * 4 + 4;
    static const int A_BYTES = dav_most<ROWS * A_PITCH, KC * A_PITCH_ACROSS>::value * 4, STAGE = A_BYTES + (NEAR ? 0 : KC * B_PITCH * 4);
    float v[M][N];

    DAV_MEMBER void zero()
    {
#pragma unroll
        for (int e = 0; e < COUNT; e++)
            v[e / N][e % N] = 0;
    }
    DAV_MEMBER static int row(int e) { return e / N / RUN_M * RUN_M * TY + (int)dav_thread() / TX * RUN_M + e / N % RUN_M; }
    DAV_MEMBER static int col(int e) { return e % N / RUN_N * RUN_N * TX + (int)dav_thread() % TX * RUN_N + e % N % RUN_N; }
    DAV_MEMBER float get(int e) const { return v[e / N][e % N]; }

    /* LENGTH values, RUN neighbours at a time. */
    template <int LENGTH, int RUN> DAV_MEMBER static void load(float (&to)[LENGTH], dav_place from, int step)
    {
#pragma unroll
        for (int i = 0; i < LENGTH; i += RUN) {
            const dav_words<RUN> w = dav_load_words(from + 4 * (i / RUN * step), dav_words<RUN>());
#pragma unroll
            for (int r = 0; r < RUN; r++)
                to[i + r] = dav_float(w.at[r]);
        }
    }
    template <class P> DAV_MEMBER static dav_place place_of_a(dav_place panel)
    {
        return dav_kept(panel + 4 * ((int)dav_thread() / TX * RUN_M * (P::A_ACROSS ? 1 : A_PITCH)));
    }
    template <class P> DAV_MEMBER static dav_place place_of_b(dav_place panel) { return dav_kept(panel + 4 * ((int)dav_thread() % TX * RUN_N)); }
    template <class P> DAV_MEMBER void multiply(dav_place as, dav_place bs, int left)
    {
#pragma unroll 1
        for (int k = 0; k < KC && !(NEAR > 0 && P::K_WHOLE % KC != 0 && k >= left); k += 4) {
            float along[M][4];
#pragma unroll
            for (int i = 0; i < M && !P::A_ACROSS; i++)
                load<4, 4>(along[i], as + 4 * (i / RUN_M * RUN_M * TY + i % RUN_M) * A_PITCH, 0);
#pragma unroll
            for (int q = 0; q < 4; q++) {
                float a[M], b[N];
                if (P::A_ACROSS)
                    load<M, RUN_M>(a, as + 4 * q * A_PITCH_ACROSS, RUN_M * TY);
                load<N, RUN_N>(b, bs + 4 * q * B_PITCH, RUN_N * TX);
#pragma unroll
                for (int e = 0; e < COUNT; e++)
                    v[e / N][e % N] = dav_fma(P::A_ACROSS ? a[e / N] : along[e / N][q], b[e % N], v[e / N][e % N]);
            }
            as += P::A_ACROSS ? 16 * A_PITCH_ACROSS : 16;
            bs += 16 * B_PITCH;
        }
    }
};

/* A tile laid out in shared memory, for loops that walk it in another order than its owners. */
template <int MR, int NR, class Tile> DAV_FN const float *dav_spread(const Tile &tile, unsigned char *room)
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
