// What is done row by row: gathering vectors, norms, sums and products. A warp takes a row at a time.

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / WARP;

// A matrix; its stride is in elements.
struct In { const Element *data; u32 stride; u32 unused; };
struct Out { Element *data; u32 stride; u32 unused; };

// Numbers of 16 bytes; beyond the last column they are anything.
union Chunk { uint4 whole; Element of[CHUNK]; };

DEVICE Chunk load(const In &x, u32 row, u32 column) {
    Chunk chunk;
    chunk.whole = *(const uint4 *)(x.data + u64(row) * x.stride + column);
    return chunk;
}

DEVICE void store(const Out &to, u32 row, u32 column, const Chunk &chunk) {
    *(uint4 *)(to.data + u64(row) * to.stride + column) = chunk.whole;
}

struct Embed {
    In items, positions;
    const u32 *item_ids, *position_ids;
    Out out;
    u32 rows, cols;
    float scale;
    u32 unused;
};

// out = scale·items[item] + positions[position]
KERNEL(embed, Embed, THREADS) {
    u32 lane = threadIdx.x % WARP;
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS) {
        u32 item = p.item_ids[row], position = p.position_ids[row];
        for (u32 c = lane * CHUNK; c < p.cols; c += WARP * CHUNK) {
            Chunk x = load(p.items, item, c), y = load(p.positions, position, c);
#pragma unroll
            for (u32 e = 0; e < CHUNK; e++) store(x.of[e], fmaf(number(x.of[e]), p.scale, number(y.of[e])));
            store(p.out, row, c, x);
        }
    }
}

struct Norm {
    // The gate, where there is one.
    In x, gate;
    Out out;
    // Absent in affine-free norms.
    const float *weight, *bias;
    u32 rows, cols;
    float eps;
    u32 unused;
};

// out = (x − mean)/√(variance + eps)·weight + bias, times the gate
KERNEL(layer_norm, Norm, THREADS) {
    u32 lane = threadIdx.x % WARP;
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS) {
        float sum = 0.0f, squares = 0.0f;
        for (u32 first = lane * CHUNK; first < p.cols; first += WARP * CHUNK) {
            Chunk x = load(p.x, row, first);
#pragma unroll
            for (u32 e = 0; e < CHUNK; e++) sum += first + e < p.cols ? number(x.of[e]) : 0.0f;
        }
        float mean = warp_sum(sum) / float(p.cols);
        for (u32 first = lane * CHUNK; first < p.cols; first += WARP * CHUNK) {
            Chunk x = load(p.x, row, first);
#pragma unroll
            for (u32 e = 0; e < CHUNK; e++) {
                float distance = first + e < p.cols ? number(x.of[e]) - mean : 0.0f;
                squares = fmaf(distance, distance, squares);
            }
        }
        float factor = 1.0f / sqrtf(warp_sum(squares) / float(p.cols) + p.eps);
        for (u32 first = lane * CHUNK; first < p.cols; first += WARP * CHUNK) {
            Chunk x = load(p.x, row, first), gate = {};
            if (p.gate.data) gate = load(p.gate, row, first);
#pragma unroll
            for (u32 e = 0; e < CHUNK; e++) {
                float y = (number(x.of[e]) - mean) * factor;
                u32 c = smaller(first + e, p.cols - 1);
                if (p.weight) y *= p.weight[c];
                if (p.bias) y += p.bias[c];
                if (p.gate.data) y *= number(gate.of[e]);
                store(x.of[e], y);
            }
            store(p.out, row, first, x);
        }
    }
}

// Rows divided by their length, or by eps where they are shorter.
KERNEL(l2_normalize, Norm, THREADS) {
    u32 lane = threadIdx.x % WARP;
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS) {
        const Element *x = p.x.data + u64(row) * p.x.stride;
        Element *out = p.out.data + u64(row) * p.out.stride;
        float squares = 0.0f;
        for (u32 c = lane; c < p.cols; c += WARP) squares = fmaf(number(x[c]), number(x[c]), squares);
        float length = fmaxf(sqrtf(warp_sum(squares)), p.eps);
        for (u32 c = lane; c < p.cols; c += WARP) store(out[c], number(x[c]) / length);
    }
}

struct Pairs {
    In x, y;
    Out out;
    u32 rows, cols;
};

// out = x + y
KERNEL(add, Pairs, THREADS) {
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS)
        for (u32 c = threadIdx.x % WARP * CHUNK; c < p.cols; c += WARP * CHUNK) {
            Chunk x = load(p.x, row, c), y = load(p.y, row, c);
#pragma unroll
            for (u32 e = 0; e < CHUNK; e++) store(x.of[e], number(x.of[e]) + number(y.of[e]));
            store(p.out, row, c, x);
        }
}

// out = x·y
KERNEL(multiply, Pairs, THREADS) {
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS)
        for (u32 c = threadIdx.x % WARP * CHUNK; c < p.cols; c += WARP * CHUNK) {
            Chunk x = load(p.x, row, c), y = load(p.y, row, c);
#pragma unroll
            for (u32 e = 0; e < CHUNK; e++) store(x.of[e], number(x.of[e]) * number(y.of[e]));
            store(p.out, row, c, x);
        }
}

struct Last {
    In x;
    Out out;
    const u32 *offsets;
    u32 histories, cols;
};

// The last row of each history.
KERNEL(last_rows, Last, THREADS) {
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.histories; row += gridDim.x * WARPS) {
        const Element *x = p.x.data + u64(p.offsets[row + 1] - 1) * p.x.stride;
        for (u32 c = threadIdx.x % WARP; c < p.cols; c += WARP) p.out.data[u64(row) * p.out.stride + c] = x[c];
    }
}
