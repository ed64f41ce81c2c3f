// A random model as a GGUF file, for tests of the whole engine.
#pragma once

#include <filesystem>

#include "support/random_model.hpp"

namespace fastkv::test {

/// Writes `model` with a small vocabulary to a file of its own under the system's temporary folder; removed with the
/// object.
class ModelFile {
 public:
  explicit ModelFile(const RandomModel& model);
  ~ModelFile();
  ModelFile(const ModelFile&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace fastkv::test
