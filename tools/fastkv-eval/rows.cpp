// Rows of a JSONL file.
#include "fastkv-eval/rows.hpp"

#include <optional>

#include "common/format.hpp"
#include "fastkv-eval/jsonl.hpp"
#include "fastkv/error.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

namespace {

[[noreturn]] void reject(const std::string& what) { throw Error(ErrorCode::bad_file, what); }

/// A field that must be there: a text or an array of ids.
const Json& text_or_ids(const Json& row, const char* name) {
  const Json& found = field(row, name);
  if (!found.is_string() && !found.is_array())
    reject(std::string("\"") + name + "\": expected a text or an array of token ids, found " + found.type_name());
  if (found.empty() || (found.is_string() && found.get_ref<const std::string&>().empty()))
    reject(std::string("\"") + name + "\" is empty");
  return found;
}

std::vector<std::int32_t> ids_of(const Json& array, const char* field, int vocabulary) {
  try {
    std::vector<std::int32_t> ids = parse_token_ids(dump(array));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] >= vocabulary)
        reject(format("token %zu: expected an id in 0..%d, found %d", i, vocabulary - 1, ids[i]));
    }
    return ids;
  } catch (const Error& error) {
    throw Error(error.code(), std::string("\"") + field + "\": " + error.what());
  }
}

/// How texts become ids; the chat template is looked for once, when the first row wants it.
class RowReader {
 public:
  RowReader(const ChatFlags& chat, const Tokenizer& tokenizer) : chat_(chat), tokenizer_(tokenizer) {}

  Row read(const Json& json) {
    const Json &prompt = text_or_ids(json, "prompt"), &continuation = text_or_ids(json, "continuation");
    Row row;
    if (json.contains("task")) row.task = text_field(json, "task");
    bool chat = true;
    if (const auto field = json.find("chat"); field != json.end()) {
      if (!field->is_boolean()) reject(std::string("\"chat\": expected true or false, found ") + field->type_name());
      chat = field->get<bool>();
    }
    row.prompt = prompt.is_array()
                     ? ids_of(prompt, "prompt", tokenizer_.vocab_size())
                     : encode_turn(tokenizer_, chat ? chat_template() : "", {}, prompt.get_ref<const std::string&>());
    row.continuation = answer_ids(continuation, "continuation");
    if (json.contains("opening")) row.opening = answer_ids(text_or_ids(json, "opening"), "opening");
    return row;
  }

 private:
  std::vector<std::int32_t> answer_ids(const Json& json, const char* field) const {
    return json.is_array() ? ids_of(json, field, tokenizer_.vocab_size())
                           : tokenizer_.encode(json.get_ref<const std::string&>());
  }

  const std::string& chat_template() {
    if (!template_) template_ = chat_.resolve(tokenizer_);
    return *template_;
  }

  const ChatFlags& chat_;
  const Tokenizer& tokenizer_;
  std::optional<std::string> template_;
};

}  // namespace

std::vector<Row> read_rows(const std::string& path, std::int64_t limit, const ChatFlags& chat,
                           const Tokenizer& tokenizer) {
  RowReader reader(chat, tokenizer);
  std::vector<Row> rows;
  read_jsonl(path, "rows", limit, [&](std::int64_t line, const Json& object) {
    rows.push_back(reader.read(object));
    rows.back().line = line;
  });
  return rows;
}

}  // namespace fastkv::tools
