// What attention makes of the scores of a tile, wherever they were computed.

// Biases by position of all differences between a row and a key, and the times of the keys.
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
        to.of[i] = at >= 0 && difference <= 0 ? p.positions[at] : 0.0f;
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

#if TIMED
DEVICE float bias_by_time(const Buckets &buckets, Seconds until, Seconds time) {
    return buckets.biases[time_bucket(buckets, until, time)];
}
#endif

DEVICE void bend(Scores &scores, const Biases &of_tile, const TileBuckets &buckets, const Seconds (&until)[ROWS_HELD],
                 const Attention &p, const Place &place, u32 key) {
    bool cut = !CANDIDATES && key + KEYS > place.event + 1, ends = key + KEYS > place.len;
#pragma unroll
    for (u32 i = 0; i < ROWS_HELD; i++) {
        u32 row = row_held(i), seen = CANDIDATES ? place.len : place.event + row + 1;
        const float *biases = of_tile.of + (ROWS - 1) - (CANDIDATES ? 0 : row);
#if TIMED
        // Times ascend, so that a tile between whose ends there is no boundary needs no logarithms.
        const Seconds *times = of_tile.times;
        u32 oldest = time_bucket(buckets, until[i], times[0]);
        bool passed = (until[i].high - times[KEYS - 1].high) + (until[i].low - times[KEYS - 1].low) >= 0.0f;
        bool same = passed && oldest == time_bucket(buckets, until[i], times[KEYS - 1]);
        float common = buckets.biases[oldest];
#endif
#pragma unroll
        for (u32 c = 0; c < KEYS_HELD; c++) {
            float x = at(scores, i, c);
#if POSITIONED
            x += biases[key_held(c)];
#endif
#if TIMED
            x += same ? common : bias_by_time(buckets, until[i], times[key_held(c)]);
#endif
            x = silu(x) * p.factor;
            at(scores, i, c) = (cut || ends) && key + key_held(c) >= seen ? 0.0f : x;
        }
    }
}

// What the rows of this thread come to, written where there are such rows.
DEVICE void store_rows(const Attention &p, const Place &place, Sums &sums, const Softmax &softmax, u32 head) {
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
