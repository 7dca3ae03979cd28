// What is done row by row: gathering vectors, norms, sums and products. A warp takes a row at a time.

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / WARP;

// A matrix; its stride is in elements.
struct In { const Element *data; u32 stride; u32 unused; };
struct Out { Element *data; u32 stride; u32 unused; };

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
        const Element *item = p.items.data + u64(p.item_ids[row]) * p.items.stride;
        const Element *position = p.positions.data + u64(p.position_ids[row]) * p.positions.stride;
        Element *out = p.out.data + u64(row) * p.out.stride;
        for (u32 c = lane; c < p.cols; c += WARP) store(out[c], fmaf(number(item[c]), p.scale, number(position[c])));
    }
}

struct Norm {
    In x;
    Out out;
    // Absent in affine-free norms.
    const float *weight, *bias;
    u32 rows, cols;
    float eps;
    u32 unused;
};

// out = (x − mean)/√(variance + eps)·weight + bias
KERNEL(layer_norm, Norm, THREADS) {
    u32 lane = threadIdx.x % WARP;
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS) {
        const Element *x = p.x.data + u64(row) * p.x.stride;
        Element *out = p.out.data + u64(row) * p.out.stride;
        float sum = 0.0f, squares = 0.0f;
        for (u32 c = lane; c < p.cols; c += WARP) sum += number(x[c]);
        float mean = warp_sum(sum) / float(p.cols);
        for (u32 c = lane; c < p.cols; c += WARP) {
            float distance = number(x[c]) - mean;
            squares = fmaf(distance, distance, squares);
        }
        float factor = 1.0f / sqrtf(warp_sum(squares) / float(p.cols) + p.eps);
        for (u32 c = lane; c < p.cols; c += WARP) {
            float y = (number(x[c]) - mean) * factor;
            if (p.weight) y *= p.weight[c];
            if (p.bias) y += p.bias[c];
            store(out[c], y);
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
        for (u32 c = threadIdx.x % WARP; c < p.cols; c += WARP) {
            float x = number(p.x.data[u64(row) * p.x.stride + c]), y = number(p.y.data[u64(row) * p.y.stride + c]);
            store(p.out.data[u64(row) * p.out.stride + c], x + y);
        }
}

// out = x·y
KERNEL(multiply, Pairs, THREADS) {
    for (u32 row = blockIdx.x * WARPS + threadIdx.x / WARP; row < p.rows; row += gridDim.x * WARPS)
        for (u32 c = threadIdx.x % WARP; c < p.cols; c += WARP) {
            float x = number(p.x.data[u64(row) * p.x.stride + c]), y = number(p.y.data[u64(row) * p.y.stride + c]);
            store(p.out.data[u64(row) * p.out.stride + c], x * y);
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
