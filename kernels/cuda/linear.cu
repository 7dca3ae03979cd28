// Linear layers: out = act(A·W + b) + residual, up to four that share A in one launch. A is a matrix, its normalised rows
// (PROLOGUE 1), or a gate times them (PROLOGUE 2): what comes before a product is done while its tiles are laid out, so
// that it never goes through memory.

// 0: A = x; 1: A = LN(x); 2: A = gate ∘ LN(x).
#ifndef PROLOGUE
#define PROLOGUE 0
#endif
// Rows of 16 that a warp computes at a time.
#ifndef ROW_TILES
#define ROW_TILES 1
#endif

constexpr u32 COLUMNS = 64;
#if BF16
constexpr u32 THREADS = 128;
constexpr u32 ROWS = 64 * ROW_TILES;
constexpr u32 DEPTH = 64;
#else
constexpr u32 THREADS = 256;
constexpr u32 ROWS = 64;
constexpr u32 DEPTH = 16;
#endif

// Mean and 1/√(variance + eps) of each row of the tile.
DEVICE void measure(const Linear &p, u32 first_row, float *statistics) {
    u32 lane = threadIdx.x % WARP;
    for (u32 row = threadIdx.x / WARP; row < ROWS; row += THREADS / WARP) {
        if (first_row + row >= p.rows) continue;
        const Element *x = p.x.data + u64(first_row + row) * p.x.stride;
        float sum = 0.0f, squares = 0.0f;
        for (u32 c = lane; c < p.inputs; c += WARP) sum += number(x[c]);
        float mean = warp_sum(sum) / float(p.inputs);
        for (u32 c = lane; c < p.inputs; c += WARP) {
            float distance = number(x[c]) - mean;
            squares = fmaf(distance, distance, squares);
        }
        float factor = 1.0f / sqrtf(warp_sum(squares) / float(p.inputs) + p.eps);
        if (lane == 0) {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = factor;
        }
    }
}

// A number of A from those of its matrices.
DEVICE float prepared(const Linear &p, const float *statistics, u32 row, u32 column, float x, float gate) {
#if PROLOGUE > 0
    x = (x - statistics[2 * row]) * statistics[2 * row + 1];
    if (p.norm_weight) x *= p.norm_weight[column];
    if (p.norm_bias) x += p.norm_bias[column];
#endif
#if PROLOGUE == 2
    x *= gate;
#endif
    return x;
}

DEVICE void finish(const Linear &p, const Layer &layer, u32 row, u32 column, float x) {
    if (row >= p.rows || column >= layer.cols) return;
    if (layer.bias) x += layer.bias[column];
    x = activate(x);
    if (p.residual.data) x += number(p.residual.data[u64(row) * p.residual.stride + column]);
    store(layer.out[u64(row) * layer.out_stride + column], x);
}

#if BF16

// Eight numbers of 16 bytes.
union Chunk { uint4 whole; u32 pairs[4]; };

// Where a chunk of a row of 64 lies: its place is changed by the row, so that eight rows of one column lie in different
// banks.
DEVICE u32 place(u32 row, u32 chunk) { return (row * (DEPTH / 8) + (chunk ^ (row & 7))) * 16; }

KERNEL(linear, Linear, THREADS) {
    SHARED_MEMORY(memory);
    constexpr u32 LEFT = ROWS * DEPTH * 2, RIGHT = DEPTH * COLUMNS * 2;
    u8 *left = memory;
    u32 right = shared_address(memory + 2 * LEFT);
    float *statistics = (float *)(memory + 2 * LEFT + 2 * RIGHT);
    u32 first_row = blockIdx.x * ROWS, tile = blockIdx.y;
    const Layer &layer = p.layers[layer_of(p, tile, COLUMNS)];
    u32 first_column = tile * COLUMNS, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#if PROLOGUE > 0
    measure(p, first_row, statistics);
    __syncthreads();
#endif

    auto lay_out = [&](u32 stage, u32 depth) {
        for (u32 i = threadIdx.x; i < DEPTH * (COLUMNS / 8); i += THREADS) {
            u32 row = i / (COLUMNS / 8), chunk = i % (COLUMNS / 8), column = first_column + chunk * 8;
            bool there = depth + row < p.inputs && column < layer.weight.stride;
            const Element *from = layer.weight.data + (there ? u64(depth + row) * layer.weight.stride + column : 0);
            copy16(right + stage * RIGHT + place(row, chunk), from, there);
        }
        copies_committed();
        for (u32 i = threadIdx.x; i < ROWS * (DEPTH / 8); i += THREADS) {
            u32 row = i / (DEPTH / 8), chunk = i % (DEPTH / 8), column = depth + chunk * 8;
            Chunk x = {}, gate = {};
            bool there = first_row + row < p.rows && column < p.inputs;
            if (there) x.whole = *(const uint4 *)(p.x.data + u64(first_row + row) * p.x.stride + column);
#if PROLOGUE == 2
            if (there) gate.whole = *(const uint4 *)(p.gate.data + u64(first_row + row) * p.gate.stride + column);
#endif
#pragma unroll
            for (u32 pair = 0; pair < 4; pair++) {
                float numbers[2];
#pragma unroll
                for (u32 e = 0; e < 2; e++) {
                    u32 c = column + 2 * pair + e;
                    float own = number(bf16{u16(x.pairs[pair] >> (16 * e))});
                    float by = number(bf16{u16(gate.pairs[pair] >> (16 * e))});
                    numbers[e] = there && c < p.inputs ? prepared(p, statistics, row, c, own, by) : 0.0f;
                }
                x.pairs[pair] = pack(numbers[0], numbers[1]);
            }
            *(uint4 *)(left + stage * LEFT + place(row, chunk)) = x.whole;
        }
    };

    float sums[ROW_TILES][COLUMNS / 8][4] = {};
    lay_out(0, 0);
    for (u32 depth = 0, stage = 0; depth < p.inputs; depth += DEPTH, stage ^= 1) {
        if (depth + DEPTH < p.inputs) {
            lay_out(stage ^ 1, depth + DEPTH);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        __syncthreads();
        u32 tile_left = shared_address(left + stage * LEFT), tile_right = right + stage * RIGHT;
#pragma unroll
        for (u32 s = 0; s < DEPTH / 16; s++) {
            u32 a[ROW_TILES][4];
#pragma unroll
            for (u32 m = 0; m < ROW_TILES; m++)
                load_matrices(a[m], tile_left + place((warp * ROW_TILES + m) * 16 + (lane & 15), s * 2 + (lane >> 4)));
#pragma unroll
            for (u32 n = 0; n < COLUMNS / 16; n++) {
                u32 b[4];
                load_matrices_transposed(b, tile_right + place(s * 16 + (lane & 15), n * 2 + (lane >> 4)));
#pragma unroll
                for (u32 m = 0; m < ROW_TILES; m++) {
                    multiply_add(sums[m][2 * n], a[m], b[0], b[1]);
                    multiply_add(sums[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
        // The tile is laid out anew in the next round but one's preparation.
        __syncthreads();
    }
#pragma unroll
    for (u32 m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                u32 row = first_row + (warp * ROW_TILES + m) * 16 + lane / 4 + 8 * (e / 2);
                finish(p, layer, row, first_column + n * 8 + lane % 4 * 2 + e % 2, sums[m][n][e]);
            }
}

#else

// A thread computes four by four.
KERNEL(linear, Linear, THREADS) {
    SHARED_MEMORY(memory);
    float *left = (float *)memory;
    float *right = left + ROWS * (DEPTH + 1);
    float *statistics = right + DEPTH * COLUMNS;
    u32 first_row = blockIdx.x * ROWS, tile = blockIdx.y;
    const Layer &layer = p.layers[layer_of(p, tile, COLUMNS)];
    u32 first_column = tile * COLUMNS, row = threadIdx.x / 16, column = threadIdx.x % 16;
#if PROLOGUE > 0
    measure(p, first_row, statistics);
    __syncthreads();
#endif

    float sums[4][4] = {};
    for (u32 depth = 0; depth < p.inputs; depth += DEPTH) {
        for (u32 i = threadIdx.x; i < ROWS * DEPTH; i += THREADS) {
            u32 r = i / DEPTH, c = depth + i % DEPTH;
            float x = 0.0f;
            if (first_row + r < p.rows && c < p.inputs) {
                float gate = 1.0f;
#if PROLOGUE == 2
                gate = number(p.gate.data[u64(first_row + r) * p.gate.stride + c]);
#endif
                x = prepared(p, statistics, r, c, number(p.x.data[u64(first_row + r) * p.x.stride + c]), gate);
            }
            left[r * (DEPTH + 1) + i % DEPTH] = x;
        }
        for (u32 i = threadIdx.x; i < DEPTH * COLUMNS; i += THREADS) {
            u32 r = depth + i / COLUMNS, c = first_column + i % COLUMNS;
            bool there = r < p.inputs && c < layer.cols;
            right[i] = there ? number(layer.weight.data[u64(r) * layer.weight.stride + c]) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (u32 k = 0; k < DEPTH; k++) {
            float a[4], b[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) a[i] = left[(row * 4 + i) * (DEPTH + 1) + k];
#pragma unroll
            for (u32 j = 0; j < 4; j++) b[j] = right[k * COLUMNS + column + 16 * j];
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
        for (u32 j = 0; j < 4; j++)
            finish(p, layer, first_row + row * 4 + i, first_column + column + 16 * j, sums[i][j]);
}

#endif
