// Lines of JSON objects.
#include "fastkv-eval/jsonl.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "common/format.hpp"

namespace fastkv::tools {

namespace {

[[noreturn]] void reject(const char* name, const char* expected, const char* found) {
  throw Error(ErrorCode::bad_file, format("\"%s\": expected %s, found %s", name, expected, found));
}

}  // namespace

void read_jsonl(const std::string& path, const char* what, std::int64_t limit,
                const std::function<void(std::int64_t line, const Json& object)>& read) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, "cannot open " + path + ": " + std::strerror(errno));
  std::string text;
  std::int64_t objects = 0;
  for (std::int64_t line = 1; (limit == 0 || objects < limit) && std::getline(file, text); ++line) {
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    located(format("%s: line %lld", path.c_str(), static_cast<long long>(line)), [&] {
      const Json object = Json::parse(text, nullptr, false);
      if (object.is_discarded()) throw Error(ErrorCode::bad_file, "not JSON");
      if (!object.is_object())
        throw Error(ErrorCode::bad_file, std::string("expected an object, found ") + object.type_name());
      read(line, object);
    });
    ++objects;
  }
  if (file.bad()) throw Error(ErrorCode::io, "cannot read " + path + ": " + std::strerror(errno));
  if (objects == 0) throw Error(ErrorCode::bad_file, path + ": no " + what);
}

const Json& field(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) throw Error(ErrorCode::bad_file, std::string("no field \"") + name + "\"");
  return *found;
}

const std::string& text_field(const Json& object, const char* name) {
  const Json& value = field(object, name);
  if (!value.is_string()) reject(name, "a text", value.type_name());
  return value.get_ref<const std::string&>();
}

std::int64_t integer_field(const Json& object, const char* name) {
  const Json& value = field(object, name);
  if (!value.is_number_integer())
    reject(name, "an integer", value.is_number() ? dump(value).c_str() : value.type_name());
  return value.get<std::int64_t>();
}

std::vector<std::string> texts_field(const Json& object, const char* name) {
  const Json& value = field(object, name);
  if (!value.is_array()) reject(name, "an array of texts", value.type_name());
  for (const Json& text : value)
    if (!text.is_string()) reject(name, "an array of texts", (std::string("one with ") + text.type_name()).c_str());
  return value.get<std::vector<std::string>>();
}

}  // namespace fastkv::tools
