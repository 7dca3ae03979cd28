// The items with the largest dot products, without a matrix of scores in memory.
//
// A score is the sum of products in ascending order of columns, whichever kernel computes it: in f32 each is added by one
// fused operation, of bf16 tensor cores add 16 at a time.

// Blocks of 32 queries and a share of the items.
KERNEL(top_k, TopK, THREADS) {
    SHARED_MEMORY(memory);
    Shared &shared = *reinterpret_cast<Shared *>(memory);
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, from = blockIdx.y * p.share;
    Share share = {blockIdx.x * QUERIES, from, smaller(from + p.share, p.item_count)};

    constexpr u32 OWN = QUERIES / (THREADS / WARP);
    List own[OWN];
#pragma unroll
    for (u32 o = 0; o < OWN; o++) own[o] = {shared.lists[warp * OWN + o], 0};
    u32 stage = begin_scores(p, shared, share);
    for (u32 first = share.from; first < share.to; first += ITEMS) {
        score_tile(p, shared, stage, share, first);
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            u32 query = warp * OWN + o;
            if (share.query + query >= p.query_count) continue;
            for (u32 i = lane; i < ITEMS; i += WARP)
                own[o].offer(p, share.query + query, {shared.scores[query][i], first + i}, first + i < share.to);
        }
    }
    end_scores();
#pragma unroll
    for (u32 o = 0; o < OWN; o++) {
        u32 query = share.query + warp * OWN + o;
        if (query < p.query_count) own[o].give(p, u64(query) * gridDim.y + blockIdx.y);
    }
}

// A block for a query that names its candidates.
KERNEL(top_k_of_candidates, TopK, THREADS) {
    SHARED_MEMORY(memory);
    Entry *entries = (Entry *)memory;
    float *scores = (float *)(entries + LIST);
    u32 query = blockIdx.x, lane = threadIdx.x % WARP;
    u32 from = p.candidate_offsets[query], to = p.candidate_offsets[query + 1];
    List list = {entries, 0};
    for (u32 first = from; first < to; first += THREADS) {
        u32 at = first + threadIdx.x, item = at < to ? p.candidates[at] : p.item_count;
        const Element *of = p.queries.data + u64(query) * p.queries.stride;
        scores[threadIdx.x] = score_each(of, p.items, item < p.item_count ? item : NOWHERE, p.dim);
        __syncthreads();
        if (threadIdx.x < WARP)
            for (u32 i = lane; i < THREADS; i += WARP) {
                u32 item = first + i < to ? p.candidates[first + i] : p.item_count;
                bool there = item < p.item_count;
                list.offer(p, query, {there ? scores[i] : 0.0f, item}, there);
            }
        __syncthreads();
    }
    if (threadIdx.x < WARP) list.give(p, query);
}

struct Dots {
    Table query, items;
    const u32 *rows;
    float *out;
    u32 count, dim;
};

KERNEL(dots, Dots, THREADS) {
    u32 at = blockIdx.x * THREADS + threadIdx.x;
    float score = score_each(p.query.data, p.items, at < p.count ? p.rows[at] : NOWHERE, p.dim);
    if (at < p.count) p.out[at] = score;
}
