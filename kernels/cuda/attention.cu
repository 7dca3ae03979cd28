// Causal attention within histories, and of candidates after one: 64 rows of queries of one head a block, 16 a warp.
//
// A block goes through the keys its rows see, KEYS at a time; the next are copied into shared memory while these are
// computed. With CANDIDATES 1 all rows see the whole history and a key of their own.
//
// What differs between precisions is how the sums of products lie in threads: ROWS_HELD rows of a warp each, and of
// each row some columns; LANES threads share a row.

struct alignas(16) Shared {
    Row<WIDTH> keys[2][KEYS];
    Row<VALUE_WIDTH> values[2][KEYS];
    Row<WIDTH> queries[QUERIES_HELD ? 1 : ROWS];
    Biases biases[2];
    TileBuckets buckets;
#if !BF16
    Weights weights;
#endif
};

static_assert(sizeof(Shared) <= SHARED, "shared memory");

// Keys, values and biases of a tile; the copies are committed together.
DEVICE void fetch_tile(const Attention &p, const Place &place, Shared &shared, u32 tile, u32 head) {
    u32 stage = tile % 2, key = tile * KEYS, rows = smaller(KEYS, place.len - key);
    fetch<DIM>(shared.keys[stage], p.k.data + u64(place.start + key) * p.k.stride + head * DIM, p.k.stride, rows);
    const Element *values = p.v.data + u64(place.start + key) * p.v.stride + head * VALUE_DIM;
    fetch<VALUE_DIM>(shared.values[stage], values, p.v.stride, rows);
    copies_committed();
    load_biases(shared.biases[stage], p, place, key, threadIdx.x, THREADS);
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
        score = row_sum(score);
#if POSITIONED
        score += p.positions[p.known - 1];
#endif
#if TIMED
        score += shared.buckets.biases[0];
#endif
        float own = silu(score);
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
    load_until(until, p, place);
    Softmax softmax;
    begin(softmax);
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
        bend(scores, shared.biases[tile % 2], shared.buckets, until, place, tile * KEYS);
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
    store_rows(p, place, sums, softmax, head);
}
