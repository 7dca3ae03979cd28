// What kernels of attention share. The variant says:
//   DIM         columns of queries and keys of a head
//   VALUE_DIM   columns of its values
//   SOFTMAX     1: weights are the softmax of scores; 0: SiLU of scores and biases, divided (HSTU)
//   POSITIONED  1: scores have biases by position
//   TIMED       1: scores have biases by time
//   SHARED      bytes of shared memory of a block

// A matrix; its stride is in elements.
struct In { const Element *data; u32 stride; u32 unused; };
struct Out { Element *data; u32 stride; u32 unused; };

// The sum is a time; the first is a multiple of 256 s, so that differences are exact in whole seconds. Of an infinite
// time the first is infinite.
struct alignas(8) Seconds { float high, low; };

struct Attention {
    // Rows are events of the batch; of q and out, or those asked for.
    In q, k, v;
    Out out;
    // Keys and values of candidates.
    In own_k, own_v;
    // History and first row of each block; absent where rows are the last of one history, or candidates after it.
    const u32 *tiles;
    const u32 *offsets;
    // 2·known − 1 biases: number known − 1 + (j − i) for query i and key j.
    const float *positions;
    // Biases by time, where the buckets begin, and of every event its time and that of what comes after it.
    const float *buckets;
    const Seconds *begins, *times, *until;
    u32 rows, heads, known;
    // What scores are multiplied with before a softmax, or weights after SiLU.
    float factor;
};

// Below any score.
constexpr float LOWEST = -3e38f;

// e^(factor·(score − largest))
DEVICE float weight(float score, float largest, float factor) {
#if BF16
    constexpr float LOG2_E = 1.44269504f;
    return fast_exp2((score - largest) * (factor * LOG2_E));
#else
    return expf((score - largest) * factor);
#endif
}

constexpr u32 BUCKETS = 129;

struct Buckets {
    Seconds begins[BUCKETS];
    float biases[BUCKETS];
};

DEVICE void load_buckets(Buckets &to, const Attention &p) {
    for (u32 i = threadIdx.x; i < BUCKETS; i += blockDim.x) {
        to.begins[i] = p.begins[i];
        to.biases[i] = p.buckets[i];
    }
}

// The bucket of a difference in time, in either direction. The logarithm is right but next to where a bucket begins:
// what is compared is the difference with the nearest beginning.
DEVICE u32 time_bucket(const Buckets &buckets, Seconds until, Seconds time) {
    constexpr float PER_OCTAVE = 2.3028145f; // ln 2/0.301
    constexpr float ROUNDING = 8388608.0f;   // 2²³: the last bits of a sum with it are a whole number
    float high = until.high - time.high, low = until.low - time.low, seconds = high + low;
    if (seconds < 0.0f) high = -high, low = -low;
    // Below 1.35 s all is one bucket, and logarithms of more are far from the next.
    // The difference of two infinite times is no number, which ends in the last bucket: it stays none up to the whole
    // number, which is larger than any bucket, and is not below where that begins.
    float octaves = fast_log2(larger_or_none(fabsf(seconds), 1.1f));
    u32 nearest = __float_as_uint(fmaf(octaves, PER_OCTAVE, ROUNDING)) - __float_as_uint(ROUNDING);
    nearest = smaller(nearest, BUCKETS - 1);
    Seconds begin = buckets.begins[nearest];
    return (high - begin.high) + (low - begin.low) < 0.0f ? nearest - 1 : nearest;
}
