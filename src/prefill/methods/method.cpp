// Methods by name, and what they share.
#include "prefill/methods/method.hpp"

#include "core/check.hpp"
#include "prefill/methods/adakv.hpp"
#include "prefill/methods/fastkv.hpp"
#include "prefill/methods/full.hpp"
#include "prefill/methods/gemfilter.hpp"
#include "prefill/methods/h2o.hpp"
#include "prefill/methods/headkv.hpp"
#include "prefill/methods/pyramidinfer.hpp"
#include "prefill/methods/pyramidkv.hpp"
#include "prefill/methods/snapkv.hpp"
#include "prefill/methods/streamingllm.hpp"
#include "prefill/methods/tova.hpp"

namespace fastkv {

std::int64_t truncated(std::int64_t n, double rate) { return std::int64_t(double(n) * rate); }

Method::Method(const MethodParams& params, const ModelConfig& config, std::int64_t n_prompt)
    : params_(params),
      n_layer_(config.n_layer),
      heads_(config.n_head),
      heads_kv_(config.n_head_kv),
      n_prompt_(n_prompt) {}

std::int64_t Method::budget(std::int64_t n) const {
  return params_.proportional ? truncated(n, params_.retention) : params_.kv_budget;
}

LayerChoice Method::keep_all(std::int64_t n, Backend& backend, std::optional<double> coverage) const {
  return {backend.select_ends(n, n, 0, stored_heads()), nullptr, coverage};
}

std::unique_ptr<Method> make_method(const MethodParams& p, const ModelConfig& config, std::int64_t n) {
  switch (p.method) {
    case MethodName::full:
      return std::make_unique<Full>(p, config, n);
    case MethodName::fastkv:
      return std::make_unique<FastKv>(p, config, n);
    case MethodName::snapkv:
      return std::make_unique<SnapKv>(p, config, n);
    case MethodName::streamingllm:
      return std::make_unique<StreamingLlm>(p, config, n);
    case MethodName::h2o:
      return std::make_unique<H2o>(p, config, n);
    case MethodName::gemfilter:
      return std::make_unique<GemFilter>(p, config, n);
    case MethodName::pyramidinfer:
      return std::make_unique<PyramidInfer>(p, config, n);
    case MethodName::headkv:
      return std::make_unique<HeadKv>(p, config, n);
    case MethodName::pyramidkv:
      return std::make_unique<PyramidKv>(p, config, n);
    case MethodName::adakv:
      return std::make_unique<AdaKv>(p, config, n);
    case MethodName::tova:
      return std::make_unique<Tova>(p, config, n);
  }
  fail(ErrorCode::internal, "make_method: method ", int(p.method));
}

}  // namespace fastkv
