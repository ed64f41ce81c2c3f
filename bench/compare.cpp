// Matching of results and their ratios.
#include "bench/compare.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "bench/arguments.hpp"
#include "bench/printer.hpp"
#include "common/cli.hpp"
#include "common/format.hpp"
#include "common/table.hpp"
#include "fastkv/error.hpp"

namespace fastkv::bench {

namespace {

constexpr const char* kTest[] = {"n_prompt", "n_gen"};
constexpr const char* kSetting[] = {"n_threads", "type_k", "type_v"};  // by nature not the same on a CPU and a GPU
// "engine" facts: a result of another program has none of ours and agrees in none
constexpr const char* kDetails[] = {"method", "tsp_layer",       "tsp_rate",     "retention", "compute",
                                    "isa",    "n_threads_batch", "build_commit", "cpu_info",  "gpu_info"};

OrderedJson value_of(const OrderedJson& record, const char* key) {
  const auto found = record.find(key);
  if (found == record.end()) return nullptr;
  return *found;
}

std::string model_file(const OrderedJson& record) {
  const OrderedJson path = value_of(record, "model_filename");
  const std::string text = path.is_string() ? path.get<std::string>() : "";
  return text.substr(text.rfind('/') + 1);
}

std::string word(const OrderedJson& record, const char* key, const char* otherwise) {
  const OrderedJson value = value_of(record, key);
  return value.is_string() ? value.get<std::string>() : otherwise;
}

/// The GPU's name; empty: a CPU alone.
std::string gpu(const OrderedJson& record) { return word(record, "gpu_info", ""); }

bool same_test(const OrderedJson& a, const OrderedJson& b) {
  if (model_file(a) != model_file(b)) return false;
  const auto depth = [](const OrderedJson& r) { return r.value("n_depth", std::int64_t{0}); };  // older programs: none
  if (depth(a) != depth(b)) return false;
  const auto same = [&](const char* key) { return value_of(a, key) == value_of(b, key); };
  return std::all_of(std::begin(kTest), std::end(kTest), same) &&
         (gpu(a) != gpu(b) || std::all_of(std::begin(kSetting), std::end(kSetting), same));
}

int agreement(const OrderedJson& a, const OrderedJson& b) {
  return static_cast<int>(std::count_if(std::begin(kDetails), std::end(kDetails),
                                        [&](const char* key) { return value_of(a, key) == value_of(b, key); }));
}

std::vector<OrderedJson> parse_records(const std::string& path, const std::string& text) {
  OrderedJson whole = OrderedJson::parse(text, nullptr, false);
  if (whole.is_array()) return {whole.begin(), whole.end()};
  if (whole.is_object()) return {whole};
  std::vector<OrderedJson> records;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    records.push_back(OrderedJson::parse(line, nullptr, false));
    if (!records.back().is_object()) {
      throw Error(ErrorCode::bad_file,
                  tools::format("%s: line %d: expected results as JSON (-o json or -o jsonl)", path.c_str(), number));
    }
  }
  return records;
}

}  // namespace

std::vector<Measurement> read_measurements(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, "cannot open " + path + ": " + std::strerror(errno));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  std::vector<Measurement> all;
  for (const OrderedJson& record : parse_records(path, text)) {
    const OrderedJson samples = record.is_object() ? value_of(record, "samples_ts") : OrderedJson(nullptr);
    Measurement measurement{record, {}};
    for (const auto& sample : samples) {
      if (sample.is_number()) measurement.samples.push_back(sample.get<double>());
    }
    const bool wrong = std::any_of(measurement.samples.begin(), measurement.samples.end(),
                                   [](double x) { return !std::isfinite(x) || x <= 0; });
    if (measurement.samples.empty() || measurement.samples.size() != samples.size() || wrong) {
      throw Error(ErrorCode::bad_file, tools::format("%s: result %zu: expected positive numbers in samples_ts",
                                                     path.c_str(), all.size() + 1));
    }
    const auto twin = std::find_if(all.begin(), all.end(), [&](const Measurement& other) {
      return same_test(other.record, record) &&
             agreement(other.record, record) == static_cast<int>(std::size(kDetails));
    });
    if (twin == all.end()) {
      all.push_back(std::move(measurement));
    } else {
      twin->samples.insert(twin->samples.end(), measurement.samples.begin(), measurement.samples.end());
    }
  }
  if (all.empty()) throw Error(ErrorCode::bad_file, path + ": expected results as JSON, found none");
  return all;
}

std::vector<Comparison> compare(const std::vector<Measurement>& a, const std::vector<Measurement>& b) {
  std::vector<Comparison> found;
  for (const Measurement& mine : b) {
    const Measurement* best = nullptr;
    for (const Measurement& candidate : a) {
      if (!same_test(candidate.record, mine.record)) continue;
      if (!best || agreement(candidate.record, mine.record) > agreement(best->record, mine.record)) best = &candidate;
    }
    if (best) found.push_back({best, &mine, ratio(spread(mine.samples), spread(best->samples))});
  }
  return found;
}

int run_compare(int argc, const char* const* argv) {
  std::vector<std::string> files;
  Format output = Format::md;
  tools::CommandLine command(
      "fastkv-bench compare", "A.json B.json...",
      "Tokens per second of B over those of A, test by test: medians, and the deviation that both spreads make.\n"
      "Reads what -o json and -o jsonl write, here and in llama-bench; runs of one test in a file\n"
      "are put together.");
  command.positionals("files", "results; the first is what the others are divided by", files);
  command.choice<Format, Format>("-o,--output", output, {{"md", Format::md}, {"jsonl", Format::jsonl}},
                                 "on stdout (default md)");
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  if (files.size() < 2) throw tools::UsageError("compare needs two files or more: A.json B.json...");
  std::vector<std::vector<Measurement>> results;
  for (const std::string& file : files) results.push_back(read_measurements(file));

  tools::Table table({"model", "test", "threads", "A", "B", "A t/s", "B t/s", "B / A"});
  const auto label = [](const OrderedJson& r) {
    // another program's result has no method: its build stands for it
    const std::string method = word(r, "method", "");
    if (method.empty()) return "build " + word(r, "build_commit", "?");
    return method + " " + word(r, "compute", "") + (gpu(r).empty() ? "" : " on " + gpu(r));
  };
  std::size_t matched = 0;
  for (std::size_t f = 1; f < files.size(); ++f) {
    for (const Comparison& c : compare(results[0], results[f])) {
      ++matched;
      const OrderedJson &a = c.a->record, &b = c.b->record;
      const Spread of_a = spread(c.a->samples), of_b = spread(c.b->samples);
      const OrderedJson threads = value_of(b, "n_threads");
      if (output == Format::jsonl) {
        OrderedJson json;
        json["a"] = files[0];
        json["b"] = files[f];
        json["model_filename"] = model_file(b);
        json["test"] = test_name(b);
        json["n_threads"] = threads;
        json["method_a"] = value_of(a, "method");
        json["method_b"] = value_of(b, "method");
        json["gpu_a"] = gpu(a);
        json["gpu_b"] = gpu(b);
        json["median_ts_a"] = of_a.median;
        json["median_ts_b"] = of_b.median;
        json["ratio"] = c.ratio.median;
        json["stddev_ratio"] = c.ratio.deviation;
        write_text(stdout, dump(json) + "\n");
        continue;
      }
      table.row({word(b, "model_type", model_file(b).c_str()), test_name(b), dump(threads), label(a), label(b),
                 tools::format("%.2f ± %.2f", of_a.median, of_a.deviation),
                 tools::format("%.2f ± %.2f", of_b.median, of_b.deviation),
                 tools::format("%.3fx ± %.3f", c.ratio.median, c.ratio.deviation)});
    }
  }
  if (matched == 0) {
    throw Error(ErrorCode::bad_input,
                "no test of " + files[0] + " is in the other files too (same model file, test, threads, cache types)");
  }
  if (output == Format::md) write_text(stdout, table.text());
  return 0;
}

}  // namespace fastkv::bench
