// A graphics processor of one thread: what kernels need to run as C++ on any machine, for tests.
//
// The threads of a block are contexts that this thread goes through; each runs until it waits for its warp or its
// block. Of the ready ones the next is drawn by lot, so that what a missing barrier lets happen happens. Blocks run one
// after the other. Shared memory begins as numbers that are none, and so do the copies under way until they are waited
// for: an asynchronous copy happens when its thread waits for it, as late as it may on a device; so do products of four
// warps, and copies of the copy engine happen when nothing else can.
// What a collective instruction gives is computed when the last lane of its warp has come to it.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>
#include <ucontext.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

namespace emulated {

struct Index { u32 x = 0, y = 0, z = 0; };

struct Copy { u32 to; u8 bytes[16]; const void *from; bool there; };

// A product of 16 columns with n: a lane's part of the sums, and of the left operand where it is in registers; whether
// rows of the right one are what is summed over.
struct Product { float *sums; u32 n; bool held; u32 left[4]; u64 a, b; bool more, by_rows; };

// A barrier in shared memory: what its phase still waits for.
struct Barrier { u32 arrivals, missing; int64_t bytes; u32 phase; };

struct PanelCopy { u32 to; const u64 *map; int64_t column, row; u32 barrier; };

enum class Waits { nothing, warp, block, phase, gone };

struct Thread {
    ucontext_t context;
    std::unique_ptr<u8[]> stack;
    Index index;
    Waits waits;
    // The collective it waits for: what it gives to it, where the answer goes, which one it is and of how many lanes.
    const void *kind;
    u32 lanes;
    u64 given[4];
    u64 answer[4];
    std::vector<std::vector<Copy>> groups;
    std::vector<std::vector<Product>> products;
    // The barrier and the parity of the phase it waits for.
    u32 barrier, parity;
};

constexpr size_t STACK = 64 << 10;

inline Index block_index, grid_size, block_size;
inline std::vector<Thread> threads;
inline Thread *here = nullptr;
inline ucontext_t scheduler;
inline std::vector<u8> shared;
inline u64 lot = 1;
inline const std::function<void()> *body = nullptr;
inline std::map<u32, Barrier> barriers;
inline std::vector<PanelCopy> panel_copies;

inline u32 bits(float x) { u32 r; memcpy(&r, &x, 4); return r; }
inline float bits_to_float(u32 x) { float r; memcpy(&r, &x, 4); return r; }
inline u16 round_bf16(float x) {
    u32 b = bits(x);
    if ((b & 0x7fffffff) > 0x7f800000) return u16(b >> 16 | 0x40);
    return u16((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

[[noreturn]] inline void fault(const char *what) {
    fprintf(stderr, "emulated kernel: %s (block %u,%u,%u thread %u)\n", what, block_index.x, block_index.y, block_index.z,
            here ? here->index.x : 0);
    abort();
}

inline u32 draw(u32 below) {
    lot ^= lot << 13; lot ^= lot >> 7; lot ^= lot << 17;
    return u32(lot % below);
}

inline void wait_for(Waits what) {
    here->waits = what;
    swapcontext(&here->context, &scheduler);
}

inline void enter() {
    (*body)();
    if (!here->groups.empty() && !here->groups.back().empty()) fault("a copy that nobody waits for");
    for (const auto &group : here->products) if (!group.empty()) fault("a product that nobody waits for");
    here->waits = Waits::gone;
    swapcontext(&here->context, &scheduler);
}

// A lane's part in a collective: what lanes give is laid out by lane, and `compute` fills in all their answers.
typedef void (*Compute)(Thread **lanes);

inline void collective(Compute compute, u32 lanes = 32) {
    here->kind = reinterpret_cast<const void *>(compute);
    here->lanes = lanes;
    wait_for(Waits::warp);
}

// Goes on with a collective if all its lanes have come, of which `first` is that of a warp.
inline void release(u32 first) {
    u32 count = 32;
    for (u32 t = first; t < first + 32; t++)
        if (threads[t].waits == Waits::warp) count = threads[t].lanes;
    first = first / count * count;
    Thread *lanes[128];
    u32 come = 0, gone = 0;
    for (u32 lane = 0; lane < count; lane++) {
        lanes[lane] = &threads[first + lane];
        come += lanes[lane]->waits == Waits::warp;
        gone += lanes[lane]->waits == Waits::gone;
    }
    if (come > 0 && gone > 0) fault("a lane is gone that others wait for");
    if (come < count) return;
    for (u32 lane = 0; lane < count; lane++)
        if (lanes[lane]->kind != lanes[0]->kind) fault("lanes at different instructions");
    auto compute = reinterpret_cast<Compute>(const_cast<void *>(lanes[0]->kind));
    compute(lanes);
    for (u32 lane = 0; lane < count; lane++) lanes[lane]->waits = Waits::nothing;
}

inline void copy_one_panel();
inline bool has_ended(u32 barrier, u32 parity);

inline void run_block() {
    u32 count = block_size.x;
    barriers.clear();
    panel_copies.clear();
    for (auto &t : threads) {
        t.waits = Waits::nothing;
        t.groups.clear();
        t.products.clear();
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack.get();
        t.context.uc_stack.ss_size = STACK;
        t.context.uc_link = nullptr;
        makecontext(&t.context, enter, 0);
    }
    std::vector<u32> ready(count);
    for (;;) {
        ready.clear();
        u32 gone = 0, at_barrier = 0;
        for (u32 t = 0; t < count; t++) {
            Thread &thread = threads[t];
            if (thread.waits == Waits::phase && has_ended(thread.barrier, thread.parity)) thread.waits = Waits::nothing;
            gone += thread.waits == Waits::gone;
            at_barrier += thread.waits == Waits::block;
            if (thread.waits == Waits::nothing) ready.push_back(t);
        }
        if (gone == count) {
            if (!panel_copies.empty()) fault("a copy of the copy engine that nobody waits for");
            return;
        }
        if (ready.empty() && gone + at_barrier == count) {
            for (auto &t : threads) if (t.waits == Waits::block) t.waits = Waits::nothing;
            continue;
        }
        for (u32 first = 0; ready.empty() && first < count; first += 32) release(first);
        if (ready.empty()) {
            bool moved = false;
            for (auto &t : threads) moved |= t.waits == Waits::nothing;
            if (!moved && panel_copies.empty()) fault("threads wait for each other");
            if (!moved) copy_one_panel();
            continue;
        }
        for (u32 left = u32(ready.size()); left > 0; left--) {
            u32 at = draw(left);
            here = &threads[ready[at]];
            ready[at] = ready[left - 1];
            swapcontext(&scheduler, &here->context);
            here = nullptr;
        }
    }
}

inline void run(const std::function<void()> &kernel, const u32 *grid, u32 block, u32 shared_bytes) {
    if (block % 32 != 0) fault("blocks are of whole warps");
    body = &kernel;
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {block, 1, 1};
    threads.resize(block);
    for (u32 t = 0; t < block; t++) {
        threads[t].index = {t, 0, 0};
        if (!threads[t].stack) threads[t].stack.reset(new u8[STACK]);
    }
    for (u32 z = 0; z < grid[2]; z++)
        for (u32 y = 0; y < grid[1]; y++)
            for (u32 x = 0; x < grid[0]; x++) {
                block_index = {x, y, z};
                shared.assign(shared_bytes + 128, 0xff);
                run_block();
            }
}

inline u8 *shared_start() { return shared.data() + (128 - reinterpret_cast<uintptr_t>(shared.data()) % 128) % 128; }
inline u8 *shared_at(u32 address, u32 bytes) {
    if (address % bytes != 0) fault("shared memory at an address that is not aligned");
    if (address + bytes > shared.size() - 128) fault("beyond the end of shared memory");
    return shared_start() + address;
}
inline u32 shared_address(const void *p) { return u32(static_cast<const u8 *>(p) - shared_start()); }

inline void copy16(u32 to, const void *from, bool there) {
    if (there && reinterpret_cast<uintptr_t>(from) % 16 != 0) fault("a copy from an address that is not aligned");
    if (here->groups.empty()) here->groups.emplace_back();
    memset(shared_at(to, 16), 0xff, 16);
    here->groups.back().push_back({to, {}, from, there});
}
inline void commit() {
    if (here->groups.empty()) here->groups.emplace_back();
    here->groups.emplace_back();
}
inline void wait(u32 left) {
    // The last group is not committed.
    while (here->groups.size() > left + 1) {
        for (const Copy &copy : here->groups.front()) {
            u8 *to = shared_at(copy.to, 16);
            if (copy.there) memcpy(to, copy.from, 16); else memset(to, 0, 16);
        }
        here->groups.erase(here->groups.begin());
    }
}

inline void load_matrices(u32 (&r)[4], u32 address, bool transposed) {
    here->given[0] = address;
    auto plain = +[](Thread **lanes) {
        for (u32 lane = 0; lane < 32; lane++)
            for (u32 m = 0; m < 4; m++) {
                u32 row = u32(lanes[m * 8 + lane / 4]->given[0]);
                u32 value;
                memcpy(&value, shared_at(row, 16) + lane % 4 * 4, 4);
                lanes[lane]->answer[m] = value;
            }
    };
    auto turned = +[](Thread **lanes) {
        for (u32 lane = 0; lane < 32; lane++)
            for (u32 m = 0; m < 4; m++) {
                u16 halves[2];
                for (u32 i = 0; i < 2; i++) {
                    u32 row = u32(lanes[m * 8 + lane % 4 * 2 + i]->given[0]);
                    memcpy(&halves[i], shared_at(row, 16) + lane / 4 * 2, 2);
                }
                lanes[lane]->answer[m] = halves[0] | u32(halves[1]) << 16;
            }
    };
    collective(transposed ? turned : plain);
    for (u32 m = 0; m < 4; m++) r[m] = u32(here->answer[m]);
}

inline void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    here->given[0] = a[0] | u64(a[1]) << 32;
    here->given[1] = a[2] | u64(a[3]) << 32;
    here->given[2] = b0 | u64(b1) << 32;
    collective(+[](Thread **lanes) {
        auto half = [](u64 word, u32 which) { return double(bits_to_float(u32(word >> (16 * which) & 0xffff) << 16)); };
        double a[16][16], b[16][8];
        for (u32 lane = 0; lane < 32; lane++) {
            u32 group = lane / 4, place = lane % 4 * 2;
            for (u32 i = 0; i < 2; i++) {
                a[group][place + i] = half(lanes[lane]->given[0], i);
                a[group + 8][place + i] = half(lanes[lane]->given[0], 2 + i);
                a[group][place + 8 + i] = half(lanes[lane]->given[1], i);
                a[group + 8][place + 8 + i] = half(lanes[lane]->given[1], 2 + i);
                b[place + i][group] = half(lanes[lane]->given[2], i);
                b[place + 8 + i][group] = half(lanes[lane]->given[2], 2 + i);
            }
        }
        for (u32 lane = 0; lane < 32; lane++)
            for (u32 e = 0; e < 4; e++) {
                u32 row = lane / 4 + 8 * (e / 2), column = lane % 4 * 2 + e % 2;
                double sum = 0;
                for (u32 k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
                lanes[lane]->answer[e] = bits(float(sum));
            }
    });
    for (u32 e = 0; e < 4; e++) c[e] += bits_to_float(u32(here->answer[e]));
}

inline Barrier &barrier_at(u32 address) {
    auto found = barriers.find(address);
    if (found == barriers.end()) fault("a barrier that has not begun");
    return found->second;
}
inline void barrier_begins(u32 address, u32 arrivals) {
    shared_at(address, 8);
    barriers[address] = {arrivals, arrivals, 0, 0};
}
inline void next_phase(Barrier &b) {
    if (b.missing == 0 && b.bytes == 0) b.missing = b.arrivals, b.phase++;
}
inline void arrive(u32 address) {
    Barrier &b = barrier_at(address);
    if (b.missing == 0) fault("more arrivals than a phase has");
    b.missing--;
    next_phase(b);
}
inline void expect(u32 address, u32 bytes) {
    Barrier &b = barrier_at(address);
    if (b.missing == 0) fault("bytes expected of a phase whose arrivals are over");
    b.bytes += bytes;
}
inline bool has_ended(u32 address, u32 parity) { return barrier_at(address).phase % 2 != parity; }
inline void wait_for_phase(u32 address, u32 parity) {
    here->barrier = address, here->parity = parity;
    wait_for(Waits::phase);
}

// Places at which threads meet are barriers that lie beyond shared memory.
inline u32 place_address(u32 place, u32 count) {
    u32 address = 0xffff0000 + place;
    if (barriers.find(address) == barriers.end()) barriers[address] = {count, count, 0, 0};
    if (barriers[address].arrivals != count) fault("threads of different numbers meet");
    return address;
}
inline void pass(u32 place, u32 count) { arrive(place_address(place, count)); }
inline void meet(u32 place, u32 count) {
    u32 address = place_address(place, count), parity = barriers[address].phase % 2;
    arrive(address);
    wait_for_phase(address, parity);
}

constexpr u32 PANEL_COLUMNS = 64;

// Where the copy engine puts what lies at an address of a panel.
inline u32 swizzled(u32 address) { return address ^ (address >> 7 & 7) << 4; }

// A map's words: where the matrix is, its columns, rows and stride in elements, and the rows of a panel.
inline void copy_panel(u32 to, const u64 *map, u32 column, u32 row, u32 barrier) {
    if (to % 1024 != 0) fault("a panel at an address that is not aligned");
    for (u32 i = 0; i < map[4] * 8; i++) memset(shared_at(to + 16 * i, 16), 0xff, 16);
    panel_copies.push_back({to, map, column, row, barrier});
}
inline void copy_one_panel() {
    u32 at = draw(u32(panel_copies.size()));
    PanelCopy copy = panel_copies[at];
    panel_copies.erase(panel_copies.begin() + at);
    const u64 *map = copy.map;
    for (u32 r = 0; r < map[4]; r++)
        for (u32 c = 0; c < PANEL_COLUMNS; c++) {
            u64 row = u64(copy.row) + r, column = u64(copy.column) + c;
            u16 value = 0;
            if (row < map[2] && column < map[1]) value = reinterpret_cast<const u16 *>(map[0])[row * map[3] + column];
            memcpy(shared_at(swizzled(copy.to + r * 128 + c * 2), 2), &value, 2);
        }
    Barrier &b = barrier_at(copy.barrier);
    b.bytes -= int64_t(map[4]) * 128;
    next_phase(b);
}

inline void multiply(float *sums, u32 n, const u32 *left, u64 a, u64 b, bool more, bool by_rows) {
    if (here->products.empty()) here->products.emplace_back();
    Product product = {sums, n, left != nullptr, {}, a, b, more, by_rows};
    for (u32 i = 0; left && i < 4; i++) product.left[i] = left[i];
    here->products.back().push_back(product);
}
inline void products_committed() {
    if (here->products.empty()) here->products.emplace_back();
    here->products.emplace_back();
}

// A number of an operand in shared memory, whose rows are of 128 bytes.
inline float operand(u64 descriptor, u32 row, u32 column) {
    u32 start = u32(descriptor & 0x3fff) << 4, panels = u32(descriptor >> 16 & 0x3fff) << 4;
    u32 eights = u32(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1) fault("an operand that is not swizzled by 128 bytes");
    u32 address = start + column / 64 * panels + row / 8 * eights + row % 8 * 128 + column % 64 * 2;
    u16 value;
    memcpy(&value, shared_at(swizzled(address), 2), 2);
    return bits_to_float(u32(value) << 16);
}

inline void multiply_now(Thread **lanes, u32 which) {
    const Product &one = lanes[0]->products.front()[which];
    std::vector<double> a(64 * 16), b(16 * one.n);
    for (u32 t = 0; t < 128; t++) {
        const Product &p = lanes[t]->products.front()[which];
        if (p.n != one.n || p.b != one.b || p.a != one.a || p.more != one.more) fault("threads multiply different things");
        for (u32 e = 0; p.held && e < 4; e++)
            for (u32 i = 0; i < 2; i++) {
                u32 row = t / 32 * 16 + t % 32 / 4 + e % 2 * 8, column = t % 4 * 2 + i + e / 2 * 8;
                a[row * 16 + column] = bits_to_float((p.left[e] >> 16 * i & 0xffff) << 16);
            }
    }
    for (u32 k = 0; k < 16; k++) {
        for (u32 row = 0; !one.held && row < 64; row++) a[row * 16 + k] = operand(one.a, row, k);
        for (u32 j = 0; j < one.n; j++) b[k * one.n + j] = one.by_rows ? operand(one.b, k, j) : operand(one.b, j, k);
    }
    for (u32 t = 0; t < 128; t++) {
        float *sums = lanes[t]->products.front()[which].sums;
        for (u32 e = 0; e < one.n / 2; e++) {
            u32 row = t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8, column = e / 4 * 8 + t % 4 * 2 + e % 2;
            double sum = 0;
            for (u32 k = 0; k < 16; k++) sum += a[row * 16 + k] * b[k * one.n + column];
            sums[e] = (one.more ? sums[e] : 0.0f) + float(sum);
        }
    }
}
inline void wait_for_products(u32 left) {
    here->given[0] = left;
    collective(+[](Thread **lanes) {
        // The last group is not committed.
        while (lanes[0]->products.size() > lanes[0]->given[0] + 1) {
            size_t count = lanes[0]->products.front().size();
            for (u32 t = 0; t < 128; t++)
                if (lanes[t]->products.front().size() != count) fault("threads multiply different things");
            for (u32 which = 0; which < count; which++) multiply_now(lanes, which);
            for (u32 t = 0; t < 128; t++) lanes[t]->products.erase(lanes[t]->products.begin());
        }
    }, 128);
}

template <typename T> inline T shuffle(T value, u32 source) {
    static_assert(sizeof(T) <= 8);
    here->given[0] = 0;
    memcpy(&here->given[0], &value, sizeof(T));
    here->given[1] = source;
    collective(+[](Thread **lanes) {
        for (u32 lane = 0; lane < 32; lane++) lanes[lane]->answer[0] = lanes[lanes[lane]->given[1] & 31]->given[0];
    });
    T result;
    memcpy(&result, &here->answer[0], sizeof(T));
    return result;
}

inline u32 ballot(bool yes) {
    here->given[0] = yes;
    collective(+[](Thread **lanes) {
        u32 all = 0;
        for (u32 lane = 0; lane < 32; lane++) all |= u32(lanes[lane]->given[0]) << lane;
        for (u32 lane = 0; lane < 32; lane++) lanes[lane]->answer[0] = all;
    });
    return u32(here->answer[0]);
}

inline void nothing(Thread **) {}

} // namespace emulated

#define KERNEL(name, Parameters, limit)                                                                         \
    static void name##_of(const Parameters &p);                                                                 \
    extern "C" void name(const void *parameters, const u32 *grid, u32 block, u32 shared_bytes) {                \
        Parameters p;                                                                                           \
        memcpy(&p, parameters, sizeof p);                                                                       \
        if (block > (limit)) emulated::fault("more threads than the kernel is compiled for");                   \
        emulated::run([&p] { name##_of(p); }, grid, block, shared_bytes);                                       \
    }                                                                                                           \
    static void name##_of(const Parameters &p)
#define DEVICE static inline
#define DEVICE_METHOD inline
#define SHARED_MEMORY(name) u8 *const name = emulated::shared_start()

#define threadIdx (emulated::here->index)
#define blockIdx (emulated::block_index)
#define gridDim (emulated::grid_size)
#define blockDim (emulated::block_size)

static inline void __syncthreads() { emulated::wait_for(emulated::Waits::block); }
static inline void __syncwarp() { emulated::collective(emulated::nothing); }
template <typename T> static inline T __shfl_xor_sync(u32, T value, u32 mask) {
    return emulated::shuffle(value, (threadIdx.x ^ mask) & 31);
}
template <typename T> static inline T __shfl_sync(u32, T value, u32 lane) { return emulated::shuffle(value, lane); }
template <typename T> static inline T __shfl_up_sync(u32, T value, u32 by) {
    u32 lane = threadIdx.x & 31;
    return emulated::shuffle(value, lane >= by ? lane - by : lane);
}
static inline u32 __ballot_sync(u32, bool yes) { return emulated::ballot(yes); }
struct alignas(16) uint4 { u32 x, y, z, w; };
static inline int __popc(u32 x) { return __builtin_popcount(x); }
static inline int __ffs(u32 x) { return __builtin_ffs(int(x)); }
static inline u32 __float_as_uint(float x) { return emulated::bits(x); }
static inline float __uint_as_float(u32 x) { return emulated::bits_to_float(x); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define __restrict__
