// Linear layers on Hopper's tensor cores, of many rows as they lie in memory. Two blocks share a multiprocessor: while one
// writes, the other multiplies.

constexpr u32 THREADS = TEAM + WARP;

struct alignas(1024) Shared {
    u8 left[STAGES][LEFT], right[STAGES][RIGHT];
    alignas(8) u64 full[STAGES], empty[STAGES];
};

static_assert(sizeof(Shared) + 1024 <= SHARED, "shared memory");

// Those of one row come one after the other, and so to blocks that run together.
DEVICE Tile tile_number(const Linear &p, u32 number) { return tile_of(p, number / p.tiles * ROWS, number % p.tiles); }

DEVICE u32 all_tiles(const Linear &p) { return row_tiles(p) * p.tiles; }

// Tile by tile, and of each step by step, whatever becomes of those before.
DEVICE void bring(Shared &shared, const HopperLinear &p) {
    u32 load = 0;
    for (u32 number = blockIdx.x; number < all_tiles(p.of); number += gridDim.x) {
        Tile tile = tile_number(p.of, number);
        for (u32 step = 0; step < all_steps(p.of); step++, load++) {
            u32 stage = free_stage(shared, load), full = shared_address(&shared.full[stage]);
            expect(full, LEFT + RIGHT);
            copy_panel(shared_address(shared.left[stage]), p.x, step * DEPTH, tile.row, full);
            copy_right(shared_address(shared.right[stage]), p, tile, step, full);
            arrive(full);
        }
    }
}

KERNEL(hopper_linear, HopperLinear, THREADS) {
    SHARED_MEMORY(memory);
    Shared &shared = aligned<Shared>(memory);
    if (threadIdx.x == 0) ring_begins(shared);
    __syncthreads();
    if (threadIdx.x >= TEAM) {
        if (threadIdx.x == TEAM) bring(shared, p);
        return;
    }
    u32 load = 0, steps = all_steps(p.of);
    for (u32 number = blockIdx.x; number < all_tiles(p.of); number += gridDim.x, load += steps) {
        Tile tile = tile_number(p.of, number);
        Sums sums;
        begin_sums(sums, p.of, tile);
        begin_products(shared, sums, load, steps, [&](u32, u32 stage) { return shared_address(shared.left[stage]); });
        end_products(shared, sums, load + steps - 1);
        finish(p.of, tile, sums);
    }
}
