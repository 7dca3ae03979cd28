// Products of attention by one warp for its 16 rows, with operands in shared memory: on tensor cores by mma.sync, or in
// f32.

constexpr u32 THREADS = 128;

// Rows lie one chunk further apart than they are wide, an odd number of chunks: eight rows of one column lie in
// different banks.
template <u32 COLS> struct alignas(16) Row { Element of[COLS + CHUNK]; };

// Copies rows of matrices, zeros where there are none.
template <u32 COLS, u32 PADDED, u32 COUNT>
DEVICE void fetch(Row<PADDED> (&to)[COUNT], const Element *from, u32 stride, u32 rows) {
    constexpr u32 CHUNKS = PADDED / CHUNK;
#pragma unroll
    for (u32 i = threadIdx.x; i < COUNT * CHUNKS; i += THREADS) {
        u32 row = i / CHUNKS, column = i % CHUNKS * CHUNK;
        if (COLS % CHUNK == 0) {
            bool there = row < rows && column < COLS;
            copy16(shared_address(&to[row].of[column]), there ? from + u64(row) * stride + column : from, there);
        } else {
            for (u32 e = column; e < column + CHUNK; e++)
                to[row].of[e] = row < rows && e < COLS ? from[u64(row) * stride + e] : Element{};
        }
    }
}

#if BF16

// Queries stay in registers where there is room for them; they get there through the room of the second keys.
constexpr bool QUERIES_HELD = WIDTH <= 128;
static_assert(!QUERIES_HELD || KEYS >= ROWS, "no room for queries");

struct Queries { u32 of[QUERIES_HELD ? WIDTH / 16 : 1][4]; };
struct Weights {};

DEVICE void load_queries(u32 (&to)[4], const Row<WIDTH> *queries, u32 step) {
    u32 lane = threadIdx.x % WARP, row = threadIdx.x / WARP * WARP_ROWS + lane % 16;
    load_matrices(to, shared_address(&queries[row].of[step * 16 + lane / 16 * 8]));
}

DEVICE void hold(Queries &to, const Row<WIDTH> *queries) {
#pragma unroll
    for (u32 step = 0; QUERIES_HELD && step < WIDTH / 16; step++) load_queries(to.of[step], queries, step);
}

// scores += q·kᵀ
DEVICE void add_scores(Scores &scores, const Queries &held, const Row<WIDTH> *queries, const Row<WIDTH> *keys) {
    u32 lane = threadIdx.x % WARP;
    u32 from = shared_address(&keys[lane % 8 + lane / 16 * 8].of[lane / 8 % 2 * 8]);
#pragma unroll
    for (u32 step = 0; step < WIDTH / 16; step++) {
        u32 left[4];
        if (QUERIES_HELD) for (u32 e = 0; e < 4; e++) left[e] = held.of[QUERIES_HELD ? step : 0][e];
        else load_queries(left, queries, step);
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++) {
            u32 right[4];
            load_matrices(right, from + n * 16 * u32(sizeof(Row<WIDTH>)) + step * 32);
            multiply_add(scores[2 * n], left, right[0], right[1]);
            multiply_add(scores[2 * n + 1], left, right[2], right[3]);
        }
    }
}

// sums += weights·v: the sums of the one product lie as the left operand of the other.
DEVICE void add_values(Sums &sums, const Scores &weights, Weights &, const Row<VALUE_WIDTH> *values) {
    u32 lane = threadIdx.x % WARP;
    u32 from = shared_address(&values[lane % 16].of[lane / 16 * 8]);
#pragma unroll
    for (u32 step = 0; step < KEYS / 16; step++) {
        u32 left[4];
        for (u32 e = 0; e < 4; e++) {
            const float *pair = &weights[2 * step + e / 2][e % 2 * 2];
            left[e] = pack(pair[0], pair[1]);
        }
#pragma unroll
        for (u32 n = 0; n < VALUE_WIDTH / 16; n++) {
            u32 right[4];
            load_matrices_transposed(right, from + step * 16 * u32(sizeof(Row<VALUE_WIDTH>)) + n * 32);
            multiply_add(sums[2 * n], left, right[0], right[1]);
            multiply_add(sums[2 * n + 1], left, right[2], right[3]);
        }
    }
}

#else

constexpr u32 ROWS_HELD = 4, ROW_STEP = 4, LANES = 8;
constexpr u32 KEYS_HELD = KEYS / LANES, VALUES_HELD = VALUE_WIDTH / LANES;
constexpr bool QUERIES_HELD = false;

typedef float Scores[ROWS_HELD][KEYS_HELD];
typedef float Sums[ROWS_HELD][VALUES_HELD];
struct Queries {};
// Weights pass from the threads that compute them to those of the same rows.
struct Weights { Row<KEYS> rows[ROWS]; };
struct alignas(16) Four { float of[4]; };

DEVICE u32 row_held(u32 i) { return threadIdx.x / WARP * WARP_ROWS + threadIdx.x % WARP / LANES + ROW_STEP * i; }
DEVICE constexpr u32 key_after(u32 c) { return c * LANES; }
DEVICE u32 key_held(u32 c) { return threadIdx.x % LANES + key_after(c); }
DEVICE u32 value_held(u32 c) { return c / 4 * 32 + threadIdx.x % LANES * 4 + c % 4; }
template <u32 N> DEVICE float &at(float (&x)[ROWS_HELD][N], u32 i, u32 c) { return x[i][c]; }

DEVICE Four load_four(const float *from) { return *reinterpret_cast<const Four *>(from); }

DEVICE void hold(Queries &, const Row<WIDTH> *) {}

// scores += q·kᵀ
DEVICE void add_scores(Scores &scores, const Queries &, const Row<WIDTH> *queries, const Row<WIDTH> *keys) {
#pragma unroll 2
    for (u32 column = 0; column < WIDTH; column += 4) {
        Four left[ROWS_HELD];
#pragma unroll
        for (u32 i = 0; i < ROWS_HELD; i++) left[i] = load_four(&queries[row_held(i)].of[column]);
#pragma unroll
        for (u32 c = 0; c < KEYS_HELD; c++) {
            Four right = load_four(&keys[key_held(c)].of[column]);
#pragma unroll
            for (u32 i = 0; i < ROWS_HELD; i++)
                for (u32 e = 0; e < 4; e++) scores[i][c] = fmaf(left[i].of[e], right.of[e], scores[i][c]);
        }
    }
}

// sums += weights·v
DEVICE void add_values(Sums &sums, const Scores &weights, Weights &shared, const Row<VALUE_WIDTH> *values) {
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++)
        for (u32 c = 0; c < KEYS_HELD; c++) shared.rows[row_held(i)].of[key_held(c)] = weights[i][c];
    __syncwarp();
#pragma unroll 1
    for (u32 key = 0; key < KEYS; key += 4) {
        Four left[ROWS_HELD];
#pragma unroll
        for (u32 i = 0; i < ROWS_HELD; i++) left[i] = load_four(&shared.rows[row_held(i)].of[key]);
#pragma unroll
        for (u32 e = 0; e < 4; e++)
#pragma unroll
            for (u32 c = 0; c < VALUES_HELD; c += 4) {
                Four right = load_four(&values[key + e].of[value_held(c)]);
#pragma unroll
                for (u32 i = 0; i < ROWS_HELD; i++)
                    for (u32 f = 0; f < 4; f++) sums[i][c + f] = fmaf(left[i].of[e], right.of[f], sums[i][c + f]);
            }
    }
}

#endif
