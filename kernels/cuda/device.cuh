// What all kernels share. A program is this text, the macros of its variant, and one file of kernels.
//
// A kernel takes one structure of parameters by value, and is compiled for one variant: sizes are macros, so that
// loops unroll and arrays stay in registers. With EMULATED the same text is compiled by a C++ compiler, and the
// emulator supplies threads and what the instructions below do (emulated.h).

#ifdef EMULATED
#include "emulated.h"
#else
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Blocks that registers have to suffice for on one multiprocessor.
#ifndef RESIDENT
#define RESIDENT 1
#endif
#define KERNEL(name, Parameters, threads) \
    extern "C" __global__ void __launch_bounds__(threads, RESIDENT) name(const __grid_constant__ Parameters p)
#define DEVICE static __device__ __forceinline__
#define DEVICE_METHOD __device__ __forceinline__
#define SHARED_MEMORY(name) extern __shared__ __align__(128) u8 name[]
#endif

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// 1: what is stored between kernels is bf16, and products are those of tensor cores; 0: f32 throughout.
#ifndef BF16
#define BF16 0
#endif

struct bf16 { u16 bits; };

DEVICE float number(float x) { return x; }

#ifdef EMULATED
DEVICE float number(bf16 x) { return emulated::bits_to_float(u32(x.bits) << 16); }
// Of two bf16 in one register, the first in the low half.
DEVICE u32 pack(float low, float high) { return emulated::round_bf16(low) | u32(emulated::round_bf16(high)) << 16; }
DEVICE u32 shared_address(const void *p) { return emulated::shared_address(p); }
DEVICE void copy16(u32 to, const void *from, bool there) { emulated::copy16(to, from, there); }
DEVICE void copies_committed() { emulated::commit(); }
template <int LEFT> DEVICE void wait_for_copies() { emulated::wait(LEFT); }
DEVICE void load_matrices(u32 (&r)[4], u32 address) { emulated::load_matrices(r, address, false); }
DEVICE void load_matrices_transposed(u32 (&r)[4], u32 address) { emulated::load_matrices(r, address, true); }
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) { emulated::multiply_add(c, a, b0, b1); }
DEVICE float fast_tanh(float x) { return tanhf(x); }
DEVICE float fast_exp2(float x) { return exp2f(x); }
DEVICE float fast_log2(float x) { return log2f(x); }
// The larger of two, or what is no number if one is none.
DEVICE float larger_or_none(float a, float b) { return a != a || b != b ? a + b : fmaxf(a, b); }
#else
DEVICE float number(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
DEVICE u32 pack(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
DEVICE u32 shared_address(const void *p) { return u32(__cvta_generic_to_shared(p)); }
// 16 bytes into shared memory, or zeros where they are not there; done when waited for.
DEVICE void copy16(u32 to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
DEVICE void copies_committed() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all committed groups but the last LEFT are there, for the thread that copied; others need a barrier.
template <int LEFT> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }
// Four 8 × 8 matrices of bf16, whose rows are at the addresses that lanes 0 to 7, 8 to 15, … give: of each, a lane gets
// numbers 2·(lane mod 4) and the next of row lane/4.
DEVICE void load_matrices(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
// The same of their transposes.
DEVICE void load_matrices_transposed(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
// c += a·b: a of 16 × 16, b of 16 × 8 and c of 16 × 8. A lane holds of c rows lane/4 (0, 1) and lane/4 + 8 (2, 3) at
// columns 2·(lane mod 4) and the next.
DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE float fast_tanh(float x) {
    float r;
    asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float fast_exp2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float fast_log2(float x) {
    float r;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float larger_or_none(float a, float b) {
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
#endif

DEVICE void store(float &to, float x) { to = x; }
DEVICE void store(bf16 &to, float x) { to.bits = u16(pack(x, 0.0f)); }

#if BF16
typedef bf16 Element;
#else
typedef float Element;
#endif

// Elements of 16 bytes.
constexpr u32 CHUNK = 16 / sizeof(Element);

DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }

DEVICE float warp_sum(float x) {
    for (u32 step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// x·σ(x) of x/2. With tensor cores, whose products carry eight bits, by one operation of the special-function unit:
// x/2·(1 + tanh(x/2)).
DEVICE float silu_of_half(float half) {
#if BF16
    return fmaf(half, fast_tanh(half), half);
#else
    float x = half + half;
    return x / (1.0f + expf(-x));
#endif
}

DEVICE float silu(float x) { return silu_of_half(0.5f * x); }
