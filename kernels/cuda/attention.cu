// Causal attention within histories, and of candidates after one: 64 rows of queries of one head a block, 16 a warp.
//
// A block goes through the keys its rows see, KEYS at a time; the next are copied into shared memory while these are
// computed. With CANDIDATES 1 all rows see the whole history and a key of their own.
//
// What differs between precisions is how the sums of products lie in threads: ROWS_HELD rows of a warp each, and of
// each row some columns; LANES threads share a row.

constexpr u32 THREADS = 128;
constexpr u32 ROWS = 64;
constexpr u32 WARP_ROWS = 16;

DEVICE constexpr u32 padded(u32 cols, u32 multiple) { return (cols + multiple - 1) / multiple * multiple; }
constexpr u32 WIDTH = padded(DIM, 16);
constexpr u32 VALUE_WIDTH = padded(VALUE_DIM, BF16 ? 16 : 32);

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

constexpr u32 ROWS_HELD = 2, LANES = 4;
constexpr u32 KEYS_HELD = KEYS / LANES, VALUES_HELD = VALUE_WIDTH / LANES;
// Queries stay in registers where there is room for them; they get there through the room of the second keys.
constexpr bool QUERIES_HELD = WIDTH <= 128;
static_assert(!QUERIES_HELD || KEYS >= ROWS, "no room for queries");

typedef float Scores[KEYS / 8][4];
typedef float Sums[VALUE_WIDTH / 8][4];
struct Queries { u32 of[QUERIES_HELD ? WIDTH / 16 : 1][4]; };
struct Weights {};

DEVICE u32 row_held(u32 i) { return threadIdx.x / WARP * WARP_ROWS + threadIdx.x % WARP / LANES + 8 * i; }
DEVICE u32 key_held(u32 c) { return c / 2 * 8 + threadIdx.x % LANES * 2 + c % 2; }
DEVICE u32 value_held(u32 c) { return key_held(c); }
template <u32 N> DEVICE float &at(float (&x)[N][4], u32 i, u32 c) { return x[c / 2][i * 2 + c % 2]; }

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

constexpr u32 ROWS_HELD = 4, LANES = 8;
constexpr u32 KEYS_HELD = KEYS / LANES, VALUES_HELD = VALUE_WIDTH / LANES;
constexpr bool QUERIES_HELD = false;

typedef float Scores[ROWS_HELD][KEYS_HELD];
typedef float Sums[ROWS_HELD][VALUES_HELD];
struct Queries {};
// Weights pass from the threads that compute them to those of the same rows.
struct Weights { Row<KEYS> rows[ROWS]; };
struct alignas(16) Four { float of[4]; };

DEVICE u32 row_held(u32 i) { return threadIdx.x / WARP * WARP_ROWS + threadIdx.x % WARP / LANES + 4 * i; }
DEVICE u32 key_held(u32 c) { return c * LANES + threadIdx.x % LANES; }
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

// Biases by position of all differences between a row and a key, and what alignment adds.
constexpr u32 BIASES = ROWS + KEYS + 4;

struct alignas(16) Shared {
    Row<WIDTH> keys[2][KEYS];
    Row<VALUE_WIDTH> values[2][KEYS];
    Row<WIDTH> queries[QUERIES_HELD ? 1 : ROWS];
    float biases[2][BIASES];
#if TIMED
    Seconds times[2][KEYS];
    Buckets buckets;
#endif
#if !BF16
    Weights weights;
#endif
};

static_assert(sizeof(Shared) <= SHARED, "shared memory");

// Which rows a block computes.
struct Place {
    // First event of the history, and how many it has.
    u32 start, len;
    // First row of q and out, the place in the history of what it asks for, and how many rows there are.
    u32 row, event, rows;
};

DEVICE Place place_of(const Attention &p) {
    Place place;
    if (p.tiles) {
        u32 history = p.tiles[2 * blockIdx.x], first = p.tiles[2 * blockIdx.x + 1];
        place.start = p.offsets[history];
        place.len = p.offsets[history + 1] - place.start;
        place.row = place.start + first;
        place.event = first;
        place.rows = smaller(ROWS, place.len - first);
    } else {
        // Those that see most come first.
        place.row = (gridDim.x - 1 - blockIdx.x) * ROWS;
        place.start = 0;
        place.len = p.offsets[1];
        place.event = CANDIDATES ? place.len : place.len - p.rows + place.row;
        place.rows = smaller(ROWS, p.rows - place.row);
    }
    return place;
}

// Sum over the threads of a row, and the largest of them.
DEVICE float row_sum(float x) {
    for (u32 step = 1; step < LANES; step *= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}
DEVICE float row_max(float x) {
    for (u32 step = 1; step < LANES; step *= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

// Keys, values and biases of a tile; the copies are committed together.
DEVICE void fetch_tile(const Attention &p, const Place &place, Shared &shared, u32 tile, u32 head) {
    u32 stage = tile % 2, key = tile * KEYS, rows = smaller(KEYS, place.len - key);
    fetch<DIM>(shared.keys[stage], p.k.data + u64(place.start + key) * p.k.stride + head * DIM, p.k.stride, rows);
    const Element *values = p.v.data + u64(place.start + key) * p.v.stride + head * VALUE_DIM;
    fetch<VALUE_DIM>(shared.values[stage], values, p.v.stride, rows);
    copies_committed();
#if !SOFTMAX
    // Number ROWS − 1 + c − r is that of row r and key c; rows of candidates stand at one place.
    for (u32 i = threadIdx.x; i < ROWS + KEYS - 1; i += THREADS) {
        int difference = int(key) - int(place.event) + int(i) - int(ROWS - 1), at = int(p.known) - 1 + difference;
        shared.biases[stage][i] = at >= 0 && difference <= 0 ? p.positions[at] : 0.0f;
    }
#endif
#if TIMED
    for (u32 i = threadIdx.x; i < KEYS; i += THREADS)
        shared.times[stage][i] = p.times[place.start + smaller(key + i, place.len - 1)];
#endif
}

// Scores of a tile made weights; what a row does not see is 0. `sums` and `total` are of the tiles before.
struct Softmax { float largest[ROWS_HELD], total[ROWS_HELD]; };

DEVICE void soften(Scores &scores, Sums &sums, Softmax &softmax, const Attention &p, const Place &place, u32 key) {
    bool cut = key + KEYS > place.event + 1;
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        u32 event = place.event + row_held(i);
        float largest = softmax.largest[i];
#pragma unroll
        for (u32 c = 0; c < KEYS_HELD; c++) {
            float &score = at(scores, i, c);
            if (cut && key + key_held(c) > event) score = LOWEST;
            largest = fmaxf(largest, score);
        }
        largest = row_max(largest);
        float before = weight(softmax.largest[i], largest, p.factor), total = 0.0f;
#pragma unroll
        for (u32 c = 0; c < KEYS_HELD; c++) {
            float &score = at(scores, i, c);
            score = score == LOWEST ? 0.0f : weight(score, largest, p.factor);
            total += score;
        }
        softmax.largest[i] = largest;
        softmax.total[i] = fmaf(softmax.total[i], before, row_sum(total));
#pragma unroll
        for (u32 c = 0; c < VALUES_HELD; c++) at(sums, i, c) *= before;
    }
}

#if TIMED
DEVICE float bias_by_time(const Buckets &buckets, Seconds until, Seconds time) {
    return buckets.biases[time_bucket(buckets, until, time)];
}
#endif

DEVICE void bend(Scores &scores, Shared &shared, const Seconds (&until)[ROWS_HELD], const Attention &p,
                 const Place &place, u32 tile) {
    u32 stage = tile % 2, key = tile * KEYS;
    bool cut = !CANDIDATES && key + KEYS > place.event + 1, ends = key + KEYS > place.len;
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        u32 row = row_held(i), seen = CANDIDATES ? place.len : place.event + row + 1;
        const float *biases = shared.biases[stage] + (ROWS - 1) - (CANDIDATES ? 0 : row);
#if TIMED
        // Times ascend, so that a tile between whose ends there is no boundary needs no logarithms.
        const Seconds *times = shared.times[stage];
        u32 oldest = time_bucket(shared.buckets, until[i], times[0]);
        bool passed = (until[i].high - times[KEYS - 1].high) + (until[i].low - times[KEYS - 1].low) >= 0.0f;
        bool same = passed && oldest == time_bucket(shared.buckets, until[i], times[KEYS - 1]);
        float common = shared.buckets.biases[oldest];
#endif
#pragma unroll
        for (u32 c = 0; c < KEYS_HELD; c++) {
            float x = at(scores, i, c) + biases[key_held(c)];
#if TIMED
            x += same ? common : bias_by_time(shared.buckets, until[i], times[key_held(c)]);
#endif
            x = silu(x) * p.factor;
            at(scores, i, c) = (cut || ends) && key + key_held(c) >= seen ? 0.0f : x;
        }
    }
}

#if CANDIDATES
// What a candidate sees of itself, which happens when it is asked for.
DEVICE void add_own(Sums &sums, const Attention &p, const Shared &shared, const Place &place, u32 head) {
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        u32 row = place.row + (row_held(i) < place.rows ? row_held(i) : 0);
        const Element *q = p.q.data + u64(row) * p.q.stride + head * DIM;
        const Element *k = p.own_k.data + u64(row) * p.own_k.stride + head * DIM;
        const Element *v = p.own_v.data + u64(row) * p.own_v.stride + head * VALUE_DIM;
        float score = 0.0f;
        for (u32 c = threadIdx.x % LANES; c < DIM; c += LANES) score = fmaf(number(q[c]), number(k[c]), score);
        score = row_sum(score) + p.positions[p.known - 1];
#if TIMED
        score += shared.buckets.biases[0];
#endif
        float own = silu(score) * p.factor;
#pragma unroll
        for (u32 c = 0; c < VALUES_HELD; c++)
            if (value_held(c) < VALUE_DIM) at(sums, i, c) = fmaf(own, number(v[value_held(c)]), at(sums, i, c));
    }
}
#endif

KERNEL(attention, Attention, THREADS) {
    SHARED_MEMORY(memory);
    Shared &shared = *reinterpret_cast<Shared *>(memory);
    Place place = place_of(p);
    u32 head = blockIdx.y;
    u32 tiles = ((CANDIDATES ? place.len : place.event + place.rows) + KEYS - 1) / KEYS;

    const Element *queries = p.q.data + u64(place.row) * p.q.stride + head * DIM;
    Queries held;
#if BF16
    if constexpr (QUERIES_HELD) fetch<DIM>(shared.keys[1], queries, p.q.stride, place.rows);
    else
#endif
        fetch<DIM>(shared.queries, queries, p.q.stride, place.rows);
    copies_committed();
    if (tiles > 0) fetch_tile(p, place, shared, 0, head);
    else copies_committed();
#if TIMED
    load_buckets(shared.buckets, p);
#endif
    wait_for_copies<1>();
    __syncthreads();
    hold(held, shared.keys[1]);
    __syncthreads();

    Seconds until[ROWS_HELD] = {};
#if TIMED
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        u32 event = CANDIDATES ? place.len - 1 : smaller(place.event + row_held(i), place.len - 1);
        until[i] = p.until[place.start + event];
    }
#endif
    Softmax softmax;
    for (u32 i = 0; i < ROWS_HELD; i++) softmax.largest[i] = LOWEST, softmax.total[i] = 0.0f;
    Sums sums = {};
    for (u32 tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) fetch_tile(p, place, shared, tile + 1, head);
        else copies_committed();
        wait_for_copies<1>();
        __syncthreads();
        Scores scores = {};
        add_scores(scores, held, shared.queries, shared.keys[tile % 2]);
#if SOFTMAX
        soften(scores, sums, softmax, p, place, tile * KEYS);
#else
        bend(scores, shared, until, p, place, tile);
#endif
#if BF16
        Weights weights;
        add_values(sums, scores, weights, shared.values[tile % 2]);
#else
        add_values(sums, scores, shared.weights, shared.values[tile % 2]);
#endif
        __syncthreads();
    }
    wait_for_copies<0>();
#if CANDIDATES
    add_own(sums, p, shared, place, head);
#endif
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        if (row_held(i) >= place.rows) continue;
        float factor = SOFTMAX ? 1.0f / softmax.total[i] : 1.0f;
        Element *out = p.out.data + u64(place.row + row_held(i)) * p.out.stride + head * VALUE_DIM;
#pragma unroll
        for (u32 c = 0; c < VALUES_HELD; c++)
            if (value_held(c) < VALUE_DIM) store(out[value_held(c)], at(sums, i, c) * factor);
    }
}
