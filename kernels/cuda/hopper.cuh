// Hopper's own instructions (sm_90a): products by four warps whose operands lie in shared memory, copies of tiles by the
// copy engine, and the barriers that say when these are there.
//
// A tile in shared memory is made of panels of 64 columns: 128 bytes a row, in which the chunk of 16 bytes number c of
// row r lies at place c xor (r mod 8). Panels begin at multiples of 1,024 bytes.

constexpr u32 PANEL = 64;
constexpr u32 PANEL_ROW = 128;

// A matrix on the device as the copy engine knows it: panels of a number of rows.
struct alignas(128) Map { u64 words[16]; };

// What the products read: a panel, with the bytes from eight rows to the next eight and from panel to panel.
DEVICE u64 operand(u32 address, u32 to_next_panel) {
    constexpr u64 SWIZZLED = 1ull << 62, EIGHT_ROWS = 8 * PANEL_ROW;
    return SWIZZLED | (EIGHT_ROWS >> 4) << 32 | u64(to_next_panel >> 4) << 16 | (address & 0x3ffff) >> 4;
}

#ifdef EMULATED
DEVICE void barrier_begins(u32 barrier, u32 arrivals) { emulated::barrier_begins(barrier, arrivals); }
DEVICE void barriers_begun() {}
DEVICE void arrive(u32 barrier) { emulated::arrive(barrier); }
DEVICE void expect(u32 barrier, u32 bytes) { emulated::expect(barrier, bytes); }
DEVICE void wait_for_phase(u32 barrier, u32 parity) { emulated::wait_for_phase(barrier, parity); }
DEVICE void copy_panel(u32 to, const Map &map, u32 column, u32 row, u32 barrier) {
    emulated::copy_panel(to, map.words, column, row, barrier);
}
DEVICE void meet(u32 place, u32 threads) { emulated::meet(place, threads); }
DEVICE void pass(u32 place, u32 threads) { emulated::pass(place, threads); }
DEVICE void products_begin() { emulated::collective(emulated::nothing, 128); }
DEVICE void written_for_products() {}
DEVICE void products_committed() { emulated::products_committed(); }
template <int LEFT> DEVICE void wait_for_products() { emulated::wait_for_products(LEFT); }
template <u32 N> DEVICE void multiply(float (&c)[N][4], u64 a, u64 b, u32 more) {
    emulated::multiply(&c[0][0], N * 8, nullptr, a, b, more, false);
}
template <u32 N> DEVICE void multiply_by_rows(float (&c)[N][4], u64 a, u64 b, u32 more) {
    emulated::multiply(&c[0][0], N * 8, nullptr, a, b, more, true);
}
template <u32 N> DEVICE void multiply_by_rows(float (&c)[N][4], const u32 (&a)[4], u64 b, u32 more) {
    emulated::multiply(&c[0][0], N * 8, a, 0, b, more, true);
}
template <u32 N> DEVICE void computed_elsewhere(float (&)[N][4]) {}
template <int REGISTERS> DEVICE void give_registers() {}
template <int REGISTERS> DEVICE void take_registers() {}
#else
DEVICE void barrier_begins(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes barriers that have begun known to the copy engine.
DEVICE void barriers_begun() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void arrive(u32 barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
// The phase also waits for so many bytes of the copy engine. Who calls this arrives later.
DEVICE void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity has ended; that before the first counts as ended.
DEVICE void wait_for_phase(u32 barrier, u32 parity) {
    u32 ended;
    do {
        asm volatile("{\n.reg .pred ended;\nmbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, ended;\n}\n"
                     : "=r"(ended) : "r"(barrier), "r"(parity) : "memory");
    } while (!ended);
}
// At one of fifteen places: waits until so many threads have come to it or passed it, whole warps at a time.
DEVICE void meet(u32 place, u32 threads) { asm volatile("barrier.sync %0, %1;" ::"r"(place), "r"(threads) : "memory"); }
DEVICE void pass(u32 place, u32 threads) { asm volatile("barrier.arrive %0, %1;" ::"r"(place), "r"(threads) : "memory"); }
// A panel whose first row and column these are, zeros beyond the matrix; its bytes count at the barrier.
DEVICE void copy_panel(u32 to, const Map &map, u32 column, u32 row, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(to), "l"(&map), "r"(barrier), "r"(column), "r"(row) : "memory");
}
// Before products that use registers which were written since the last.
DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Before threads meet of whom some wrote to shared memory what others' products read.
DEVICE void written_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void products_committed() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT> DEVICE void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
// Keeps the compiler from moving what uses these registers across.
template <u32 N> DEVICE void computed_elsewhere(float (&c)[N][4]) {
#pragma unroll
    for (u32 i = 0; i < N; i++) asm volatile("" : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])::"memory");
}
// Registers of every thread of four warps, which a kernel for fewer gave at its start.
template <int REGISTERS> DEVICE void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS> DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

#define FOUR(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define SIXTEEN(c, i) FOUR(c, i), FOUR(c, (i) + 1), FOUR(c, (i) + 2), FOUR(c, (i) + 3)
#define SUMS_OF_64 SIXTEEN(c, 0), SIXTEEN(c, 4)
#define SUMS_OF_128 SUMS_OF_64, SIXTEEN(c, 8), SIXTEEN(c, 12)
#define PLACES_OF_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PLACES_OF_128 PLACES_OF_64 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// One product with N columns. The operands are behind the sums, and then whether there is more in these; the last numbers
// say of operands in shared memory whether their rows are what is summed over.
#define PRODUCT(N, operands, more, turned) \
    "{\n.reg .pred more;\n" \
    "setp.ne.b32 more, " more ", 0;\n" \
    "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 " \
    "{" PLACES_OF_##N "}, " operands ", more, 1, 1, " turned ";\n}\n"

// Products of 16 columns of a, whose 64 rows are those of the four warps, with N columns of b, added to c where there is
// more in it. The sums lie as those of mma.sync, and so does a where it is in registers. Of the first, rows of b are the
// columns of the product; of the others, rows of b are what is summed over.
DEVICE void multiply(float (&c)[16][4], u64 a, u64 b, u32 more) {
    asm volatile(PRODUCT(128, "%64, %65", "%66", "0, 0") : SUMS_OF_128 : "l"(a), "l"(b), "r"(more) : "memory");
}
DEVICE void multiply_by_rows(float (&c)[8][4], u64 a, u64 b, u32 more) {
    asm volatile(PRODUCT(64, "%32, %33", "%34", "0, 1") : SUMS_OF_64 : "l"(a), "l"(b), "r"(more) : "memory");
}
DEVICE void multiply_by_rows(float (&c)[16][4], u64 a, u64 b, u32 more) {
    asm volatile(PRODUCT(128, "%64, %65", "%66", "0, 1") : SUMS_OF_128 : "l"(a), "l"(b), "r"(more) : "memory");
}
#define HELD(a) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
DEVICE void multiply_by_rows(float (&c)[8][4], const u32 (&a)[4], u64 b, u32 more) {
    asm volatile(PRODUCT(64, "{%32, %33, %34, %35}, %36", "%37", "1")
                 : SUMS_OF_64 : HELD(a), "l"(b), "r"(more) : "memory");
}
DEVICE void multiply_by_rows(float (&c)[16][4], const u32 (&a)[4], u64 b, u32 more) {
    asm volatile(PRODUCT(128, "{%64, %65, %66, %67}, %68", "%69", "1")
                 : SUMS_OF_128 : HELD(a), "l"(b), "r"(more) : "memory");
}
#endif
