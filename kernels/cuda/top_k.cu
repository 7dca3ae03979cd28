// The items with the largest dot products, without a matrix of scores in memory.
//
// A score is the sum of products in ascending order of columns, each added by one fused operation, whichever kernel
// computes it: the same bits everywhere. Queries and items are f32.

constexpr u32 THREADS = 256;
constexpr u32 QUERIES = 32;
constexpr u32 ITEMS = 128;
constexpr u32 DEPTH = 16;
// Entries of a list: four a lane.
constexpr u32 LIST = 128;
constexpr u32 EACH = LIST / WARP;

struct Table { const float *data; u32 stride; u32 unused; };
struct Entry { float score; u32 item; };

struct TopK {
    Table queries, items;
    // Items that query q must not be given are exclude[exclude_offsets[q] .. exclude_offsets[q + 1]], ascending; its
    // candidates likewise, where there are any.
    const u32 *exclude, *exclude_offsets, *candidates, *candidate_offsets;
    // Only what comes after this entry is looked for: the last of what was found before, or one of no score.
    const Entry *after;
    // [queries, splits, k], and how many of them were found, [queries, splits].
    Entry *best;
    u32 *found;
    u32 query_count, item_count, dim, k;
    // Items that one block looks at.
    u32 share;
    u32 unused;
};

DEVICE bool better(Entry a, Entry b) { return a.score > b.score || (a.score == b.score && a.item < b.item); }

// One query's list, kept by one warp in shared memory, best first.
struct List {
    Entry *entries;
    u32 count;

    // Offers one entry a lane, in the order of the lanes.
    DEVICE_METHOD void offer(const TopK &p, u32 query, Entry mine, bool there) {
        Entry after = p.after[query];
        there = there && mine.score == mine.score && (after.score != after.score || better(after, mine));
        bool enters = there && (count < p.k || better(mine, entries[p.k - 1]));
        u32 lane = threadIdx.x % WARP;
        for (u32 left = __ballot_sync(ALL_LANES, enters); left != 0; left &= left - 1) {
            u32 from = u32(__ffs(left)) - 1;
            Entry entry = {__shfl_sync(ALL_LANES, mine.score, from), __shfl_sync(ALL_LANES, mine.item, from)};
            bool still = count < p.k || better(entry, entries[p.k - 1]);
            if (!still || excluded(p, query, entry.item)) continue;
            // What it passes moves down by one.
            u32 before = 0;
            Entry held[EACH];
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                u32 at = e * WARP + lane;
                held[e] = entries[at];
                before += u32(__popc(__ballot_sync(ALL_LANES, at < count && better(held[e], entry))));
            }
            __syncwarp();
#pragma unroll
            for (u32 e = 0; e < EACH; e++) {
                u32 at = e * WARP + lane;
                if (at >= before && at < count && at + 1 < p.k) entries[at + 1] = held[e];
            }
            if (lane == 0) entries[before] = entry;
            count = smaller(count + 1, p.k);
            __syncwarp();
        }
    }

    DEVICE_METHOD bool excluded(const TopK &p, u32 query, u32 item) {
        u32 from = p.exclude_offsets[query], to = p.exclude_offsets[query + 1], end = to;
        while (from < to) {
            u32 middle = (from + to) / 2;
            if (p.exclude[middle] < item) from = middle + 1; else to = middle;
        }
        return from < end && p.exclude[from] == item;
    }

    DEVICE_METHOD void give(const TopK &p, u64 place) {
        u32 lane = threadIdx.x % WARP;
        for (u32 at = lane; at < count; at += WARP) p.best[place * p.k + at] = entries[at];
        if (lane == 0) p.found[place] = count;
    }
};

// Blocks of 32 queries and a share of the items; a thread computes four by four scores at a time.
KERNEL(top_k, TopK, THREADS) {
    SHARED_MEMORY(memory);
    Entry *lists = (Entry *)memory;
    float *scores = (float *)(lists + QUERIES * LIST);
    float *queries = scores + QUERIES * ITEMS;
    float *items = queries + QUERIES * (DEPTH + 1);
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, first_query = blockIdx.x * QUERIES;
    u32 from = blockIdx.y * p.share, to = smaller(from + p.share, p.item_count);
    u32 row = threadIdx.x / 32, column = threadIdx.x % 32;

    constexpr u32 OWN = QUERIES / (THREADS / WARP);
    List own[OWN];
#pragma unroll
    for (u32 o = 0; o < OWN; o++) own[o] = {lists + (warp * OWN + o) * LIST, 0};
    for (u32 first = from; first < to; first += ITEMS) {
        float sums[4][4] = {};
        for (u32 depth = 0; depth < p.dim; depth += DEPTH) {
            u32 columns = smaller(DEPTH, p.dim - depth);
            for (u32 i = threadIdx.x; i < QUERIES * DEPTH; i += THREADS) {
                u32 q = first_query + i / DEPTH, c = i % DEPTH;
                bool there = q < p.query_count && c < columns;
                queries[i / DEPTH * (DEPTH + 1) + c] = there ? p.queries.data[u64(q) * p.queries.stride + depth + c] : 0.0f;
            }
            for (u32 i = threadIdx.x; i < ITEMS * DEPTH; i += THREADS) {
                u32 item = first + i / DEPTH, c = i % DEPTH;
                bool there = item < to && c < columns;
                items[i / DEPTH * (DEPTH + 1) + c] = there ? p.items.data[u64(item) * p.items.stride + depth + c] : 0.0f;
            }
            __syncthreads();
            for (u32 c = 0; c < columns; c++) {
                float a[4], b[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) a[i] = queries[(row * 4 + i) * (DEPTH + 1) + c];
#pragma unroll
                for (u32 j = 0; j < 4; j++) b[j] = items[(column + 32 * j) * (DEPTH + 1) + c];
#pragma unroll
                for (u32 i = 0; i < 4; i++)
#pragma unroll
                    for (u32 j = 0; j < 4; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
            }
            __syncthreads();
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 j = 0; j < 4; j++) scores[(row * 4 + i) * ITEMS + column + 32 * j] = sums[i][j];
        __syncthreads();
#pragma unroll
        for (u32 o = 0; o < OWN; o++) {
            u32 query = warp * OWN + o;
            if (first_query + query >= p.query_count) continue;
            for (u32 i = lane; i < ITEMS; i += WARP)
                own[o].offer(p, first_query + query, {scores[query * ITEMS + i], first + i}, first + i < to);
        }
    }
#pragma unroll
    for (u32 o = 0; o < OWN; o++) {
        u32 query = first_query + warp * OWN + o;
        if (query < p.query_count) own[o].give(p, u64(query) * gridDim.y + blockIdx.y);
    }
}

DEVICE float dot(const float *a, const float *b, u32 dim) {
    float sum = 0.0f;
    for (u32 c = 0; c < dim; c++) sum = fmaf(a[c], b[c], sum);
    return sum;
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
        if (item < p.item_count)
            scores[threadIdx.x] =
                dot(p.queries.data + u64(query) * p.queries.stride, p.items.data + u64(item) * p.items.stride, p.dim);
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
    if (at < p.count) p.out[at] = dot(p.query.data, p.items.data + u64(p.rows[at]) * p.items.stride, p.dim);
}
