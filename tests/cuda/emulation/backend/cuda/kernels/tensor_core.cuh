// Emulation of tensor-core instructions and asynchronous copies, with the fragment layouts of the PTX manual.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace fastkv::cuda {

namespace emulated {

inline float low(std::uint32_t pair) { return __half2float(__ushort_as_half(static_cast<unsigned short>(pair))); }
inline float high(std::uint32_t pair) { return low(pair >> 16); }

inline const unsigned char* checked_shared(const void* at, const char* what) {
  const emulation::Block& block = *emulation::current->block;
  const auto* bytes = static_cast<const unsigned char*>(at);
  if (reinterpret_cast<std::uintptr_t>(at) % 16)
    throw emulation::Fault(std::string(what) + ": address not a multiple of 16");
  if (bytes < block.shared || bytes + 16 > block.shared + block.shared_bytes) {
    throw emulation::Fault(std::string(what) + ": address outside the block's dynamic shared memory");
  }
  return bytes;
}

struct MatrixLoad {
  const unsigned char* row;  ///< of 8 16-bit values; lanes 8·i .. 8·i + 7 give the rows of matrix i
  std::uint32_t* registers;
};

/// ldmatrix .x4: lane l holds values 2·(l mod 4) and the next of row l / 4; transposed: of column l / 4.
template <bool Transposed>
void load_matrix(std::uint32_t (&r)[4], const void* row) {
  MatrixLoad mine{checked_shared(row, "ldmatrix"), r};
  emulation::collective("ldmatrix", 0xffffffffu, &mine, [](void* const* lanes, std::uint32_t present) {
    if (present != 0xffffffffu) throw emulation::Fault("ldmatrix: lanes of the warp have left");
    for (int i = 0; i < 4; ++i) {
      std::uint16_t matrix[8][8];
      for (int y = 0; y < 8; ++y) std::memcpy(matrix[y], static_cast<MatrixLoad*>(lanes[8 * i + y])->row, 16);
      for (int l = 0; l < 32; ++l) {
        const int a = l / 4, b = l % 4 * 2;
        const std::uint32_t first = Transposed ? matrix[b][a] : matrix[a][b];
        const std::uint32_t second = Transposed ? matrix[b + 1][a] : matrix[a][b + 1];
        static_cast<MatrixLoad*>(lanes[l])->registers[i] = first | second << 16;
      }
    }
  });
}

struct Product {
  float* d;
  const std::uint32_t *a, *b;
};

}  // namespace emulated

inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row) { emulated::load_matrix<false>(r, row); }
inline void load_matrix_x4_trans(std::uint32_t (&r)[4], const void* row) { emulated::load_matrix<true>(r, row); }

/// 2^x; what is below 2^-126 becomes 0.
inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;
}

/// d [16×8] += a [16×16] · b [16×8]. With g = lane / 4 and t = lane mod 4, pairs of columns: a holds (g, 2t), (g + 8,
/// 2t), (g, 2t + 8), (g + 8, 2t + 8); b holds, pairs of rows, (2t, g), (2t + 8, g); d holds (g, 2t), (g, 2t + 1),
/// (g + 8, 2t), (g + 8, 2t + 1).
inline void mma_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  emulated::Product mine{d, a, b};
  emulation::collective("mma", 0xffffffffu, &mine, [](void* const* lanes, std::uint32_t present) {
    if (present != 0xffffffffu) throw emulation::Fault("mma: lanes of the warp have left");
    float left[16][16], right[16][8], sum[16][8];
    for (int l = 0; l < 32; ++l) {
      const auto& lane = *static_cast<const emulated::Product*>(lanes[l]);
      const int g = l / 4, t = l % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        const int y = g + i % 2 * 8, x = t + i / 2 * 8;
        left[y][x] = emulated::low(lane.a[i]);
        left[y][x + 1] = emulated::high(lane.a[i]);
        sum[g + i / 2 * 8][t + i % 2] = lane.d[i];
      }
      for (int i = 0; i < 2; ++i) {
        right[t + i * 8][g] = emulated::low(lane.b[i]);
        right[t + i * 8 + 1][g] = emulated::high(lane.b[i]);
      }
    }
    for (int y = 0; y < 16; ++y)
      for (int k = 0; k < 16; ++k)
        for (int x = 0; x < 8; ++x) sum[y][x] += left[y][k] * right[k][x];
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i)
        static_cast<emulated::Product*>(lanes[l])->d[i] = sum[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
  });
}

namespace emulated {

inline void land(const emulation::Copy& copy) {
  if (copy.from) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

}  // namespace emulated

/// 16 bytes from global to shared memory, or zeros unless `valid`; they land by the copy_wait() that covers them.
inline void copy_async_16(void* shared, const void* global, bool valid) {
  emulated::checked_shared(shared, "cp.async");
  if (valid && reinterpret_cast<std::uintptr_t>(global) % 16) {
    throw emulation::Fault("cp.async: global address not a multiple of 16");
  }
  emulation::Thread& me = *emulation::current;
  const emulation::Copy copy{shared, valid ? global : nullptr, me.group};
  if (me.block->early_copies) {
    emulated::land(copy);
  } else {
    me.copies.push_back(copy);
  }
}
inline void copy_commit() { ++emulation::current->group; }

/// Waits for all groups this thread committed but the last N.
template <int N>
void copy_wait() {
  emulation::Thread& me = *emulation::current;
  std::size_t left = 0;
  for (const emulation::Copy& copy : me.copies) {
    if (copy.group + N < me.group) {
      emulated::land(copy);
    } else {
      me.copies[left++] = copy;
    }
  }
  me.copies.resize(left);
}

}  // namespace fastkv::cuda
