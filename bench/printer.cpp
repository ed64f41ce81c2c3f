// The four formats.
#include "bench/printer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "bench/runner.hpp"
#include "common/format.hpp"
#include "fastkv/engine.hpp"
#include "fastkv/error.hpp"

namespace fastkv::bench {

namespace {

using tools::format;

class Csv final : public Printer {
 public:
  explicit Csv(std::FILE* out) : out_(out) {}
  void print(const OrderedJson& record) override {
    std::string header, line;
    for (const auto& [key, value] : record.items()) {
      if (value.is_array()) continue;  // as llama-bench, whose CSV has no samples
      header += (header.empty() ? "" : ",") + key;
      std::string text = value.is_string() ? value.get<std::string>() : value.is_null() ? "" : dump(value);
      for (std::size_t at = 0; (at = text.find('"', at)) != std::string::npos; at += 2) text.insert(at, 1, '"');
      line += (line.empty() ? "\"" : ",\"") + text + "\"";
    }
    write_text(out_, (first_ ? header + "\n" : "") + line + "\n");
    first_ = false;
  }

 private:
  std::FILE* out_;
  bool first_ = true;
};

class Jsonl final : public Printer {
 public:
  explicit Jsonl(std::FILE* out) : out_(out) {}
  void print(const OrderedJson& record) override { write_text(out_, dump(record) + "\n"); }

 private:
  std::FILE* out_;
};

class JsonArray final : public Printer {
 public:
  explicit JsonArray(std::FILE* out) : out_(out) {}
  void begin() override { write_text(out_, "[\n"); }
  void print(const OrderedJson& record) override {
    std::string text = first_ ? "  {\n" : ",\n  {\n";
    first_ = false;
    for (auto it = record.begin(); it != record.end();) {
      text += "    " + dump(OrderedJson(it.key())) + ": " + dump(it.value());
      text += ++it == record.end() ? "\n" : ",\n";
    }
    write_text(out_, text + "  }");
  }
  void end() override { write_text(out_, first_ ? "]\n" : "\n]\n"); }

 private:
  std::FILE* out_;
  bool first_ = true;
};

/// llama-bench's columns, the fields that differ between rows, and after its t/s the median and the share of the peak.
class Markdown final : public Printer {
 public:
  Markdown(std::FILE* out, const Arguments& arguments) : out_(out) {
    columns_ = {{"model", 30, true, [](const OrderedJson& r) { return r["model_type"].get<std::string>(); }},
                {"size", 10, false, [](const OrderedJson& r) { return size_text(r["model_size"]); }},
                {"params", 10, false, [](const OrderedJson& r) { return params_text(r["model_n_params"]); }},
                {"backend", 10, true, [](const OrderedJson& r) { return r["backends"].get<std::string>(); }},
                {"threads", 7, false, field("n_threads")}};
    const auto varied = [](const auto& list, const auto& standard) {
      return std::any_of(list.begin(), list.end(), [&](const auto& value) { return value != standard; });
    };
    if (varied(arguments.threads_batch, 0)) columns_.push_back({"tb", 4, false, field("n_threads_batch")});
    if (varied(arguments.type_k, CacheType::automatic)) columns_.push_back({"type_k", 6, false, field("type_k")});
    if (varied(arguments.type_v, CacheType::automatic)) columns_.push_back({"type_v", 6, false, field("type_v")});
    if (varied(arguments.compute, Compute::automatic)) columns_.push_back({"compute", 7, false, field("compute")});
    if (varied(arguments.methods.methods, MethodName::full)) columns_.push_back({"method", 12, false, field("method")});
    if (varied(arguments.tsp_layer, std::nullopt)) columns_.push_back({"tsp_layer", 9, false, field("tsp_layer")});
    if (varied(arguments.tsp_rate, std::nullopt)) columns_.push_back({"tsp_rate", 8, false, field("tsp_rate")});
    if (varied(arguments.retention, std::nullopt)) columns_.push_back({"retention", 9, false, field("retention")});
    columns_.push_back({"test", 15, false, test_name});
    columns_.push_back({"t/s", 20, false, [](const OrderedJson& r) {
                          return format("%.2f ± %.2f", r["avg_ts"].get<double>(), r["stddev_ts"].get<double>());
                        }});
    columns_.push_back(
        {"median", 10, false, [](const OrderedJson& r) { return format("%.2f", r["median_ts"].get<double>()); }});
    columns_.push_back({"of peak", 7, false, [](const OrderedJson& r) {
                          const auto& share = r["share_of_peak"];
                          return share.is_null() ? std::string() : format("%.1f %%", 100 * share.get<double>());
                        }});
  }

  void print(const OrderedJson& record) override {
    std::string text;
    if (first_) {
      std::string rule;
      for (const Column& column : columns_) {
        text += cell(column, column.name);
        rule += "| " + std::string(column.width - (column.left ? 0 : 1), '-') + (column.left ? " " : ": ");
      }
      text += "|\n" + rule + "|\n";
    }
    first_ = false;
    for (const Column& column : columns_) text += cell(column, column.value(record));
    write_text(out_, text + "|\n");
  }
  void end() override { write_text(out_, "\nbuild: " + build_commit() + " (0)\n"); }

 private:
  struct Column {
    std::string name;
    std::size_t width;
    bool left;
    std::function<std::string(const OrderedJson&)> value;
  };

  static std::function<std::string(const OrderedJson&)> field(const char* name) {
    return [name](const OrderedJson& r) {
      const auto& value = r[name];
      return value.is_null() ? std::string() : value.is_string() ? value.get<std::string>() : dump(value);
    };
  }
  static std::string cell(const Column& column, const std::string& text) {
    const auto shown = static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
    const std::string padding(column.width > shown ? column.width - shown : 0, ' ');
    return "| " + (column.left ? text + padding : padding + text) + " ";
  }

  std::FILE* out_;
  std::vector<Column> columns_;
  bool first_ = true;
};

}  // namespace

Output::Output(const Arguments& arguments, bool on_stdout) {
  if (on_stdout) printers_.push_back(make_printer(arguments.output, stdout, arguments));
  if (arguments.output_err != Format::none) {
    printers_.push_back(make_printer(arguments.output_err, stderr, arguments));
  }
}

void Output::print(const OrderedJson& record) {
  for (const auto& printer : printers_) printer->print(record);
}

void Output::end() {
  for (const auto& printer : printers_) printer->end();
}

void Output::during(const std::function<void()>& body) {
  for (const auto& printer : printers_) printer->begin();
  try {
    body();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) end();
    throw;
  }
  end();
}

void write_text(std::FILE* out, const std::string& text) {
  if (std::fputs(text.c_str(), out) < 0 || std::fflush(out) != 0) {
    throw Error(ErrorCode::io, std::string("cannot write the results: ") + std::strerror(errno));
  }
}

std::string size_text(double bytes) {
  constexpr double kMiB = 1024.0 * 1024, kGiB = 1024 * kMiB;
  return bytes >= kGiB ? format("%.2f GiB", bytes / kGiB) : format("%.2f MiB", bytes / kMiB);
}

std::string params_text(double params) {
  return params >= 1e9 ? format("%.2f B", params / 1e9) : format("%.2f M", params / 1e6);
}

std::string test_name(const OrderedJson& record) {
  return Test{record.value("n_prompt", std::int64_t{0}), record.value("n_gen", std::int64_t{0}),
              record.value("n_depth", std::int64_t{0})}
      .name();
}

std::unique_ptr<Printer> make_printer(Format output, std::FILE* out, const Arguments& arguments) {
  switch (output) {
    case Format::none:
      return nullptr;
    case Format::csv:
      return std::make_unique<Csv>(out);
    case Format::json:
      return std::make_unique<JsonArray>(out);
    case Format::jsonl:
      return std::make_unique<Jsonl>(out);
    case Format::md:
      return std::make_unique<Markdown>(out, arguments);
  }
  return nullptr;
}

}  // namespace fastkv::bench
