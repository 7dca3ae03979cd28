// What linear layers on Hopper's tensor cores share: out = act(A·W + b) + residual, 128 rows and COLUMNS columns of one layer
// at a time, by eight warps, four by four, each four a half of the rows.
//
// One thread has the copy engine bring tiles into a ring of stages, those of the next columns while these are written.

#if !BF16 || (COLUMNS != 64 && COLUMNS != 128)
#error "not a variant of this kernel"
#endif

// Whether there may be a residual.
#ifndef RESIDUAL
#define RESIDUAL 0
#endif
#if RESIDUAL && ACTIVATION
#error "a residual is added before the activation"
#endif

constexpr u32 GROUP = 128; // threads whose four warps multiply together
constexpr u32 TEAM = 2 * GROUP;
constexpr u32 ROWS = 128, DEPTH = PANEL;
constexpr u32 LEFT = ROWS * PANEL_ROW, PANEL_BYTES = DEPTH * PANEL_ROW, RIGHT = COLUMNS / PANEL * PANEL_BYTES;

struct HopperLinear {
    // The left operand is read by the copy engine only where it is as it lies in memory.
    Map x, weights[4];
    Linear of;
};

// Where a tile is that a team computes.
struct Tile { u32 layer, row, column; };

// The tile of columns number `within`, of all layers.
DEVICE Tile tile_of(const Linear &p, u32 row, u32 within) {
    u32 layer = layer_of(p, within, COLUMNS);
    return {layer, row, within * COLUMNS};
}

DEVICE u32 row_tiles(const Linear &p) { return (p.rows + ROWS - 1) / ROWS; }
DEVICE u32 all_steps(const Linear &p) { return (p.inputs + DEPTH - 1) / DEPTH; }

template <typename Shared> DEVICE void ring_begins(Shared &shared) {
    for (u32 stage = 0; stage < STAGES; stage++) {
        barrier_begins(shared_address(&shared.full[stage]), 1);
        barrier_begins(shared_address(&shared.empty[stage]), TEAM / WARP);
    }
    barriers_begun();
}

// Waits until the stage of a load is free.
template <typename Shared> DEVICE u32 free_stage(Shared &shared, u32 load) {
    u32 stage = load % STAGES;
    wait_for_phase(shared_address(&shared.empty[stage]), (load / STAGES + 1) % 2);
    return stage;
}

DEVICE void copy_right(u32 to, const HopperLinear &p, const Tile &tile, u32 step, u32 full) {
    for (u32 panel = 0; panel < COLUMNS / PANEL; panel++)
        copy_panel(to + panel * PANEL_BYTES, p.weights[tile.layer], tile.column + panel * PANEL, step * DEPTH, full);
}

// Says that this warp needs the tiles of that load no more.
template <typename Shared> DEVICE void release(Shared &shared, u32 load) {
    if (threadIdx.x % WARP == 0) arrive(shared_address(&shared.empty[load % STAGES]));
}

typedef float Sums[COLUMNS / 8][4];

// The two bf16 of a register.
DEVICE float first_of(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float second_of(u32 pair) { return __uint_as_float(pair & 0xffff0000); }

// sums += A·W of the 64 rows of four warps, from load number `load` on; `left` gives where of a step and a stage the tile of
// A lies. The products of the last step are still under way.
template <typename Shared, typename Left>
DEVICE void begin_products(Shared &shared, Sums &sums, u32 load, u32 steps, Left left) {
    u32 half = threadIdx.x % TEAM / GROUP * (GROUP / 2) * PANEL_ROW;
    auto begin_step = [&](u32 step, u32 load) {
        u32 stage = load % STAGES;
        wait_for_phase(shared_address(&shared.full[stage]), load / STAGES % 2);
        u32 a = left(step, stage) + half, b = shared_address(shared.right[stage]);
        products_begin();
#pragma unroll
        for (u32 s = 0; s < DEPTH / 16; s++)
            multiply_by_rows(sums, operand(a + s * 32, 0), operand(b + s * 16 * PANEL_ROW, PANEL_BYTES), 1);
        products_committed();
    };
    computed_elsewhere(sums);
    // Apart from the loop, or the assembler waits for every product: others have written these sums.
    begin_step(0, load);
    for (u32 step = 1; step < steps; step++) {
        load++;
        begin_step(step, load);
        // The products of the step before are done when no more than these are under way.
        wait_for_products<1>();
        release(shared, load - 1);
    }
}

// Waits for the products of all steps, the last of which had load number `load`.
template <typename Shared> DEVICE void end_products(Shared &shared, Sums &sums, u32 load) {
    wait_for_products<0>();
    computed_elsewhere(sums);
    release(shared, load);
}

// Of four groups of eight columns, a thread of the four of a row has a pair of each; thread t gets all of group t, and the
// other way round.
DEVICE void turn(u32 (&x)[4]) {
    bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    u32 a = __shfl_xor_sync(ALL_LANES, high ? x[0] : x[2], 2), b = __shfl_xor_sync(ALL_LANES, high ? x[1] : x[3], 2);
    u32 own[2] = {high ? x[2] : x[0], high ? x[3] : x[1]};
    u32 c = __shfl_xor_sync(ALL_LANES, odd ? own[0] : own[1], 1), d = __shfl_xor_sync(ALL_LANES, odd ? a : b, 1);
    // Now own is of this thread, c of the one beside it, and the others of those two further.
    u32 mine = odd ? own[1] : own[0], further = odd ? b : a;
    u32 first[2] = {odd ? c : mine, odd ? mine : c}, second[2] = {odd ? d : further, odd ? further : d};
    for (u32 i = 0; i < 2; i++) x[i] = high ? second[i] : first[i], x[2 + i] = high ? first[i] : second[i];
}

// Where a thread has sums: two rows, the second eight below this one, of which it reads and writes eight columns of four
// groups at a time.
struct Part { u32 row, place; };

DEVICE Part part_of(const Tile &tile) {
    u32 lane = threadIdx.x % WARP;
    return {tile.row + threadIdx.x % TEAM / WARP * 16 + lane / 4, lane % 4};
}

// Sums begin with what is added to them: memory is waited for while others multiply.
DEVICE void begin_sums(Sums &sums, const Linear &p, const Tile &tile) {
    const Layer &layer = p.layers[tile.layer];
    Part part = part_of(tile);
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n++) {
        u32 column = tile.column + n * 8 + part.place * 2;
        float bias[2] = {};
        for (u32 e = 0; e < 2; e++)
            if (layer.bias && column + e < layer.cols) bias[e] = layer.bias[column + e];
        for (u32 e = 0; e < 4; e++) sums[n][e] = bias[e % 2];
    }
#if RESIDUAL
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n += 4)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 row = part.row + 8 * half, column = tile.column + (n + part.place) * 8;
            uint4 eight = {};
            if (row < p.rows && column < layer.cols)
                eight = *(const uint4 *)(p.residual.data + u64(row) * p.residual.stride + column);
            u32 pairs[4] = {eight.x, eight.y, eight.z, eight.w};
            turn(pairs);
            for (u32 i = 0; i < 4; i++) {
                sums[n + i][2 * half] += first_of(pairs[i]);
                sums[n + i][2 * half + 1] += second_of(pairs[i]);
            }
        }
#endif
}

DEVICE void finish(const Linear &p, const Tile &tile, const Sums &sums) {
    const Layer &layer = p.layers[tile.layer];
    Part part = part_of(tile);
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 row = part.row + 8 * half;
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n += 4) {
            u32 pairs[4], column = tile.column + (n + part.place) * 8;
            for (u32 i = 0; i < 4; i++)
                pairs[i] = pack(activate(sums[n + i][2 * half]), activate(sums[n + i][2 * half + 1]));
            turn(pairs);
            if (row < p.rows && column < layer.cols)
                *(uint4 *)(layer.out + u64(row) * layer.out_stride + column) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
}

// The block's memory, at a multiple of 1,024 bytes.
template <typename Shared> DEVICE Shared &aligned(u8 *memory) {
    u32 before = shared_address(memory) % 1024;
    return *reinterpret_cast<Shared *>(memory + (before ? 1024 - before : 0));
}
