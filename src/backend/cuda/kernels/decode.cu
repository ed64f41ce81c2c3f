// Products of a matrix with one vector, streamed; embedding, rotation and choice of one token.
#include "backend/cuda/kernels/decode.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cub/block/block_reduce.cuh>

#include "backend/cuda/device.hpp"
#include "backend/cuda/kernels/elementwise.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/warp.cuh"
#include "core/index_rules.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kThreads = 384, kWarps = kThreads / kWarp;
constexpr int kRows = 2;   // outputs that a warp computes together: they share what it reads of the input
constexpr int kLoads = 2;  // 16-byte loads of each row that run ahead of the arithmetic: with two blocks a
                           // multiprocessor 48 KiB are under way, twice what the latency of an H100's memory asks for
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kGroup = 32;  // inputs that share a scale

// ---- the input in shared memory ------------------------------------------------------------------------------------

// Inputs as float32, in quartets: quartet j of group b lies at j · stride + b, where stride is 1 above a multiple of 4.
// Lanes that read the same quartet of neighbouring groups (4-bit weights) or eight neighbouring inputs each (bfloat16
// ones) meet no bank twice.
struct Inputs {
  float4* quartets;  // [8][stride]
  float* sums;       // [groups] of each group
  int stride;
};

constexpr int groups_of(int in) { return (in + kGroup - 1) / kGroup; }
constexpr int stride_of(int in) { return (groups_of(in) + 2) / 4 * 4 + 1; }
constexpr std::size_t shared_bytes(int in) {
  return std::size_t(stride_of(in)) * kGroup * sizeof(float) + std::size_t(groups_of(in)) * sizeof(float);
}

__device__ float4 quartet(const Inputs& inputs, int index) {
  return inputs.quartets[index % 8 * inputs.stride + index / 8];
}
__device__ void put(const Inputs& inputs, int k, float value) {
  reinterpret_cast<float*>(inputs.quartets + (k / 4 % 8 * inputs.stride + k / kGroup))[k % 4] = value;
}

// Products take their inputs rounded to bfloat16, as those of the prompt do.
__device__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

struct TakeNormed {
  NormedInput from;
  __device__ void operator()(const Inputs& inputs, int in) const {
    float squares = 0;
    for (int k = int(threadIdx.x); k < in; k += kThreads) squares += from.x[k] * from.x[k];
    const float scale = rsqrtf(block_sum<kThreads>(squares) / float(in) + from.eps);
    for (int k = int(threadIdx.x); k < in; k += kThreads) put(inputs, k, rounded(from.weight[k] * (from.x[k] * scale)));
  }
};
struct TakeRounded {
  const bf16* from;
  __device__ void operator()(const Inputs& inputs, int in) const {
    for (int k = int(threadIdx.x); k < in; k += kThreads) put(inputs, k, __bfloat162float(from[k]));
  }
};

template <class Take>
__device__ void prepare(const Take& take, const Inputs& inputs, int in) {
  take(inputs, in);
  for (int k = in + int(threadIdx.x); k < groups_of(in) * kGroup; k += kThreads) put(inputs, k, 0);
  __syncthreads();
  for (int b = int(threadIdx.x); b < groups_of(in); b += kThreads) {
    float sum = 0;
    for (int j = 0; j < 8; ++j) {
      const float4 x = quartet(inputs, b * 8 + j);
      sum += (x.x + x.y) + (x.z + x.w);
    }
    inputs.sums[b] = sum;
  }
  __syncthreads();
}

// ---- forms of weights: what a lane loads at a time, and its product with the inputs --------------------------------

__device__ float low_bf16(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ float high_bf16(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

struct EightBf16 {
  static constexpr int kInputs = 8;
  using Load = uint4;
  __device__ static Load load(const DecodeMatrix& w, std::int64_t at) {
    return static_cast<const uint4*>(w.weights)[at];
  }
  __device__ static float dot(const Load& w, const Inputs& inputs, int chunk, float sum) {
    const float4 a = quartet(inputs, chunk * 2), b = quartet(inputs, chunk * 2 + 1);
    sum += low_bf16(w.x) * a.x + high_bf16(w.x) * a.y;
    sum += low_bf16(w.y) * a.z + high_bf16(w.y) * a.w;
    sum += low_bf16(w.z) * b.x + high_bf16(w.z) * b.y;
    sum += low_bf16(w.w) * b.z + high_bf16(w.w) * b.w;
    return sum;
  }
};

// Of rows that begin between 16-byte boundaries: tiny models only.
struct OneBf16 {
  static constexpr int kInputs = 1;
  using Load = bf16;
  __device__ static Load load(const DecodeMatrix& w, std::int64_t at) {
    return static_cast<const bf16*>(w.weights)[at];
  }
  __device__ static float dot(const Load& w, const Inputs& inputs, int chunk, float sum) {
    const float4 x = quartet(inputs, chunk / 4);
    const float value = chunk % 4 == 0 ? x.x : chunk % 4 == 1 ? x.y : chunk % 4 == 2 ? x.z : x.w;
    return sum + __bfloat162float(w) * value;
  }
};

// A group of 4-bit weights. A byte q below a float's upper bytes makes 128 + q without a conversion, which costs four
// times a byte permutation: Σ w·x = scale · Σ (128 + q)·x + (offset − 128 · scale) · Σ x.
struct GroupQ4 {
  static constexpr int kInputs = kGroup;
  struct Load {
    uint4 nibbles;
    __half2 scale;
  };
  __device__ static Load load(const DecodeMatrix& w, std::int64_t at) {
    return {static_cast<const uint4*>(w.weights)[at], w.scales[at]};
  }
  __device__ static float dot4(std::uint32_t bytes, const float4& x, float sum) {
    constexpr std::uint32_t kBits128 = 0x43000000u;  // of 128.0f; a unit is bit 16
    sum += __uint_as_float(__byte_perm(bytes, kBits128, 0x7044)) * x.x;
    sum += __uint_as_float(__byte_perm(bytes, kBits128, 0x7144)) * x.y;
    sum += __uint_as_float(__byte_perm(bytes, kBits128, 0x7244)) * x.z;
    return sum + __uint_as_float(__byte_perm(bytes, kBits128, 0x7344)) * x.w;
  }
  __device__ static float dot(const Load& w, const Inputs& inputs, int group, float sum) {
    const std::uint32_t words[4] = {w.nibbles.x, w.nibbles.y, w.nibbles.z, w.nibbles.w};
    float raised = 0;  // Σ (128 + q)·x
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      raised = dot4(words[i] & 0x0f0f0f0fu, quartet(inputs, group * 8 + i), raised);
      raised = dot4(words[i] >> 4 & 0x0f0f0f0fu, quartet(inputs, group * 8 + 4 + i), raised);
    }
    const float2 scale = __half22float2(w.scale);
    return sum + (scale.x * raised + (scale.y - 128.0f * scale.x) * inputs.sums[group]);
  }
};

// ---- products ------------------------------------------------------------------------------------------------------

// Up to three matrices, whose outputs are numbered one after another.
struct Parts {
  DecodeMatrix of[3];
  int count = 0;
};

// What a warp computes at a time: two rows; `second` < 0: there is none.
struct Pair {
  int part_first, part_second, first, second;
  int output;  // number of the first among all
};

// Neighbouring rows of one matrix.
struct Neighbours {
  __host__ __device__ static int tasks(const Parts& parts) {
    int sum = 0;
    for (int p = 0; p < parts.count; ++p) sum += (parts.of[p].out + 1) / 2;
    return sum;
  }
  __device__ static Pair pair(const Parts& parts, int task) {
    int p = 0, output = 0;
    for (; task >= (parts.of[p].out + 1) / 2; ++p) {
      task -= (parts.of[p].out + 1) / 2;
      output += parts.of[p].out;
    }
    const int row = task * 2;
    return {p, p, row, row + 1 < parts.of[p].out ? row + 1 : -1, output + row};
  }
};
// The same row of two matrices.
struct SameRow {
  __host__ __device__ static int tasks(const Parts& parts) { return parts.of[0].out; }
  __device__ static Pair pair(const Parts&, int task) { return {0, 1, task, task, task}; }
};

struct Put {
  float* y;
  __device__ void operator()(const Pair& pair, float first, float second) const {
    y[pair.output] = first;
    if (pair.second >= 0) y[pair.output + 1] = second;
  }
};
struct Add {
  float* y;
  __device__ void operator()(const Pair& pair, float first, float second) const {
    y[pair.output] += first;
    if (pair.second >= 0) y[pair.output + 1] += second;
  }
};
struct PutGated {
  bf16* out;
  __device__ void operator()(const Pair& pair, float gate, float up) const {
    out[pair.output] = __float2bfloat16_rn(silu(gate) * up);
  }
};

// Steps of a warp through its rows, one after another without a pause between them: the loads of the next step, even
// those of the next rows, are under way while this one is computed. The first are, while the input is prepared.
template <class Form, class Rows>
struct Walk {
  const Parts* parts;
  int tasks, lane, chunks, steps;
  int task, step = 0;
  Pair rows{};

  __device__ Walk(const Parts& of, int inputs, int first_task)
      : parts(&of),
        tasks(Rows::tasks(of)),
        lane(int(threadIdx.x) % kWarp),
        chunks(inputs / Form::kInputs),
        steps((chunks + kWarp * kLoads - 1) / (kWarp * kLoads)),
        task(first_task) {
    if (!done()) rows = Rows::pair(*parts, task);
  }
  __device__ bool done() const { return task >= tasks; }
  __device__ bool last_step() const { return step + 1 == steps; }
  __device__ void advance(int stride) {
    if (++step < steps) return;
    step = 0;
    task += stride;
    if (!done()) rows = Rows::pair(*parts, task);
  }
  __device__ int chunk(int load) const { return (step * kLoads + load) * kWarp + lane; }
  __device__ void load(typename Form::Load (&to)[kRows][kLoads]) const {
    const DecodeMatrix &first = parts->of[rows.part_first], &second = parts->of[rows.part_second];
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      if (done() || chunk(l) >= chunks) continue;
      to[0][l] = Form::load(first, std::int64_t(rows.first) * chunks + chunk(l));
      if (rows.second >= 0) to[1][l] = Form::load(second, std::int64_t(rows.second) * chunks + chunk(l));
    }
  }
};

template <class Form, class Rows, class Take, class Give>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    product_kernel(const __grid_constant__ Parts parts, int in, Take take, Give give) {
  float* shared = shared_memory<float>();
  const int stride = stride_of(in);
  const Inputs inputs{reinterpret_cast<float4*>(shared), shared + stride * kGroup, stride};
  const int warps = int(gridDim.x) * kWarps;
  Walk<Form, Rows> now(parts, in, int(blockIdx.x) * kWarps + int(threadIdx.x) / kWarp), next = now;
  typename Form::Load loaded[kRows][kLoads] = {}, ahead[kRows][kLoads] = {};
  now.load(loaded);
  prepare(take, inputs, in);

  float sums[kRows] = {};
  while (!now.done()) {
    next.advance(warps);
    next.load(ahead);
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      if (now.chunk(l) >= now.chunks) continue;
      sums[0] = Form::dot(loaded[0][l], inputs, now.chunk(l), sums[0]);
      sums[1] = Form::dot(loaded[1][l], inputs, now.chunk(l), sums[1]);
    }
    if (now.last_step()) {
      const float first = warp_sum(sums[0]), second = warp_sum(sums[1]);
      if (now.lane == 0) {
        const float *bias_first = parts.of[now.rows.part_first].bias,
                    *bias_second = parts.of[now.rows.part_second].bias;
        give(now.rows, first + (bias_first ? bias_first[now.rows.first] : 0.0f),
             second + (bias_second && now.rows.second >= 0 ? bias_second[now.rows.second] : 0.0f));
      }
      sums[0] = sums[1] = 0;
    }
    now = next;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int l = 0; l < kLoads; ++l) loaded[r][l] = ahead[r][l];
  }
}

template <class Form, class Rows, class Take, class Give>
void launch_product(cudaStream_t stream, const Parts& parts, const Take& take, const Give& give) {
  int device = 0, multiprocessors = 0;
  check_cuda(cudaGetDevice(&device), "device of a product");
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "multiprocessors");
  const int in = parts.of[0].in, blocks = (Rows::tasks(parts) + kWarps - 1) / kWarps;
  launch(stream, dim3(unsigned(std::min(blocks, multiprocessors * kBlocksPerMultiprocessor))), dim3(kThreads),
         shared_bytes(in), product_kernel<Form, Rows, Take, Give>, parts, in, take, give);
}

template <class Rows, class Take, class Give>
void multiply(cudaStream_t stream, const Parts& parts, const Take& take, const Give& give) {
  if (parts.of[0].form == WeightForm::q4)
    launch_product<GroupQ4, Rows>(stream, parts, take, give);
  else if (parts.of[0].in % EightBf16::kInputs == 0)
    launch_product<EightBf16, Rows>(stream, parts, take, give);
  else
    launch_product<OneBf16, Rows>(stream, parts, take, give);
}

// ---- one token -----------------------------------------------------------------------------------------------------

constexpr int kTokenThreads = 256;

__global__ void __launch_bounds__(kTokenThreads)
    embed_token_kernel(const bf16* __restrict__ table, const StepState* state, int width, float* __restrict__ x) {
  const int i = int(blockIdx.x) * kTokenThreads + int(threadIdx.x);
  if (i < width) x[i] = __bfloat162float(table[std::int64_t(state->token) * width + i]);
}

// A block a head, a thread a pair.
__global__ void rotate_token_kernel(float2* x, const StepState* state, const double* __restrict__ inv_freq,
                                    float magnitude) {
  float2& pair = x[blockIdx.x * blockDim.x + threadIdx.x];
  pair = turned(pair, angle_of(state->position, inv_freq[threadIdx.x], magnitude));
}

constexpr int kIdsPerBlock = 4096;

struct Lower {
  __device__ std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a < b ? a : b; }
};
using BestOfBlock = cub::BlockReduce<std::uint64_t, kTokenThreads>;

// A logit of a broken model, NaN or +∞, comes before every other, so that the choice shows it.
__device__ std::uint64_t order_of(float logit, int id) {
  return logit < INFINITY ? score_order(__float_as_uint(logit), id) : std::uint64_t(id);
}
__device__ bool is_finite(std::uint64_t order) {
  constexpr std::uint32_t kMinusInfinity = falling_rank(0xff800000u);
  return order >> 32 > 0 && order >> 32 < kMinusInfinity;
}

// best [blocks] = the first in order of each block's ids.
__global__ void __launch_bounds__(kTokenThreads)
    best_of_blocks_kernel(const float* __restrict__ logits, int vocab, const std::int32_t* __restrict__ banned,
                          int n_banned, std::uint64_t* __restrict__ best) {
  __shared__ typename BestOfBlock::TempStorage shared;
  const int begin = int(blockIdx.x) * kIdsPerBlock, end = min(vocab, begin + kIdsPerBlock);
  std::uint64_t first = ~std::uint64_t(0);
  for (int id = begin + int(threadIdx.x); id < end; id += kTokenThreads) {
    const std::uint64_t order = order_of(logits[id], id);
    bool counts = true;
    for (int b = 0; b < n_banned; ++b) counts = counts && banned[b] != id;
    if (counts || !is_finite(order)) first = Lower{}(first, order);
  }
  first = BestOfBlock(shared).Reduce(first, Lower{});
  if (threadIdx.x == 0) best[blockIdx.x] = first;
}

__global__ void __launch_bounds__(kTokenThreads)
    best_of_all_kernel(const std::uint64_t* __restrict__ of_blocks, int blocks, StepState* state, std::int32_t* best) {
  __shared__ typename BestOfBlock::TempStorage shared;
  std::uint64_t first = ~std::uint64_t(0);
  for (int b = int(threadIdx.x); b < blocks; b += kTokenThreads) first = Lower{}(first, of_blocks[b]);
  first = BestOfBlock(shared).Reduce(first, Lower{});
  if (threadIdx.x != 0) return;
  const auto id = std::int32_t(first & 0xffffffffu);
  *best = is_finite(first) ? id : -1;
  if (is_finite(first)) *state = {id, state->position + 1, state->appended + 1};
}

int id_blocks(int vocab) { return (vocab + kIdsPerBlock - 1) / kIdsPerBlock; }

}  // namespace

void embed_token(cudaStream_t stream, const bf16* table, const StepState* state, int width, float* x) {
  launch(stream, dim3(unsigned((width + kTokenThreads - 1) / kTokenThreads)), dim3(kTokenThreads), 0,
         embed_token_kernel, table, state, width, x);
}

void project(cudaStream_t stream, std::span<const DecodeMatrix> matrices, const NormedInput& input, float* y) {
  for (std::size_t first = 0; first < matrices.size();) {  // a launch for each run of the same form
    Parts parts;
    float* to = y;
    for (; first < matrices.size() && (parts.count == 0 || matrices[first].form == parts.of[0].form); ++first) {
      parts.of[parts.count++] = matrices[first];
      y += matrices[first].out;
    }
    multiply<Neighbours>(stream, parts, TakeNormed{input}, Put{to});
  }
}

void add_product(cudaStream_t stream, const DecodeMatrix& w, const bf16* x, float* y) {
  multiply<Neighbours>(stream, Parts{{w}, 1}, TakeRounded{x}, Add{y});
}

void gate_up(cudaStream_t stream, const DecodeMatrix& gate, const DecodeMatrix& up, const NormedInput& input,
             bf16* out) {
  multiply<SameRow>(stream, Parts{{gate, up}, 2}, TakeNormed{input}, PutGated{out});
}

void rotate_token(cudaStream_t stream, float* x, int heads, int d, const StepState* state, const double* inv_freq,
                  float magnitude) {
  launch(stream, dim3(unsigned(heads)), dim3(unsigned(d / 2)), 0, rotate_token_kernel, reinterpret_cast<float2*>(x),
         state, inv_freq, magnitude);
}

std::size_t arg_max_bytes(int vocab) { return std::size_t(id_blocks(vocab)) * sizeof(std::uint64_t); }

void arg_max(cudaStream_t stream, const float* logits, int vocab, const std::int32_t* banned, int n_banned, void* work,
             StepState* state, std::int32_t* best) {
  auto* of_blocks = static_cast<std::uint64_t*>(work);
  const int blocks = id_blocks(vocab);
  launch(stream, dim3(unsigned(blocks)), dim3(kTokenThreads), 0, best_of_blocks_kernel, logits, vocab, banned, n_banned,
         of_blocks);
  launch(stream, dim3(1), dim3(kTokenThreads), 0, best_of_all_kernel, of_blocks, blocks, state, best);
}

}  // namespace fastkv::cuda
