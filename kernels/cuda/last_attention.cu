// Attention of the last event of each history: a block for one head of one history.
//
// It goes through the keys 128 at a time, one a thread; then each warp adds up the values of a fourth of them, a lane to
// every 32nd column.

constexpr u32 THREADS = 128;
constexpr u32 WARPS = THREADS / WARP;
constexpr u32 COLUMNS = (VALUE_DIM + WARP - 1) / WARP;

struct Shared {
    float query[DIM];
    float weights[THREADS];
    float parts[WARPS][VALUE_DIM];
    float largest[WARPS];
#if TIMED
    Buckets buckets;
#endif
};

static_assert(sizeof(Shared) <= SHARED, "shared memory");

DEVICE float block_max(float x, float *parts) {
    for (u32 step = 1; step < WARP; step *= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    for (u32 warp = 0; warp < WARPS; warp++) x = fmaxf(x, parts[warp]);
    return x;
}

KERNEL(last_attention, Attention, THREADS) {
    SHARED_MEMORY(memory);
    Shared &shared = *reinterpret_cast<Shared *>(memory);
    u32 history = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 start = p.offsets[history], len = p.offsets[history + 1] - start;
    for (u32 c = threadIdx.x; c < DIM; c += THREADS)
        shared.query[c] = number(p.q.data[u64(history) * p.q.stride + head * DIM + c]);
#if TIMED
    load_buckets(shared.buckets, p);
    Seconds until = p.until[start + len - 1];
#endif
    __syncthreads();

    float sums[COLUMNS] = {}, largest = LOWEST, total = 0.0f;
    for (u32 first = 0; first < len; first += THREADS) {
        u32 key = first + threadIdx.x;
        float score = LOWEST;
        if (key < len) {
            const Element *k = p.k.data + u64(start + key) * p.k.stride + head * DIM;
            score = 0.0f;
            for (u32 c = 0; c < DIM; c++) score = fmaf(shared.query[c], number(k[c]), score);
        }
#if SOFTMAX
        float before = largest;
        largest = block_max(fmaxf(largest, score), shared.largest);
        float own = key < len ? weight(score, largest, p.factor) : 0.0f;
        before = weight(before, largest, p.factor);
        total *= before;
        for (u32 c = 0; c < COLUMNS; c++) sums[c] *= before;
#else
        float own = 0.0f;
        if (key < len) {
#if POSITIONED
            score += p.positions[p.known + key - len];
#endif
#if TIMED
            score += shared.buckets.biases[time_bucket(shared.buckets, until, p.times[start + key])];
#endif
            own = silu(score) * p.factor;
        }
#endif
        shared.weights[threadIdx.x] = own;
        __syncthreads();
        u32 keys = smaller(THREADS, len - first);
        for (u32 i = warp; i < keys; i += WARPS) {
            const Element *v = p.v.data + u64(start + first + i) * p.v.stride + head * VALUE_DIM;
            float by = shared.weights[i];
            total += by;
#pragma unroll
            for (u32 c = 0; c < COLUMNS; c++) {
                u32 column = c * WARP + lane;
                if (column < VALUE_DIM) sums[c] = fmaf(by, number(v[column]), sums[c]);
            }
        }
        __syncthreads();
    }
    for (u32 c = 0; c < COLUMNS; c++)
        if (c * WARP + lane < VALUE_DIM) shared.parts[warp][c * WARP + lane] = sums[c];
    if (lane == 0) shared.largest[warp] = total;
    __syncthreads();
    float all = 0.0f;
    for (u32 w = 0; w < WARPS; w++) all += shared.largest[w];
    for (u32 c = threadIdx.x; c < VALUE_DIM; c += THREADS) {
        float sum = 0.0f;
        for (u32 w = 0; w < WARPS; w++) sum += shared.parts[w][c];
        store(p.out.data[u64(history) * p.out.stride + head * VALUE_DIM + c], SOFTMAX ? sum / all : sum);
    }
}
