// Distributions over a text, and sums in double.
#include "support/divergence.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string>

namespace fastkv::test {
namespace {

/// ln Σ exp(x).
double log_sum_exp(const float* x, std::size_t n) {
  const double top = double(*std::max_element(x, x + n));
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += std::exp(double(x[i]) - top);
  return top + std::log(sum);
}

}  // namespace

Logits text_logits(const EngineOptions& settings, const std::filesystem::path& path, std::size_t tokens) {
  std::ifstream file(path);
  std::string text(32 * 1024, '\0');
  file.read(text.data(), std::streamsize(text.size()));
  Engine engine(settings);
  std::vector<std::int32_t> ids = engine.tokenizer().encode(text.substr(0, text.rfind(' ')));
  if (ids.size() < tokens) throw std::runtime_error("the text is too short");
  ids.resize(tokens);
  engine.load();
  RunOptions options;
  options.method.method = MethodName::full;
  options.n_predict = 0;
  options.all_logits = true;
  return {std::size_t(engine.info().n_vocab), engine.run(ids, options).all_logits};
}

Divergence divergence(const Logits& p, const Logits& q) {
  if (p.vocab != q.vocab || p.values.size() != q.values.size()) throw std::runtime_error("logits of unequal sizes");
  Divergence out;
  const std::size_t rows = p.values.size() / p.vocab;
  for (std::size_t r = 0; r < rows; ++r) {
    const float *a = p.values.data() + r * p.vocab, *b = q.values.data() + r * p.vocab;
    const double a_sum = log_sum_exp(a, p.vocab), b_sum = log_sum_exp(b, p.vocab);
    double kl = 0;
    for (std::size_t i = 0; i < p.vocab; ++i) {
      const double log_p = double(a[i]) - a_sum;
      kl += std::exp(log_p) * (log_p - (double(b[i]) - b_sum));
    }
    out.mean_kl += kl / double(rows);
    out.same_best +=
        double(std::max_element(a, a + p.vocab) - a == std::max_element(b, b + p.vocab) - b) / double(rows);
  }
  return out;
}

}  // namespace fastkv::test
