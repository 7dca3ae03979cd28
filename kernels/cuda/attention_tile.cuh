// What attention makes of the scores of a tile, wherever they were computed.

// Halves of the biases by position of all differences between a row and a key, and the times of the keys.
struct alignas(16) Biases {
    float of[ROWS + KEYS + 4];
#if TIMED
    Seconds times[KEYS];
#endif
};

#if TIMED
typedef Buckets TileBuckets;
#else
struct TileBuckets {};
#endif

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

// The biases of a tile whose first key is `key`, by `threads` threads of which this is number `thread`.
DEVICE void load_biases(Biases &to, const Attention &p, const Place &place, u32 key, u32 thread, u32 threads) {
#if POSITIONED
    // Number ROWS − 1 + c − r is that of row r and key c; rows of candidates stand at one place.
    for (u32 i = thread; i < ROWS + KEYS - 1; i += threads) {
        int difference = int(key) - int(place.event) + int(i) - int(ROWS - 1), at = int(p.known) - 1 + difference;
        to.of[i] = at >= 0 && difference <= 0 ? 0.5f * p.positions[at] : 0.0f;
    }
#endif
#if TIMED
    for (u32 i = thread; i < KEYS; i += threads) to.times[i] = p.times[place.start + smaller(key + i, place.len - 1)];
#endif
}

// What the rows of this thread ask for: the times after them.
DEVICE void load_until(Seconds (&until)[ROWS_HELD], const Attention &p, const Place &place) {
#if TIMED
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        u32 event = CANDIDATES ? place.len - 1 : smaller(place.event + row_held(i), place.len - 1);
        until[i] = p.until[place.start + event];
    }
#endif
}

// Scores of a tile made weights; what a row does not see is 0. `sums` and `total` are of the tiles before.
struct Softmax { float largest[ROWS_HELD], total[ROWS_HELD]; };

DEVICE void begin(Softmax &softmax) {
    for (u32 i = 0; i < ROWS_HELD; i++) softmax.largest[i] = LOWEST, softmax.total[i] = 0.0f;
}

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

// What a row adds to the scores of a tile by time. Times ascend, so that few buckets begin within a tile.
enum TimeBiases {
    NONE,
    ONE,
    // One for keys before an edge, and one for later ones.
    TWO,
    ANY
};

#if TIMED
// Halves of biases.
struct RowTimes { Seconds edge; float before, after; };

// Sets what the rows of this thread add, and gives of what kind it is for a whole warp.
DEVICE TimeBiases time_biases(RowTimes (&rows)[ROWS_HELD], const Biases &of_tile, const Buckets &buckets,
                              const Seconds (&until)[ROWS_HELD]) {
    bool one = true, two = true;
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        Seconds first = of_tile.times[0], last = of_tile.times[KEYS - 1];
        u32 before = time_bucket(buckets, until[i], first), after = time_bucket(buckets, until[i], last);
        bool passed = (until[i].high - last.high) + (until[i].low - last.low) >= 0.0f;
        Seconds begin = buckets.begins[before];
        rows[i].edge = {until[i].high - begin.high, until[i].low - begin.low};
        rows[i].before = 0.5f * buckets.biases[before], rows[i].after = 0.5f * buckets.biases[after];
        one = one && passed && before == after;
        two = two && passed && before <= after + 1;
    }
    if (__ballot_sync(ALL_LANES, one) == ALL_LANES) return ONE;
    return __ballot_sync(ALL_LANES, two) == ALL_LANES ? TWO : ANY;
}

template <TimeBiases KIND>
DEVICE float half_by_time(const RowTimes &row, const Buckets &buckets, const Seconds &until, const Seconds &time) {
    if (KIND == ONE) return row.before;
    if (KIND == TWO) return (row.edge.high - time.high) + (row.edge.low - time.low) < 0.0f ? row.after : row.before;
    return 0.5f * buckets.biases[time_bucket(buckets, until, time)];
}
#else
struct RowTimes {};

template <TimeBiases KIND>
DEVICE float half_by_time(const RowTimes &, const TileBuckets &, const Seconds &, const Seconds &) {
    return 0.0f;
}
#endif

// With MASKED, where some row may not see some key.
template <TimeBiases KIND, bool MASKED>
DEVICE void bend_by(Scores &scores, const Biases &of_tile, const TileBuckets &buckets, const RowTimes (&rows)[ROWS_HELD],
                    const Seconds (&until)[ROWS_HELD], const Place &place, u32 key) {
    // What a row adds by position to a key the row ROW_STEP below adds to the key as far on: it is read once.
    const float *biases = of_tile.of + (ROWS - 1) - (CANDIDATES ? 0 : row_held(0)) + key_held(0);
#pragma unroll
    for (u32 c = 0; c < KEYS_HELD; c++) {
        Seconds time = {};
#if TIMED
        if (KIND == TWO || KIND == ANY) time = of_tile.times[key_held(c)];
#endif
#pragma unroll
        for (u32 i = 0; i < ROWS_HELD; i++) {
            float &x = at(scores, i, c), by = 0.0f;
#if POSITIONED
            by = biases[int(key_after(c)) - int(CANDIDATES ? 0 : ROW_STEP * i)];
#endif
            if (KIND != NONE) by += half_by_time<KIND>(rows[i], buckets, until[i], time);
            x = silu_of_half(fmaf(x, 0.5f, by));
            u32 seen = CANDIDATES ? place.len : place.event + row_held(i) + 1;
            if (MASKED && key + key_held(c) >= seen) x = 0.0f;
        }
    }
}

// Scores of a tile made weights, but for the factor; what a row does not see is 0.
DEVICE void bend(Scores &scores, const Biases &of_tile, const TileBuckets &buckets, const Seconds (&until)[ROWS_HELD],
                 const Place &place, u32 key) {
    bool masked = (!CANDIDATES && key + KEYS > place.event + 1) || key + KEYS > place.len;
    RowTimes rows[ROWS_HELD] = {};
#if TIMED
    TimeBiases kind = masked ? ANY : time_biases(rows, of_tile, buckets, until);
    if (kind == ONE) bend_by<ONE, false>(scores, of_tile, buckets, rows, until, place, key);
    else if (kind == TWO) bend_by<TWO, false>(scores, of_tile, buckets, rows, until, place, key);
    else bend_by<ANY, true>(scores, of_tile, buckets, rows, until, place, key);
#else
    if (masked) bend_by<NONE, true>(scores, of_tile, buckets, rows, until, place, key);
    else bend_by<NONE, false>(scores, of_tile, buckets, rows, until, place, key);
#endif
}

// What the rows of this thread come to, written where there are such rows.
DEVICE void store_rows(const Attention &p, const Place &place, Sums &sums, const Softmax &softmax, u32 head) {
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        if (row_held(i) >= place.rows) continue;
        float factor = SOFTMAX ? 1.0f / softmax.total[i] : p.factor;
        Element *out = p.out.data + u64(place.row + row_held(i)) * p.out.stride + head * VALUE_DIM;
#pragma unroll
        for (u32 c = 0; c < VALUES_HELD; c++)
            if (value_held(c) < VALUE_DIM) store(out[value_held(c)], at(sums, i, c) * factor);
    }
}
