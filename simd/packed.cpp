// The table of packings, from the same description that the kernels are compiled from.
#include "simd/packed.hpp"

#include "simd/kernels/format.inl.hpp"

namespace fastkv::simd {
namespace {

constexpr PackingInfo make_info(Packing packing) {
  const Format f = format(packing);
  return {packing, f.block, f.block_bytes(), f.scale_group, f.affine, f.zero};
}

constexpr PackingInfo kInfos[kPackings] = {
    make_info(Packing::q4_0), make_info(Packing::q4_1),   make_info(Packing::q5_0),   make_info(Packing::q5_1),
    make_info(Packing::q8_0), make_info(Packing::q3_k),   make_info(Packing::q4_k),   make_info(Packing::q5_k),
    make_info(Packing::q6_k), make_info(Packing::iq4_nl), make_info(Packing::iq4_xs), make_info(Packing::f32),
    make_info(Packing::f16),  make_info(Packing::bf16),
};

}  // namespace

const PackingInfo& info(Packing packing) { return kInfos[int(packing)]; }

}  // namespace fastkv::simd
