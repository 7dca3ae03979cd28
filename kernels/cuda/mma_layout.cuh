// How sums of products on tensor cores lie in threads, those of one warp's mma.sync and of four warps' wgmma alike: a
// warp has 16 rows, four threads share a row, and threads from FIRST_THREAD on compute.
// The variant says, besides what attention.cuh asks for:
//   ROWS          rows of a block
//   KEYS          keys of a tile
//   FIRST_THREAD  the first thread that computes

DEVICE constexpr u32 padded(u32 cols, u32 multiple) { return (cols + multiple - 1) / multiple * multiple; }
constexpr u32 WARP_ROWS = 16;
constexpr u32 WIDTH = padded(DIM, 16);
constexpr u32 VALUE_WIDTH = padded(VALUE_DIM, BF16 ? 16 : 32);

#if BF16
constexpr u32 ROWS_HELD = 2, ROW_STEP = 8, LANES = 4;
constexpr u32 KEYS_HELD = KEYS / LANES, VALUES_HELD = VALUE_WIDTH / LANES;

typedef float Scores[KEYS / 8][4];
typedef float Sums[VALUE_WIDTH / 8][4];

DEVICE u32 row_held(u32 i) {
    return (threadIdx.x - FIRST_THREAD) / WARP * WARP_ROWS + threadIdx.x % WARP / LANES + ROW_STEP * i;
}
DEVICE constexpr u32 key_after(u32 c) { return c / 2 * 8 + c % 2; }
DEVICE u32 key_held(u32 c) { return threadIdx.x % LANES * 2 + key_after(c); }
DEVICE u32 value_held(u32 c) { return key_held(c); }
template <u32 N> DEVICE float &at(float (&x)[N][4], u32 i, u32 c) { return x[c / 2][i * 2 + c % 2]; }
#endif
