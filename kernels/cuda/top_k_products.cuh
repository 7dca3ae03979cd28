// Scores: of tiles of items by a block, and of single items by a warp, the same bits in both. On tensor cores by mma.sync,
// or in f32.

#if BF16

constexpr u32 DEPTH = 64;
constexpr u32 CHUNKS = DEPTH / CHUNK;

struct alignas(16) Shared {
    Entry lists[QUERIES][LIST];
    float scores[QUERIES][ITEMS];
    u8 queries[2][QUERIES * DEPTH * 2], items[2][ITEMS * DEPTH * 2];
};

// Where a chunk of a row lies: its place is changed by the row, so that eight rows of one column lie in different banks.
DEVICE u32 place(u32 row, u32 chunk) { return (row * CHUNKS + (chunk ^ (row & 7))) * 16; }

// Rows of some of the columns, zeros where there are none.
DEVICE void fetch(const u8 *to, const Table &from, u32 first, u32 end, u32 count, u32 depth, u32 dim) {
    for (u32 i = threadIdx.x; i < count * CHUNKS; i += THREADS) {
        u32 row = i / CHUNKS, chunk = i % CHUNKS, column = depth + chunk * CHUNK;
        bool there = first + row < end && column < dim;
        const Element *of = from.data + (there ? u64(first + row) * from.stride + column : 0);
        copy16(shared_address(to) + place(row, chunk), of, there);
    }
}

// The columns from `depth` on of a block's queries and of a tile of its items, where there is such a tile.
DEVICE void fetch_step(const TopK &p, Shared &shared, u32 stage, const Share &share, u32 first, u32 depth) {
    if (first < share.to) {
        fetch(shared.items[stage], p.items, first, share.to, ITEMS, depth, p.dim);
        fetch(shared.queries[stage], p.queries, share.query, p.query_count, QUERIES, depth, p.dim);
    }
    copies_committed();
}

DEVICE u32 begin_scores(const TopK &p, Shared &shared, const Share &share) {
    fetch_step(p, shared, 0, share, share.from, 0);
    return 0;
}

// Scores of the items from `first` on, each warp those of 16. What comes next is copied meanwhile: `stage` says where.
DEVICE void score_tile(const TopK &p, Shared &shared, u32 &stage, const Share &share, u32 first) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float sums[QUERIES / 16][2][4] = {};
    for (u32 depth = 0; depth < p.dim; depth += DEPTH, stage ^= 1) {
        bool last = depth + DEPTH >= p.dim;
        fetch_step(p, shared, stage ^ 1, share, last ? first + ITEMS : first, last ? 0 : depth + DEPTH);
        wait_for_copies<1>();
        __syncthreads();
        u32 queries = shared_address(shared.queries[stage]), items = shared_address(shared.items[stage]);
#pragma unroll
        for (u32 step = 0; step < DEPTH / 16; step++) {
            u32 b[4];
            load_matrices(b, items + place(warp * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
            for (u32 m = 0; m < QUERIES / 16; m++) {
                u32 a[4];
                load_matrices(a, queries + place(m * 16 + lane % 16, step * 2 + lane / 16));
                multiply_add(sums[m][0], a, b[0], b[1]);
                multiply_add(sums[m][1], a, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 m = 0; m < QUERIES / 16; m++)
#pragma unroll
        for (u32 n = 0; n < 2; n++)
#pragma unroll
            for (u32 e = 0; e < 4; e++)
                shared.scores[m * 16 + lane / 4 + 8 * (e / 2)][warp * 16 + n * 8 + lane % 4 * 2 + e % 2] = sums[m][n][e];
    __syncthreads();
}

DEVICE void end_scores() { wait_for_copies<0>(); }

// Two numbers of a row, zeros beyond its end; what follows the last column of a row is 0.
DEVICE u32 load_pair(const Element *row, u32 column, u32 dim) {
    return row && column < dim ? *reinterpret_cast<const u32 *>(row + column) : 0;
}

// The score of the item that each lane names by its row, of all lanes of a warp together; anything where there is none.
DEVICE float score_each(const Element *query, const Table &items, u32 row, u32 dim) {
    u32 lane = threadIdx.x % WARP;
    float own = 0.0f;
#pragma unroll
    for (u32 group = 0; group < WARP / 8; group++) {
        // The query is the first of 16 rows, of which the others are 0, and the right operand is eight items.
        u32 other = __shfl_sync(ALL_LANES, row, group * 8 + lane / 4);
        const Element *left = lane < 4 ? query : nullptr;
        const Element *right = other != NOWHERE ? items.data + u64(other) * items.stride : nullptr;
        float sums[4] = {};
        for (u32 column = lane % 4 * 2; column < dim + lane % 4 * 2; column += 16) {
            u32 a[4] = {load_pair(left, column, dim), 0, load_pair(left, column + 8, dim), 0};
            multiply_add(sums, a, load_pair(right, column, dim), load_pair(right, column + 8, dim));
        }
        float even = __shfl_sync(ALL_LANES, sums[0], lane % 8 / 2), odd = __shfl_sync(ALL_LANES, sums[1], lane % 8 / 2);
        if (lane / 8 == group) own = lane % 2 ? odd : even;
    }
    return own;
}

#else

constexpr u32 DEPTH = 16;

struct Shared {
    Entry lists[QUERIES][LIST];
    float scores[QUERIES][ITEMS];
    float queries[QUERIES][DEPTH + 1], items[ITEMS][DEPTH + 1];
};

DEVICE u32 begin_scores(const TopK &, Shared &, const Share &) { return 0; }

template <u32 COUNT>
DEVICE void fetch(float (&to)[COUNT][DEPTH + 1], const Table &from, u32 first, u32 end, u32 depth, u32 dim) {
    for (u32 i = threadIdx.x; i < COUNT * DEPTH; i += THREADS) {
        u32 row = first + i / DEPTH, column = depth + i % DEPTH;
        to[i / DEPTH][i % DEPTH] = row < end && column < dim ? from.data[u64(row) * from.stride + column] : 0.0f;
    }
}

// Scores of the items from `first` on; a thread computes four by four.
DEVICE void score_tile(const TopK &p, Shared &shared, u32 &, const Share &share, u32 first) {
    u32 row = threadIdx.x / 32, column = threadIdx.x % 32;
    float sums[4][4] = {};
    for (u32 depth = 0; depth < p.dim; depth += DEPTH) {
        fetch(shared.queries, p.queries, share.query, p.query_count, depth, p.dim);
        fetch(shared.items, p.items, first, share.to, depth, p.dim);
        __syncthreads();
        for (u32 c = 0; c < smaller(DEPTH, p.dim - depth); c++) {
            float a[4], b[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) a[i] = shared.queries[row * 4 + i][c];
#pragma unroll
            for (u32 j = 0; j < 4; j++) b[j] = shared.items[column + 32 * j][c];
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
        for (u32 j = 0; j < 4; j++) shared.scores[row * 4 + i][column + 32 * j] = sums[i][j];
    __syncthreads();
}

DEVICE void end_scores() {}

// The score of the item that each lane names by its row; anything where there is none.
DEVICE float score_each(const Element *query, const Table &items, u32 row, u32 dim) {
    float sum = 0.0f;
    if (row == NOWHERE) return sum;
    const Element *item = items.data + u64(row) * items.stride;
    for (u32 c = 0; c < dim; c++) sum = fmaf(query[c], item[c], sum);
    return sum;
}

#endif
