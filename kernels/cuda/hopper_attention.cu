// Causal attention within histories on Hopper's tensor cores: 128 rows of queries of one head a block.
//
// One warp has the copy engine bring tiles of keys and values, in the order of their use, into a ring of slots, and
// brings the biases itself. Eight warps compute, four by four: while four make weights of scores, the tensor cores
// multiply for the other four. Products of a tile's values are under way with those of the next tile's keys.

#if !BF16 || DIM % 64 || VALUE_DIM != DIM || CANDIDATES
#error "not a variant of this kernel"
#endif

constexpr u32 GROUP = 128; // threads whose four warps multiply together
constexpr u32 THREADS = 3 * GROUP;
constexpr u32 TILE_BYTES = KEYS * DIM * 2, PANEL_BYTES = KEYS * PANEL_ROW, PANELS = DIM / PANEL;
constexpr bool HAS_BIASES = POSITIONED || TIMED;
// Tiles whose biases are there at the same time, at most.
constexpr u32 BIASED = SLOTS / 2 + 1;
constexpr u32 READING = 2 * GROUP + WARP; // those that read biases, and those that bring them
static_assert(ROWS == KEYS, "all tiles are alike");
static_assert(FIRST_THREAD == GROUP, "the first group copies");

struct alignas(1024) Shared {
    u8 queries[TILE_BYTES];
    u8 slots[SLOTS][TILE_BYTES];
    Biases biases[BIASED];
    TileBuckets buckets;
    alignas(8) u64 asked, full[SLOTS], empty[SLOTS];
};

static_assert(sizeof(Shared) + 1024 <= SHARED, "shared memory");

struct HopperAttention {
    Map q, k, v;
    Attention of;
};

// A tile of 128 rows of one head.
DEVICE void copy_tile(const u8 *to, const Map &map, u32 head, u32 row, u32 barrier) {
    for (u32 panel = 0; panel < PANELS; panel++)
        copy_panel(shared_address(to) + panel * PANEL_BYTES, map, head * DIM + panel * PANEL, row, barrier);
}

// What one warp does: tile by tile, the keys with their biases, and the values.
DEVICE void bring(Shared &shared, const HopperAttention &p, const Place &place, u32 tiles, u32 head) {
    u32 lane = threadIdx.x % WARP;
    if (lane == 0) {
        u32 asked = shared_address(&shared.asked);
        expect(asked, TILE_BYTES);
        copy_tile(shared.queries, p.q, head, place.row, asked);
        arrive(asked);
    }
    for (u32 load = 0; load < 2 * tiles; load++) {
        u32 tile = load / 2, slot = load % SLOTS, row = place.start + tile * KEYS;
        u32 full = shared_address(&shared.full[slot]);
        wait_for_phase(shared_address(&shared.empty[slot]), (load / SLOTS + 1) % 2);
        if (lane == 0) {
            expect(full, TILE_BYTES);
            copy_tile(shared.slots[slot], load % 2 ? p.v : p.k, head, row, full);
        }
        // Biases are overwritten when everybody has read them.
        if (HAS_BIASES && load % 2 == 0 && tile >= BIASED) meet(1 + tile % BIASED, READING);
        if (load % 2 == 0) load_biases(shared.biases[tile % BIASED], p.of, place, tile * KEYS, lane, WARP);
        arrive(full);
    }
}

// Waits for load number `load`, and gives the address of its tile.
DEVICE u32 filled(Shared &shared, u32 load) {
    wait_for_phase(shared_address(&shared.full[load % SLOTS]), load / SLOTS % 2);
    return shared_address(shared.slots[load % SLOTS]);
}

// Says that this warp has read that load.
DEVICE void release(Shared &shared, u32 load) {
    __syncwarp();
    if (threadIdx.x % WARP == 0) arrive(shared_address(&shared.empty[load % SLOTS]));
}

// scores = q·kᵀ, under way
DEVICE void begin_scores(Scores &scores, u32 queries, u32 keys) {
#pragma unroll
    for (u32 step = 0; step < DIM / 16; step++) {
        u32 at = step * 16 / PANEL * PANEL_BYTES + step * 16 % PANEL * 2;
        multiply(scores, operand(queries + at, 0), operand(keys + at, 0), step > 0);
    }
    products_committed();
}

// Weights as the left operand of a product.
typedef u32 Weights[KEYS / 16][4];

DEVICE void pack_weights(Weights &weights, const Scores &scores) {
#pragma unroll
    for (u32 step = 0; step < KEYS / 16; step++)
        for (u32 e = 0; e < 4; e++) {
            const float *pair = &scores[2 * step + e / 2][e % 2 * 2];
            weights[step][e] = pack(pair[0], pair[1]);
        }
}

// sums += weights·v, under way
DEVICE void begin_values(Sums &sums, const Weights &weights, u32 values) {
#pragma unroll
    for (u32 step = 0; step < KEYS / 16; step++)
        multiply_by_rows(sums, weights[step], operand(values + step * 16 * PANEL_ROW, PANEL_BYTES), 1);
    products_committed();
}

// What four warps do for their 64 rows.
DEVICE void compute(Shared &shared, const Attention &p, const Place &place, u32 tiles, u32 head) {
    u32 group = threadIdx.x / GROUP - 1;
    u32 queries = shared_address(shared.queries) + group * (GROUP / 2) * PANEL_ROW;
    Seconds until[ROWS_HELD] = {};
    load_until(until, p, place);
    Softmax softmax;
    begin(softmax);
    Sums sums = {};
    Scores scores;
    wait_for_phase(shared_address(&shared.asked), 0);
    u32 keys = filled(shared, 0);
    products_begin();
    begin_scores(scores, queries, keys);
    wait_for_products<0>();
    computed_elsewhere(scores);
    for (u32 tile = 0; tile < tiles; tile++) {
        release(shared, 2 * tile);
#if SOFTMAX
        soften(scores, sums, softmax, p, place, tile * KEYS);
#else
        bend(scores, shared.biases[tile % BIASED], shared.buckets, until, place, tile * KEYS);
        if (HAS_BIASES && tile + BIASED < tiles) pass(1 + tile % BIASED, READING);
#endif
        Weights weights;
        pack_weights(weights, scores);
        u32 values = filled(shared, 2 * tile + 1);
        // After the last tile the scores are those of its keys once more, which nobody looks at.
        keys = tile + 1 < tiles ? filled(shared, 2 * tile + 2) : keys;
        Scores next;
        computed_elsewhere(sums);
        products_begin();
        begin_values(sums, weights, values);
        begin_scores(next, queries, keys);
        wait_for_products<0>();
        computed_elsewhere(sums);
        computed_elsewhere(next);
        release(shared, 2 * tile + 1);
#pragma unroll
        for (u32 i = 0; i < KEYS / 8; i++)
            for (u32 e = 0; e < 4; e++) scores[i][e] = next[i][e];
    }
    store_rows(p, place, sums, softmax, head);
}

KERNEL(hopper_attention, HopperAttention, THREADS) {
    SHARED_MEMORY(memory);
    u32 before = shared_address(memory) % 1024;
    Shared &shared = *reinterpret_cast<Shared *>(memory + (before ? 1024 - before : 0));
    Place place = place_of(p.of);
    u32 head = blockIdx.y, tiles = (place.event + place.rows + KEYS - 1) / KEYS;
    if (threadIdx.x == 0) {
        barrier_begins(shared_address(&shared.asked), 1);
        for (u32 slot = 0; slot < SLOTS; slot++) {
            barrier_begins(shared_address(&shared.full[slot]), WARP);
            barrier_begins(shared_address(&shared.empty[slot]), 2 * GROUP / WARP);
        }
        barriers_begun();
    }
#if TIMED
    load_buckets(shared.buckets, p.of);
#endif
    __syncthreads();
    if (threadIdx.x < GROUP) {
        give_registers<40>();
        if (threadIdx.x < WARP) bring(shared, p, place, tiles, head);
    } else {
        take_registers<232>();
        compute(shared, p.of, place, tiles, head);
    }
}
