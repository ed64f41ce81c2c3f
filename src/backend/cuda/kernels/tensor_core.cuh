// The instructions that C++ has no words for: tensor cores, their loads from shared memory, copies that run beside
// them.
//
// The only inline PTX of the project. A warp calls each of them together. Fragments are those of the PTX ISA
// (mma.m16n8k16 with .f16): of a matrix of 16-bit elements lane l holds, per 8x8 part, columns 2(l%4), 2(l%4)+1 of row
// l/4.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fastkv::cuda {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return std::uint32_t(__cvta_generic_to_shared(p));
}

/// Four 8x8 parts into r[0..4): rows of 16 bytes, part i's row j at the address that lane 8i + j gives.
__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same, each part transposed.
__device__ __forceinline__ void load_matrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// d [16, 8] float32 += a [16, 16] · b [16, 8], float16. Lane l's d: columns 2(l%4), +1 of row l/4, then of row l/4 +
/// 8; a: the parts (rows 0–7 | 8–15) x (columns 0–7), then of columns 8–15; b: rows 2(l%4), +1 of column l/4, then + 8.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// 16 bytes from global to shared memory, there after copy_wait(); zeros if not `valid` (`global` is not read then).
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}
/// Ends a group of this thread's copies.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most the last N groups of this thread are under way; other threads see them after a barrier.
template <int N>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

/// 2^x to 2 units in the last place; results below 2^-126 become 0. One instruction, where exp2f takes four.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fastkv::cuda
