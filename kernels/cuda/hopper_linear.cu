// Linear layers on Hopper's tensor cores, of many rows: out = act(A·W + b) + residual, 128 rows and COLUMNS columns of one
// layer at a time. Two blocks share a multiprocessor: while one writes, the other multiplies.
//
// One thread has the copy engine bring tiles of A and of W into a ring of stages, those of the next columns while these are
// written. Eight warps compute, four by four, each four a half of the rows.

#if !BF16 || (COLUMNS != 64 && COLUMNS != 128)
#error "not a variant of this kernel"
#endif

constexpr u32 GROUP = 128; // threads whose four warps multiply together
constexpr u32 COMPUTING = 2 * GROUP, THREADS = COMPUTING + WARP;
constexpr u32 ROWS = 128, DEPTH = PANEL;
constexpr u32 LEFT = ROWS * PANEL_ROW, PANEL_BYTES = DEPTH * PANEL_ROW, RIGHT = COLUMNS / PANEL * PANEL_BYTES;

struct alignas(1024) Shared {
    u8 left[STAGES][LEFT], right[STAGES][RIGHT];
    alignas(8) u64 full[STAGES], empty[STAGES];
};

static_assert(sizeof(Shared) + 1024 <= SHARED, "shared memory");

struct HopperLinear {
    Map x, weights[4];
    Linear of;
};

// Where a tile is that a block computes. Those of one row come one after the other, and so to blocks that run together.
struct Tile { u32 layer, row, column; };

DEVICE Tile tile_of(const Linear &p, u32 number) {
    u32 within = number % p.tiles, layer = layer_of(p, within, COLUMNS);
    return {layer, number / p.tiles * ROWS, within * COLUMNS};
}

DEVICE u32 all_tiles(const Linear &p) { return (p.rows + ROWS - 1) / ROWS * p.tiles; }
DEVICE u32 all_steps(const Linear &p) { return (p.inputs + DEPTH - 1) / DEPTH; }

// Tile by tile, and of each step by step, whatever becomes of those before.
DEVICE void bring(Shared &shared, const HopperLinear &p) {
    u32 load = 0;
    for (u32 number = blockIdx.x; number < all_tiles(p.of); number += gridDim.x) {
        Tile tile = tile_of(p.of, number);
        const Map &weight = p.weights[tile.layer];
        for (u32 step = 0; step < all_steps(p.of); step++, load++) {
            u32 stage = load % STAGES, full = shared_address(&shared.full[stage]);
            wait_for_phase(shared_address(&shared.empty[stage]), (load / STAGES + 1) % 2);
            expect(full, LEFT + RIGHT);
            copy_panel(shared_address(shared.left[stage]), p.x, step * DEPTH, tile.row, full);
            for (u32 panel = 0; panel < COLUMNS / PANEL; panel++)
                copy_panel(shared_address(shared.right[stage]) + panel * PANEL_BYTES, weight,
                           tile.column + panel * PANEL, step * DEPTH, full);
            arrive(full);
        }
    }
}

// Says that this warp needs the tiles of that load no more.
DEVICE void release(Shared &shared, u32 load) {
    if (threadIdx.x % WARP == 0) arrive(shared_address(&shared.empty[load % STAGES]));
}

typedef float Sums[COLUMNS / 8][4];

// sums = A·W of the 64 rows of four warps, from load number `load` on.
DEVICE void multiply_all(Shared &shared, Sums &sums, u32 load, u32 steps) {
    u32 half = threadIdx.x / GROUP * (GROUP / 2) * PANEL_ROW;
    for (u32 step = 0; step < steps; step++, load++) {
        u32 stage = load % STAGES;
        wait_for_phase(shared_address(&shared.full[stage]), load / STAGES % 2);
        u32 left = shared_address(shared.left[stage]) + half, right = shared_address(shared.right[stage]);
        computed_elsewhere(sums);
        products_begin();
#pragma unroll
        for (u32 s = 0; s < DEPTH / 16; s++)
            multiply_by_rows(sums, operand(left + s * 32, 0), operand(right + s * 16 * PANEL_ROW, PANEL_BYTES),
                             step + s > 0);
        products_committed();
        // The products of the step before are done when no more than these are under way.
        wait_for_products<1>();
        if (step > 0) release(shared, load - 1);
    }
    wait_for_products<0>();
    computed_elsewhere(sums);
    if (steps > 0) release(shared, load - 1);
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

DEVICE void finish(const Linear &p, const Tile &tile, const Sums &sums) {
    const Layer &layer = p.layers[tile.layer];
    u32 lane = threadIdx.x % WARP, place = lane % 4;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 row = tile.row + threadIdx.x / WARP * 16 + lane / 4 + 8 * half;
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n += 4) {
            u32 own = tile.column + (n + place) * 8, residual[4] = {}, pairs[4];
            bool there = row < p.rows && own < layer.cols;
            if (p.residual.data) {
                uint4 eight = {};
                if (there) eight = *(const uint4 *)(p.residual.data + u64(row) * p.residual.stride + own);
                residual[0] = eight.x, residual[1] = eight.y, residual[2] = eight.z, residual[3] = eight.w;
                turn(residual);
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 column = tile.column + (n + i) * 8 + place * 2;
                float x[2] = {sums[n + i][2 * half], sums[n + i][2 * half + 1]};
                for (u32 e = 0; e < 2; e++) {
                    if (layer.bias && column + e < layer.cols) x[e] += layer.bias[column + e];
                    x[e] = activate(x[e]) + number(bf16{u16(residual[i] >> (16 * e))});
                }
                pairs[i] = pack(x[0], x[1]);
            }
            turn(pairs);
            if (there)
                *(uint4 *)(layer.out + u64(row) * layer.out_stride + own) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
}

KERNEL(hopper_linear, HopperLinear, THREADS) {
    SHARED_MEMORY(memory);
    u32 before = shared_address(memory) % 1024;
    Shared &shared = *reinterpret_cast<Shared *>(memory + (before ? 1024 - before : 0));
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; stage++) {
            barrier_begins(shared_address(&shared.full[stage]), 1);
            barrier_begins(shared_address(&shared.empty[stage]), COMPUTING / WARP);
        }
        barriers_begun();
    }
    __syncthreads();
    if (threadIdx.x >= COMPUTING) {
        if (threadIdx.x == COMPUTING) bring(shared, p);
        return;
    }
    u32 load = 0;
    for (u32 number = blockIdx.x; number < all_tiles(p.of); number += gridDim.x, load += all_steps(p.of)) {
        Sums sums = {};
        multiply_all(shared, sums, load, all_steps(p.of));
        finish(p.of, tile_of(p.of, number), sums);
    }
}
