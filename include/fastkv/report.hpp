// Files and lines that describe a run: trace, statistics, progress as JSON; logits as NumPy; token ids from JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fastkv/engine.hpp"

namespace fastkv {

/// Writes the trace (spec/trace.md) of a run made with record_trace, atomically (temporary name, then rename). Throws
/// Error io with one line when the disk is full or the folder missing; no partial file is left.
void write_trace(const std::string& path, const RunResult& result);

/// Writes float32 [rows, cols] as a NumPy .npy file, atomically.
void write_npy(const std::string& path, const std::vector<float>& values, std::int64_t rows, std::int64_t cols);

/// Writes `text` to `path` atomically.
void write_file(const std::string& path, std::string_view text);

/// A JSON array of token ids from a file. Throws Error (io, bad_file) naming what was found instead.
std::vector<std::int32_t> read_token_ids(const std::string& path);

/// One line of JSON: {"event":"prefill","total":…,"processed":…,"layer":…,"time_ms":…} (spec/cli.md).
std::string progress_json(const Progress& progress);

/// The statistics of a run as indented JSON, for --perf-json.
std::string stats_json(const EngineInfo& info, const RunResult& result, double tokenize_ms, double ttft_ms);

/// The method of a plan and its parameters, context and cache types, one line of JSON.
std::string options_json(const RunPlan& plan);

/// A JSON array of ids, one line.
std::string token_ids_json(const std::vector<std::int32_t>& ids);

/// Ids from the text of a JSON array. Throws Error bad_file.
std::vector<std::int32_t> parse_token_ids(std::string_view json);

}  // namespace fastkv
