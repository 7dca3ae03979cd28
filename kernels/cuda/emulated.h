// A graphics processor of one thread: what kernels need to run as C++ on any machine, for tests.
//
// The threads of a block are contexts that this thread goes through; each runs until it waits for its warp or its
// block. Of the ready ones the next is drawn by lot, so that what a missing barrier lets happen happens. Blocks run one
// after the other. Shared memory begins as numbers that are none, and so do the copies under way until they are waited
// for: an asynchronous copy happens when its thread waits for it, as late as it may on a device.
// What a collective instruction gives is computed when the last lane of its warp has come to it.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
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

enum class Waits { nothing, warp, block, gone };

struct Thread {
    ucontext_t context;
    std::unique_ptr<u8[]> stack;
    Index index;
    Waits waits;
    // The collective it waits for: what it gives to it, where the answer goes, and which one it is.
    const void *kind;
    u64 given[4];
    u64 answer[4];
    std::vector<std::vector<Copy>> groups;
};

constexpr size_t STACK = 64 << 10;

inline Index block_index, grid_size, block_size;
inline std::vector<Thread> threads;
inline Thread *here = nullptr;
inline ucontext_t scheduler;
inline std::vector<u8> shared;
inline u64 lot = 1;
inline const std::function<void()> *body = nullptr;

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
    here->waits = Waits::gone;
    swapcontext(&here->context, &scheduler);
}

// A lane's part in a collective: what lanes give is laid out by lane, and `compute` fills in all their answers.
typedef void (*Compute)(Thread **lanes);

inline void collective(Compute compute) {
    here->kind = reinterpret_cast<const void *>(compute);
    wait_for(Waits::warp);
}

inline void release_warp(Thread *first) {
    Thread *lanes[32];
    for (u32 lane = 0; lane < 32; lane++) {
        lanes[lane] = first + lane;
        if (lanes[lane]->kind != first->kind) fault("lanes of a warp at different instructions");
    }
    auto compute = reinterpret_cast<Compute>(const_cast<void *>(first->kind));
    compute(lanes);
    for (Thread *lane : lanes) lane->waits = Waits::nothing;
}

inline void run_block() {
    u32 count = block_size.x;
    for (auto &t : threads) {
        t.waits = Waits::nothing;
        t.groups.clear();
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
            gone += threads[t].waits == Waits::gone;
            at_barrier += threads[t].waits == Waits::block;
            if (threads[t].waits == Waits::nothing) ready.push_back(t);
        }
        if (gone == count) return;
        if (ready.empty() && gone + at_barrier == count) {
            for (auto &t : threads) if (t.waits == Waits::block) t.waits = Waits::nothing;
            continue;
        }
        // Warps all of whose lanes have come.
        for (u32 first = 0; ready.empty() && first < count; first += 32) {
            u32 come = 0;
            for (u32 t = first; t < first + 32; t++) come += threads[t].waits == Waits::warp;
            if (come == 32) release_warp(&threads[first]);
            else if (come > 0 && gone > 0) {
                for (u32 t = first; t < first + 32; t++)
                    if (threads[t].waits == Waits::gone) fault("a lane is gone that its warp waits for");
            }
        }
        if (ready.empty()) {
            bool moved = false;
            for (auto &t : threads) moved |= t.waits == Waits::nothing;
            if (!moved) fault("threads wait for each other");
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
