// Products of a matrix with one vector, streamed; embedding and choice of one token.
#include "backend/cuda/kernels/decode.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cub/block/block_reduce.cuh>

#include "backend/cuda/device.hpp"
#include "backend/cuda/kernels/elementwise.cuh"
#include "backend/cuda/kernels/launch.cuh"
#include "backend/cuda/kernels/warp.cuh"
#include "backend/cuda/kernels/weight_forms.cuh"
#include "core/index_rules.hpp"

namespace fastkv::cuda {
namespace {

constexpr int kThreads = 384, kWarps = kThreads / kWarp;
constexpr int kRows = 2;   // outputs that a warp computes together: they share what it reads of the input
constexpr int kLoads = 2;  // 16-byte loads of each row that run ahead of the arithmetic: with two blocks a
                           // multiprocessor 48 KiB are under way, twice what the latency of an H100's memory asks for
constexpr int kBlocksPerMultiprocessor = 2;
// ---- the input of a product --------------------------------------------------------------------------------------

// Products take their inputs rounded to bfloat16, as those of the prompt do.
__device__ float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ __forceinline__ float4 four(const float* row, int index) {
  return reinterpret_cast<const float4*>(row)[index];
}
__device__ __forceinline__ float4 four(const bf16* row, int index) {
  const uint2 pairs = reinterpret_cast<const uint2*>(row)[index];
  return {low_bf16(pairs.x), high_bf16(pairs.x), low_bf16(pairs.y), high_bf16(pairs.y)};
}

// use(quartet of the inputs, quartet of the row) of each quartet that the thread has, many loads at once.
template <class T, class Use>
__device__ __forceinline__ void each_quartet(const Inputs& inputs, const T* row, int in, const Use& use) {
  constexpr int kAtOnce = 4;
  const int quartets = groups_of(in) * (kGroup / 4);
  for (int first = int(threadIdx.x); first < quartets; first += kThreads * kAtOnce) {
    float4 x[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      x[i] = (first + i * kThreads) * 4 < in ? four(row, first + i * kThreads) : float4{};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i * kThreads < quartets) use(inputs.quartet(first + i * kThreads), x[i]);
  }
}

// Weights of the norm lie in the inputs' place until what they weigh is there: the second has to be waited for.
struct TakeNormed {
  NormedInput from;
  __device__ void before(const Inputs& inputs, int in) const {
    each_quartet(inputs, from.weight, in, [](float4& input, const float4& w) { input = w; });
  }
  __device__ void operator()(const Inputs& inputs, int in) const {
    float squares = 0;
    each_quartet(inputs, from.x, in, [&](float4& input, const float4& x) {
      squares += (x.x * x.x + x.y * x.y) + (x.z * x.z + x.w * x.w);
      input = {input.x * x.x, input.y * x.y, input.z * x.z, input.w * x.w};
    });
    const float scale = rsqrtf(block_sum<kThreads>(squares) / float(in) + from.eps);
    for (int i = int(threadIdx.x); i < groups_of(in) * (kGroup / 4); i += kThreads) {
      float4& x = inputs.quartet(i);
      x = {rounded(x.x * scale), rounded(x.y * scale), rounded(x.z * scale), rounded(x.w * scale)};
    }
  }
};
struct TakeRounded {
  const bf16* from;
  __device__ void before(const Inputs&, int) const {}
  __device__ void operator()(const Inputs& inputs, int in) const {
    each_quartet(inputs, from, in, [](float4& input, const float4& x) { input = x; });
  }
};

__device__ void sum_groups(const Inputs& inputs, int in) {
  for (int b = int(threadIdx.x); b < groups_of(in); b += kThreads) {
    float sum = 0;
    for (int j = 0; j < 8; ++j) {
      const float4 x = inputs.quartet(b * 8 + j);
      sum += (x.x + x.y) + (x.z + x.w);
    }
    inputs.sums[b] = sum;
  }
}

// ---- products ------------------------------------------------------------------------------------------------------

// Up to three matrices, whose outputs are numbered one after another.
struct Parts {
  DecodeMatrix of[3];
  int count = 0;
};

// What a warp computes at a time: this row and a second one, if there is that.
struct Rows {
  int part, row;
  int output;  // number of the first among all
};

// Neighbouring rows of one matrix.
struct Neighbours {
  static constexpr int kPart = 0, kRow = 1;  // from the first row to the second
  __host__ __device__ static int tasks(const Parts& parts) {
    int sum = 0;
    for (int p = 0; p < parts.count; ++p) sum += (parts.of[p].out + 1) / 2;
    return sum;
  }
  __device__ static Rows rows(const Parts& parts, int task) {
    int p = 0, output = 0;
    for (; task >= (parts.of[p].out + 1) / 2; ++p) {
      task -= (parts.of[p].out + 1) / 2;
      output += parts.of[p].out;
    }
    return {p, task * 2, output + task * 2};
  }
};
// The same row of two matrices.
struct SameRow {
  static constexpr int kPart = 1, kRow = 0;
  __host__ __device__ static int tasks(const Parts& parts) { return parts.of[0].out; }
  __device__ static Rows rows(const Parts&, int task) { return {0, task, task}; }
};

// What becomes of two sums; ahead() is what that takes from memory, loaded before they are known.
struct Put {
  float* y;
  Rotation turn;
  using Ahead = float2;
  __device__ Ahead ahead(int output, bool) const {
    return output < turn.outputs ? turn.angles[output % turn.d / 2] : make_float2(1, 0);
  }
  __device__ void operator()(int output, bool both, float2 sums, Ahead angle) const {
    if (output < turn.outputs) sums = turned(sums, angle);
    y[output] = sums.x;
    if (both) y[output + 1] = sums.y;
  }
};
struct Add {
  float* y;
  using Ahead = float2;
  __device__ Ahead ahead(int output, bool both) const { return {y[output], both ? y[output + 1] : 0.0f}; }
  __device__ void operator()(int output, bool both, float2 sums, Ahead before) const {
    y[output] = before.x + sums.x;
    if (both) y[output + 1] = before.y + sums.y;
  }
};
struct PutGated {
  bf16* out;
  struct Ahead {};
  __device__ Ahead ahead(int, bool) const { return {}; }
  __device__ void operator()(int output, bool, float2 sums, Ahead) const {
    out[output] = __float2bfloat16_rn(silu(sums.x) * sums.y);
  }
};

// Steps of a warp through its rows, one after another without a pause between them: the loads of the next step, even
// those of the next rows, are under way while this one is computed. The first two are, while the input is prepared.
template <class Form, class Pairs>
class Walk {
 public:
  __device__ Walk(const Parts& of, int inputs)
      : parts_(of),
        tasks_(Pairs::tasks(of)),
        chunks_(inputs / Form::kInputs),
        steps_((chunks_ + kWarp * kLoads - 1) / (kWarp * kLoads)),
        task(int(blockIdx.x) * kWarps + int(threadIdx.x) / kWarp) {
    if (task < tasks_) rows_ = Pairs::rows(parts_, task);
  }

  /// Loads this step's weights and goes on to the next.
  __device__ void load(typename Form::Load (&to)[kRows][kLoads]) {
    if (task >= tasks_) return;
    const DecodeMatrix &first = parts_.of[rows_.part], &second = parts_.of[rows_.part + Pairs::kPart];
    const bool both = has_second(rows_);
    const std::uint32_t at_first = std::uint32_t(rows_.row) * std::uint32_t(chunks_),
                        at_second = at_first + std::uint32_t(Pairs::kRow * chunks_);
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      const int at = chunk(step, l);
      if (at >= chunks_) continue;
      to[0][l] = Form::load(first, at_first + std::uint32_t(at));
      if (both) to[1][l] = Form::load(second, at_second + std::uint32_t(at));
    }
    if (++step < steps_) return;
    step = 0;
    task += int(gridDim.x) * kWarps;
    if (task < tasks_) rows_ = Pairs::rows(parts_, task);
  }
  __device__ bool has_second(const Rows& rows) const {
    return rows.row + Pairs::kRow < parts_.of[rows.part + Pairs::kPart].out;
  }
  __device__ bool within(int of_task) const { return of_task < tasks_; }
  __device__ bool last(int of_step) const { return of_step + 1 == steps_; }
  __device__ void multiply(const typename Form::Load (&w)[kRows][kLoads], int of_step, const Inputs& inputs,
                           float (&sums)[kRows]) const {
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
      if (chunk(of_step, l) >= chunks_) continue;
      sums[0] = Form::dot(w[0][l], inputs, chunk(of_step, l), sums[0]);
      sums[1] = Form::dot(w[1][l], inputs, chunk(of_step, l), sums[1]);
    }
  }

 private:
  __device__ static int chunk(int of_step, int load) {
    return (of_step * kLoads + load) * kWarp + int(threadIdx.x) % kWarp;
  }
  const Parts& parts_;
  int tasks_, chunks_, steps_;
  Rows rows_{};

 public:
  int task, step = 0;  ///< whose weights are loaded next
};

template <class Form, class Pairs, class Take, class Give>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    product_kernel(const __grid_constant__ Parts parts, int in, Take take, Give give) {
  float* shared = shared_memory<float>();
  const int stride = stride_of(in);
  const Inputs inputs{reinterpret_cast<float4*>(shared), shared + stride * kGroup, stride};
  Walk<Form, Pairs> walk(parts, in);
  typename Form::Load loaded[kRows][kLoads] = {}, ahead[kRows][kLoads] = {};
  int task = walk.task, step = walk.step;  // of `loaded`
  walk.load(loaded);
  int next_task = walk.task, next_step = walk.step;
  walk.load(ahead);
  take.before(inputs, in);
  await_predecessor();
  take(inputs, in);
  __syncthreads();
  if constexpr (Form::kSums) {
    sum_groups(inputs, in);
    __syncthreads();
  }

  float sums[kRows] = {};
  typename Give::Ahead other = {};
  while (walk.within(task)) {
    if (step == 0) {
      const Rows rows = Pairs::rows(parts, task);
      other = give.ahead(rows.output, walk.has_second(rows));
    }
    walk.multiply(loaded, step, inputs, sums);
    if (walk.last(step)) {
      const float2 sum = {warp_sum(sums[0]), warp_sum(sums[1])};
      if (threadIdx.x % kWarp == 0) {
        const Rows rows = Pairs::rows(parts, task);
        const bool both = walk.has_second(rows);
        const float *first = parts.of[rows.part].bias, *second = parts.of[rows.part + Pairs::kPart].bias;
        give(rows.output, both,
             {sum.x + (first ? first[rows.row] : 0.0f),
              sum.y + (second && both ? second[rows.row + Pairs::kRow] : 0.0f)},
             other);
      }
      sums[0] = sums[1] = 0;
    }
    task = next_task, step = next_step;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int l = 0; l < kLoads; ++l) loaded[r][l] = ahead[r][l];
    next_task = walk.task, next_step = walk.step;
    walk.load(ahead);
  }
}

template <class Form, class Pairs, class Take, class Give>
void launch_product(cudaStream_t stream, const Parts& parts, const Take& take, const Give& give) {
  int device = 0, multiprocessors = 0;
  check_cuda(cudaGetDevice(&device), "device of a product");
  check_cuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "multiprocessors");
  const int in = parts.of[0].in, blocks = (Pairs::tasks(parts) + kWarps - 1) / kWarps;
  launch_early(stream, dim3(unsigned(std::min(blocks, multiprocessors * kBlocksPerMultiprocessor))), dim3(kThreads),
               shared_bytes(in), product_kernel<Form, Pairs, Take, Give>, parts, in, take, give);
}

template <class Pairs, class Take, class Give>
void multiply(cudaStream_t stream, const Parts& parts, const Take& take, const Give& give) {
  if (parts.of[0].form == WeightForm::q4)
    launch_product<GroupQ4, Pairs>(stream, parts, take, give);
  else if (parts.of[0].form == WeightForm::q8)
    launch_product<SixteenQ8, Pairs>(stream, parts, take, give);
  else if (parts.of[0].in % EightBf16::kInputs == 0)
    launch_product<EightBf16, Pairs>(stream, parts, take, give);
  else
    launch_product<OneBf16, Pairs>(stream, parts, take, give);
}

// ---- one token -----------------------------------------------------------------------------------------------------

constexpr int kTokenThreads = 256;

__global__ void __launch_bounds__(kTokenThreads)
    embed_token_kernel(const bf16* __restrict__ table, const StepState* state, int width,
                       const double* __restrict__ inv_freq, int pairs, float magnitude, float* __restrict__ x,
                       float2* __restrict__ angles) {
  const int i = int(blockIdx.x) * kTokenThreads + int(threadIdx.x);
  await_predecessor();
  if (i < width) x[i] = __bfloat162float(table[std::int64_t(state->token) * width + i]);
  if (i < pairs) angles[i] = angle_of(state->position, inv_freq[i], magnitude);
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
    best_of_blocks_kernel(const float* logits, int vocab, const std::int32_t* banned, int n_banned,
                          std::uint64_t* best) {
  __shared__ typename BestOfBlock::TempStorage shared;
  await_predecessor();
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
    best_of_all_kernel(const std::uint64_t* of_blocks, int blocks, StepState* state, std::int32_t* best) {
  __shared__ typename BestOfBlock::TempStorage shared;
  await_predecessor();
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

void embed_token(cudaStream_t stream, const bf16* table, const StepState* state, int width, const double* inv_freq,
                 int d, float magnitude, float* x, float2* angles) {
  const int threads = std::max(width, d / 2);
  launch_early(stream, dim3(unsigned((threads + kTokenThreads - 1) / kTokenThreads)), dim3(kTokenThreads), 0,
               embed_token_kernel, table, state, width, inv_freq, d / 2, magnitude, x, angles);
}

void project(cudaStream_t stream, std::span<const DecodeMatrix> matrices, const NormedInput& input,
             const Rotation& rotation, float* y) {
  int done = 0;
  for (std::size_t first = 0; first < matrices.size();) {  // a launch for each run of the same form
    Parts parts;
    Put put{y + done, rotation};
    put.turn.outputs -= done;
    for (; first < matrices.size() && (parts.count == 0 || matrices[first].form == parts.of[0].form); ++first) {
      parts.of[parts.count++] = matrices[first];
      done += matrices[first].out;
    }
    multiply<Neighbours>(stream, parts, TakeNormed{input}, put);
  }
}

void add_product(cudaStream_t stream, const DecodeMatrix& w, const bf16* x, float* y) {
  multiply<Neighbours>(stream, Parts{{w}, 1}, TakeRounded{x}, Add{y});
}

void gate_up(cudaStream_t stream, const DecodeMatrix& gate, const DecodeMatrix& up, const NormedInput& input,
             bf16* out) {
  multiply<SameRow>(stream, Parts{{gate, up}, 2}, TakeNormed{input}, PutGated{out});
}

std::size_t arg_max_bytes(int vocab) { return std::size_t(id_blocks(vocab)) * sizeof(std::uint64_t); }

void arg_max(cudaStream_t stream, const float* logits, int vocab, const std::int32_t* banned, int n_banned, void* work,
             StepState* state, std::int32_t* best) {
  auto* of_blocks = static_cast<std::uint64_t*>(work);
  const int blocks = id_blocks(vocab);
  launch_early(stream, dim3(unsigned(blocks)), dim3(kTokenThreads), 0, best_of_blocks_kernel, logits, vocab, banned,
               n_banned, of_blocks);
  launch_early(stream, dim3(1), dim3(kTokenThreads), 0, best_of_all_kernel, of_blocks, blocks, state, best);
}

}  // namespace fastkv::cuda
