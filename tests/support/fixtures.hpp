// Where the shared test data lies: $FASTKV_FIXTURES, or ../shared/fixtures beside the project.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace fastkv::test {

inline std::filesystem::path fixtures() {
  if (const char* dir = std::getenv("FASTKV_FIXTURES")) return dir;
  return std::filesystem::path(FASTKV_SOURCE_DIR) / ".." / "shared" / "fixtures";
}

/// A novel in English.
inline std::filesystem::path novel() { return fixtures() / "text" / "frankenstein.txt"; }

/// The small real model: $FASTKV_TEST_MODEL, or models/SmolLM2-135M-Instruct.Q4_1.gguf in the project
/// (tools/get-model).
inline std::filesystem::path smollm2() {
  if (const char* file = std::getenv("FASTKV_TEST_MODEL")) return file;
  return std::filesystem::path(FASTKV_SOURCE_DIR) / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace fastkv::test

/// Skips the current test, saying which file is missing.
#define FASTKV_REQUIRE_FILE(wanted) \
  if (!std::filesystem::exists(wanted)) GTEST_SKIP() << "missing " << std::filesystem::path(wanted).string()
