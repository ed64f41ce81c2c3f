// Methods by name.
#include "prefill/methods/method.hpp"

#include "core/check.hpp"
#include "prefill/methods/fastkv.hpp"
#include "prefill/methods/full.hpp"

namespace fastkv {

std::unique_ptr<Method> make_method(const MethodParams& params, const std::vector<LayerPlan>& layers,
                                    const ModelConfig& config) {
  switch (params.method) {
    case MethodName::full: return std::make_unique<Full>(config.n_head_kv);
    case MethodName::fastkv: return std::make_unique<FastKv>(params, layers, config.n_head_kv);
  }
  fail(ErrorCode::internal, "make_method: method ", int(params.method));
}

}  // namespace fastkv
