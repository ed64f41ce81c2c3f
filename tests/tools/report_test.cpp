// Files and lines that describe a run: what they hold, that they are whole or absent, what a bad one says.
#include "fastkv/report.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace fastkv {
namespace {

namespace fs = std::filesystem;

class Report : public ::testing::Test {
 protected:
  Report() : folder_(fs::temp_directory_path() / ("fastkv-report-" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~Report() override { fs::remove_all(folder_); }

  std::string path(const char* name) const { return (folder_ / name).string(); }
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::size_t files() const { return std::distance(fs::directory_iterator(folder_), fs::directory_iterator()); }

  /// The message of the Error that `run` throws, which must have `code`.
  template <class F>
  static std::string error(ErrorCode code, F run) {
    try {
      run();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  fs::path folder_;
};

RunResult example() {
  RunResult result;
  result.tokens = {5, 6};
  result.plan.method.method = MethodName::fastkv;
  result.plan.method.tsp_layer = 1;
  result.plan.n_prompt = 4;
  result.plan.cache_k = result.plan.cache_v = CacheType::f32;
  result.trace.layers = {{4, {{0, 3}, {2, 3}}, 0.75}, {2, {{0, 3}, {0, 3}}, std::nullopt}};
  result.trace.tsp_layer = 1;
  result.trace.tsp_kept = {0, 3};
  result.trace.next_position = 4;
  result.trace.first_logits = {{5, 1.5f}, {6, -0.25f}};
  result.trace.kv_bytes_f16 = 64;
  return result;
}

TEST_F(Report, TraceHasTheKeysOfTheSpecification) {
  write_trace(path("t.json"), example());
  const auto json = nlohmann::json::parse(read(path("t.json")));
  EXPECT_EQ(json["method"], "fastkv");
  EXPECT_EQ(json["n_prompt"], 4);
  EXPECT_EQ(json["options"]["tsp_rate"], 0.2);
  EXPECT_EQ(json["options"]["retention"], 0.1);
  EXPECT_FALSE(json["options"].contains("kv_budget"));
  EXPECT_EQ(json["options"]["window"], 8);
  EXPECT_EQ(json["tsp"]["layer"], 1);
  EXPECT_EQ(json["tsp"]["kept"], (std::vector<int>{0, 3}));
  ASSERT_EQ(json["layers"].size(), 2u);
  EXPECT_EQ(json["layers"][0]["tokens_in"], 4);
  EXPECT_EQ(json["layers"][0]["kept"], (std::vector<std::vector<int>>{{0, 3}, {2, 3}}));
  EXPECT_EQ(json["layers"][0]["coverage"], 0.75);
  EXPECT_TRUE(json["layers"][1]["coverage"].is_null());
  EXPECT_EQ(json["next_position"], 4);
  EXPECT_EQ(json["first_logits"][0], (nlohmann::json{5, 1.5}));
  EXPECT_EQ(json["generated"], (std::vector<int>{5, 6}));
  EXPECT_EQ(json["kv_bytes_f16"], 64);

  RunResult full = example();
  full.plan.method.method = MethodName::full;
  full.trace.tsp_layer.reset();
  write_trace(path("t.json"), full);
  const auto replaced = nlohmann::json::parse(read(path("t.json")));
  EXPECT_TRUE(replaced["tsp"].is_null());
  EXPECT_FALSE(replaced["options"].contains("tsp_layer"));
  EXPECT_EQ(files(), 1u) << "a temporary file was left";
}

TEST_F(Report, NumpyFilesHaveAnAlignedHeader) {
  write_npy(path("l.npy"), {1, 2, 3, 4, 5, 6}, 2, 3);
  const std::string bytes = read(path("l.npy"));
  ASSERT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const std::size_t header = 10 + static_cast<unsigned char>(bytes[8]) + 256 * static_cast<unsigned char>(bytes[9]);
  EXPECT_EQ(header % 64, 0u);
  EXPECT_EQ(bytes[header - 1], '\n');
  EXPECT_NE(bytes.find("'shape': (2, 3)"), std::string::npos);
  ASSERT_EQ(bytes.size(), header + 6 * sizeof(float));
  float last;
  std::memcpy(&last, bytes.data() + bytes.size() - sizeof last, sizeof last);
  EXPECT_EQ(last, 6.0f);
}

TEST_F(Report, AFullDiskIsOneLineAndLeavesNothing) {
  // /dev/full is no regular file, so it is written in place; the system's answer is that of a full disk
  EXPECT_EQ(error(ErrorCode::io, [] { write_trace("/dev/full", example()); }),
            "cannot write /dev/full: No space left on device");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  const std::string missing = path("no/such/folder.json");
  EXPECT_EQ(error(ErrorCode::io, [&] { write_file(missing, "x"); }),
            "cannot write " + missing + ": No such file or directory");
  EXPECT_EQ(files(), 0u);
}

TEST_F(Report, AFailedWriteKeepsTheOldFile) {
  write_file(path("a"), "old");
  rlimit old_limit{}, small{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  small = old_limit;
  small.rlim_cur = 1000;
  signal(SIGXFSZ, SIG_IGN);  // write() then fails with EFBIG, as it fails with ENOSPC on a full disk
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = error(ErrorCode::io, [&] { write_file(path("a"), std::string(5000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_EQ(message, "cannot write " + path("a") + ": File too large");
  EXPECT_EQ(read(path("a")), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(Report, LinksAndModesSurvive) {
  write_file(path("real"), "1");
  chmod(path("real").c_str(), 0640);
  fs::create_symlink("real", path("link"));
  write_file(path("link"), "2");
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(read(path("real")), "2");
  EXPECT_EQ(fs::status(path("real")).permissions(), fs::perms(0640));
}

TEST_F(Report, TokenIds) {
  EXPECT_EQ(parse_token_ids(" [1, 2,3]\n"), (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_TRUE(parse_token_ids("[]").empty());
  EXPECT_EQ(token_ids_json({1, 2, 3}), "[1,2,3]");
  const auto bad = [](const char* text) { return error(ErrorCode::bad_file, [&] { parse_token_ids(text); }); };
  EXPECT_EQ(bad("[1, 2"), "expected a JSON array of token ids, found text that is not JSON");
  EXPECT_EQ(bad("{\"ids\": []}"), "expected a JSON array of token ids, found object");
  EXPECT_EQ(bad("[1, -2]"), "expected a token id at index 1, found -2");
  EXPECT_EQ(bad("[1.5]"), "expected a token id at index 0, found 1.5");
  EXPECT_EQ(bad("[4294967296]"), "expected a token id at index 0, found 4294967296");
  EXPECT_EQ(bad("[18446744073709551615]"), "expected a token id at index 0, found 18446744073709551615");
  EXPECT_EQ(error(ErrorCode::io, [&] { read_token_ids(path("none")); }),
            "cannot open " + path("none") + ": No such file or directory");
  EXPECT_EQ(error(ErrorCode::io, [&] { read_token_ids(folder_.string()); }),
            "cannot read " + folder_.string() + ": Is a directory");
  write_file(path("ids.json"), "[7, \"x\"]");
  EXPECT_EQ(error(ErrorCode::bad_file, [&] { read_token_ids(path("ids.json")); }),
            path("ids.json") + ": expected a token id at index 1, found \"x\"");
}

TEST_F(Report, ProgressLines) {
  Progress progress{Progress::Stage::prefill, 0.5, 100, 50, 3, 12.5};
  EXPECT_EQ(progress_json(progress), R"({"event":"prefill","total":100,"processed":50,"layer":3,"time_ms":12.5})");
  progress.stage = Progress::Stage::load;
  EXPECT_EQ(progress_json(progress), R"({"event":"load","total":100,"processed":50,"time_ms":12.5})");
}

}  // namespace
}  // namespace fastkv
