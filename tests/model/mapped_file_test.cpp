// Mapping of whole files.
#include "runtime/mapped_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fastkv/error.hpp"

namespace fastkv {
namespace {

/// A file with `content`, removed at the end.
struct TemporaryFile {
  explicit TemporaryFile(const std::string& content)
      : path(std::filesystem::temp_directory_path() / ("fastkv_mapped_" + std::to_string(::getpid()))) {
    std::ofstream(path, std::ios::binary) << content;
  }
  ~TemporaryFile() { std::filesystem::remove(path); }
  std::filesystem::path path;
};

TEST(MappedFile, HoldsTheBytes) {
  const std::string content(3 * 65536 + 17, 'x');
  const TemporaryFile file(content);
  MappedFile mapped(file.path.string());
  ASSERT_EQ(mapped.size(), content.size());
  const auto same = [&] {
    return std::string(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.size()) == content;
  };
  EXPECT_TRUE(same());
  mapped.advise_dontneed(mapped.bytes().subspan(5, 65536 * 2));  // the bytes come back from the file
  mapped.advise_dontneed(mapped.bytes().subspan(1, 1));
  EXPECT_TRUE(same());
  MappedFile other = std::move(mapped);
  EXPECT_EQ(other.size(), content.size());
  EXPECT_EQ(mapped.size(), 0u);  // NOLINT: what is left is empty
  mapped = std::move(other);
  EXPECT_TRUE(same());
}

/// Read into memory, the bytes are still there after the file was truncated.
TEST(MappedFile, ReadInsteadOfMapped) {
  const std::string content(2 * 65536 + 17, 'y');
  const TemporaryFile file(content);
  const MappedFile read(file.path.string(), FileAccess::read);
  std::filesystem::resize_file(file.path, 0);
  ASSERT_EQ(read.size(), content.size());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(read.bytes().data()), read.size()), content);
}

TEST(MappedFile, EmptyFile) {
  const TemporaryFile file("");
  EXPECT_EQ(MappedFile(file.path.string()).size(), 0u);
  EXPECT_EQ(MappedFile(file.path.string(), FileAccess::read).size(), 0u);
}

TEST(MappedFile, ErrorsNameTheFile) {
  for (const char* path : {"/nonexistent/model.gguf", "/dev/null", "/tmp"}) {
    try {
      MappedFile mapped(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io);
      EXPECT_EQ(std::string(error.what()).find(path), 0u) << error.what();
    }
  }
}

}  // namespace
}  // namespace fastkv
