// Linear layers of normalised rows, times a gate where there is one, on Hopper's tensor cores: out = act(LN(x)·W + b), or
// (LN(x)·gate)·W + b + residual.
//
// Tiles of both operands, brought for every tile of columns, are more than shared memory takes beside the products. A block
// therefore normalises 128 rows into its own memory and keeps them there, while the weights of all columns of all layers go
// past. Two teams take the tiles of columns in turns: while one writes, the other multiplies.

#if LEFT_PANELS != 1 && LEFT_PANELS != 2 && LEFT_PANELS != 4 && LEFT_PANELS != 8
#error "not a variant of this kernel"
#endif

// Two teams have more registers than a block of that size starts with, which takes four warps that give theirs.
constexpr bool SHIFTED = TEAMS == 2;
constexpr u32 COMPUTING = TEAMS * TEAM, THREADS = COMPUTING + (SHIFTED ? GROUP : WARP);

struct alignas(1024) Shared {
    u8 left[LEFT_PANELS][LEFT], right[STAGES][RIGHT];
    alignas(8) u64 full[STAGES], empty[STAGES];
};

static_assert(sizeof(Shared) + 1024 <= SHARED, "shared memory");

// For every tile of rows all weights, whatever becomes of those before.
DEVICE void bring(Shared &shared, const HopperLinear &p) {
    u32 load = 0;
    for (u32 rows = blockIdx.x; rows < row_tiles(p.of); rows += gridDim.x)
        for (u32 number = 0; number < p.of.tiles; number++) {
            Tile tile = tile_of(p.of, rows * ROWS, number);
            for (u32 step = 0; step < all_steps(p.of); step++, load++) {
                u32 stage = free_stage(shared, load), full = shared_address(&shared.full[stage]);
                expect(full, RIGHT);
                copy_right(shared_address(shared.right[stage]), p, tile, step, full);
                arrive(full);
            }
        }
}

// Lanes that share a row, each with so many chunks of it, and rows of a warp at a time.
constexpr u32 CHUNKS = LEFT_PANELS * PANEL / CHUNK, LANES = CHUNKS < WARP ? CHUNKS : WARP;
constexpr u32 HELD = CHUNKS / LANES, TOGETHER = WARP / LANES;
constexpr u32 TURNS = ROWS / (COMPUTING / WARP) / TOGETHER, LOADED = TURNS < 4 ? TURNS : 4;
static_assert(TURNS % LOADED == 0, "turns that are loaded together");

// Pairs of numbers as they lie in memory.
union Held { uint4 chunks[HELD]; u32 pairs[HELD * CHUNK / 2]; };

DEVICE u32 column_of(u32 held) { return (threadIdx.x % LANES + held * LANES) * CHUNK; }

// Zeros stand for what is not there.
DEVICE void load_row(Held &to, const In &x, u32 row, const Linear &p) {
#pragma unroll
    for (u32 h = 0; h < HELD; h++) {
        u32 column = column_of(h);
        to.chunks[h] = {};
        if (row >= p.rows || column >= p.inputs) continue;
        to.chunks[h] = *(const uint4 *)(x.data + u64(row) * x.stride + column);
        if (column + CHUNK <= p.inputs) continue;
        for (u32 e = 0; e < CHUNK; e++)
            if (column + e >= p.inputs) to.pairs[(h * CHUNK + e) / 2] &= e % 2 ? 0xffff : 0;
    }
}

DEVICE float row_sum(float x) {
#pragma unroll
    for (u32 step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// As rows.cu has it, with zeros beyond the last column.
DEVICE void normalize_row(Held &x, const Held &gate, const Linear &p) {
    constexpr u32 NUMBERS = HELD * CHUNK;
    float y[NUMBERS], sum = 0.0f, squares = 0.0f, part = 1.0f / float(p.inputs);
#pragma unroll
    for (u32 i = 0; i < NUMBERS; i += 2) {
        y[i] = first_of(x.pairs[i / 2]), y[i + 1] = second_of(x.pairs[i / 2]);
        sum += y[i] + y[i + 1];
    }
    float mean = row_sum(sum) * part;
#pragma unroll
    for (u32 i = 0; i < NUMBERS; i++) y[i] -= mean;
    // Columns beyond the last would count as that far from the mean.
    if (column_of(HELD - 1) + CHUNK > p.inputs) {
#pragma unroll
        for (u32 i = 0; i < NUMBERS; i++)
            if (column_of(i / CHUNK) + i % CHUNK >= p.inputs) y[i] = 0.0f;
    }
#pragma unroll
    for (u32 i = 0; i < NUMBERS; i++) squares = fmaf(y[i], y[i], squares);
    float factor = rsqrtf(row_sum(squares) * part + p.eps);
#pragma unroll
    for (u32 i = 0; i < NUMBERS; i++) y[i] *= factor;
    if (p.norm_weight || p.norm_bias) {
#pragma unroll
        for (u32 i = 0; i < NUMBERS; i++) {
            u32 column = column_of(i / CHUNK) + i % CHUNK;
            if (column >= p.inputs) continue;
            if (p.norm_weight) y[i] *= p.norm_weight[column];
            if (p.norm_bias) y[i] += p.norm_bias[column];
        }
    }
#pragma unroll
    for (u32 i = 0; i < NUMBERS; i += 2) {
#if PROLOGUE == 2
        y[i] *= first_of(gate.pairs[i / 2]), y[i + 1] *= second_of(gate.pairs[i / 2]);
#endif
        x.pairs[i / 2] = pack(y[i], y[i + 1]);
    }
}

// Rows of a warp that are on their way together.
struct Rows { Held x[LOADED], gate[LOADED]; };

// The row within a tile that this lane has its part of, number `turn` of its warp.
DEVICE u32 row_of(u32 turn) { return (threadIdx.x / WARP * TURNS + turn) * TOGETHER + threadIdx.x % WARP / LANES; }

DEVICE void load_rows(Rows &to, const Linear &p, u32 first, u32 turn) {
#pragma unroll
    for (u32 i = 0; i < LOADED; i++) {
        load_row(to.x[i], p.x, first + row_of(turn + i), p);
#if PROLOGUE == 2
        load_row(to.gate[i], p.gate, first + row_of(turn + i), p);
#endif
    }
}

DEVICE void store_rows(Shared &shared, Rows &rows, const Linear &p, u32 turn) {
#pragma unroll
    for (u32 i = 0; i < LOADED; i++) {
        normalize_row(rows.x[i], rows.gate[i], p);
#pragma unroll
        for (u32 h = 0; h < HELD; h++) {
            u32 chunk = column_of(h) / CHUNK, row = row_of(turn + i), within = chunk % (PANEL / CHUNK) ^ row % 8;
            *(uint4 *)(shared.left[chunk / (PANEL / CHUNK)] + row * PANEL_ROW + within * 16) = rows.x[i].chunks[h];
        }
    }
}

// 128 rows from `first` on become left operands, once all threads are done with those before.
DEVICE void normalize(Shared &shared, const Linear &p, u32 first) {
    Rows rows;
    load_rows(rows, p, first, 0);
    meet(1, COMPUTING);
    for (u32 turn = 0;; turn += LOADED) {
        store_rows(shared, rows, p, turn);
        if (turn + LOADED == TURNS) break;
        load_rows(rows, p, first, turn + LOADED);
    }
    written_for_products();
    meet(1, COMPUTING);
}

// Tile by tile the turn goes from team to team: the stages are filled in the order of the tiles.
DEVICE void wait_for_turn(u32 team, u32 tile) {
    if (TEAMS > 1 && tile > 0) meet(2 + team, 2 * TEAM);
}
DEVICE void give_turn(u32 team) {
    if (TEAMS > 1) pass(2 + (team + 1) % TEAMS, 2 * TEAM);
}

DEVICE void compute(Shared &shared, const Linear &p) {
    u32 team = threadIdx.x / TEAM, steps = all_steps(p), before = 0;
    for (u32 rows = blockIdx.x; rows < row_tiles(p); rows += gridDim.x, before += p.tiles) {
        normalize(shared, p, rows * ROWS);
        for (u32 number = (team + before) % TEAMS; number < p.tiles; number += TEAMS) {
            Tile tile = tile_of(p, rows * ROWS, number);
            u32 load = (before + number) * steps;
            Sums sums;
            begin_sums(sums, p, tile);
            wait_for_turn(team, before + number);
            begin_products(shared, sums, load, steps,
                           [&](u32 step, u32) { return shared_address(shared.left[step]); });
            give_turn(team);
            end_products(shared, sums, load + steps - 1);
            finish(p, tile, sums);
        }
    }
}

KERNEL(hopper_norm_linear, HopperLinear, THREADS) {
    SHARED_MEMORY(memory);
    Shared &shared = aligned<Shared>(memory);
    if (threadIdx.x == 0) ring_begins(shared);
    __syncthreads();
    if (threadIdx.x < COMPUTING) {
        if constexpr (SHIFTED) take_registers<112>();
        compute(shared, p.of);
    } else {
        if constexpr (SHIFTED) give_registers<32>();
        if (threadIdx.x == COMPUTING) bring(shared, p);
    }
}
