#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "core/mapped_file.h"
#include "core/request.h"
#include "core/result.h"

namespace py = pybind11;

namespace exp3rt {
namespace {

const char* name(Status status) {
  switch (status) {
    case Status::kOk: return "ok";
    case Status::kFailed: return "failed";
    case Status::kCancelled: return "cancelled";
    case Status::kExpired: return "expired";
  }
  return "failed";
}

RerankGroup make_group(std::vector<TokenIds> prefix, std::vector<TokenIds> suffixes, TokenIds label_tokens,
                       TokenIds answer_tokens, int max_reasoning_tokens, TokenIds end_tokens, double timeout_s,
                       bool reuse_suffixes, std::string cache_salt, std::vector<TokenIds> items,
                       std::vector<std::shared_ptr<ItemKv>> stored, int item_position, int suffix_position) {
  return {std::move(prefix),
          std::move(suffixes),
          std::move(label_tokens),
          std::move(answer_tokens),
          max_reasoning_tokens,
          std::move(end_tokens),
          timeout_s,
          reuse_suffixes,
          std::move(cache_salt),
          std::move(items),
          std::vector<ItemKvPtr>(stored.begin(), stored.end()),
          item_position,
          suffix_position};
}

// Bytes that Python hands back unread, and that may lie in a mapped file.
void bind_item_kv(py::module_& module) {
  py::class_<ItemKv, std::shared_ptr<ItemKv>>(
      module, "ItemKv", py::buffer_protocol(),
      "The keys and values of one item segment, a read-only buffer of bytes. Those of a catalogue lie in its file.")
      .def_buffer([](ItemKv& kv) {
        return py::buffer_info(const_cast<std::byte*>(kv.data.get()), 1, py::format_descriptor<std::uint8_t>::format(),
                               1, {static_cast<py::ssize_t>(kv.num_bytes)}, {py::ssize_t{1}}, true);
      })
      .def_readonly("num_tokens", &ItemKv::num_tokens)
      .def_readonly("num_bytes", &ItemKv::num_bytes);
  py::class_<MappedFile, std::shared_ptr<MappedFile>>(
      module, "MappedFile", "A file mapped into memory, read-only, as long as it is at opening.")
      .def(py::init<const std::string&>(), py::arg("path"))
      .def_property_readonly("size", &MappedFile::size)
      .def(
          "item",
          [](const std::shared_ptr<MappedFile>& file, std::size_t offset, std::size_t num_bytes, int num_tokens) {
            return std::make_shared<ItemKv>(ItemKv{file->bytes(offset, num_bytes), num_bytes, num_tokens});
          },
          py::arg("offset"), py::arg("num_bytes"), py::arg("num_tokens"),
          "An item's keys and values at an offset; keeps the file mapped. ValueError beyond the file's end.");
}

void bind_results(py::module_& module) {
  py::class_<CandidateResult>(module, "CandidateResult", "What became of one candidate.")
      .def_property_readonly(
          "status", [](const CandidateResult& r) { return name(r.status); }, "ok, failed, cancelled or expired.")
      .def_property_readonly(
          "label_logits",
          [](const CandidateResult& r) {
            return py::array_t<float>(static_cast<py::ssize_t>(r.label_logits.size()), r.label_logits.data());
          },
          "float32 [num_labels]; empty unless the status is ok, and for a group without labels.")
      .def_readonly("reasoning_tokens", &CandidateResult::reasoning_tokens)
      .def_property_readonly(
          "item_kv", [](const CandidateResult& r) { return std::const_pointer_cast<ItemKv>(r.item_kv); },
          "Of a group without suffixes: the item's keys and values; None unless the status is ok.");
  py::class_<GroupResult>(module, "GroupResult", "Results in the order of the group's suffixes, and times in seconds.")
      .def_readonly("candidates", &GroupResult::candidates)
      .def_readonly("queue_s", &GroupResult::queue_s)
      .def_readonly("compute_s", &GroupResult::compute_s);
}

void bind_stats(py::module_& module) {
  py::class_<ExecutorStats>(module, "ExecutorStats", "Counts since the executor was made; blocks as of now.")
      .def_readonly("prompt_tokens_computed", &ExecutorStats::prompt_tokens_computed)
      .def_readonly("prompt_tokens_reused", &ExecutorStats::prompt_tokens_reused)
      .def_readonly("generated_tokens", &ExecutorStats::generated_tokens)
      .def_readonly("draft_tokens", &ExecutorStats::draft_tokens)
      .def_readonly("draft_tokens_accepted", &ExecutorStats::draft_tokens_accepted)
      .def_readonly("items_computed", &ExecutorStats::items_computed)
      .def_readonly("items_in_memory", &ExecutorStats::items_in_memory)
      .def_readonly("items_stored", &ExecutorStats::items_stored)
      .def_readonly("candidates_done", &ExecutorStats::candidates_done)
      .def_readonly("groups_done", &ExecutorStats::groups_done)
      .def_readonly("steps", &ExecutorStats::steps)
      .def_readonly("blocks_total", &ExecutorStats::blocks_total)
      .def_readonly("blocks_free", &ExecutorStats::blocks_free)
      .def_readonly("blocks_cached", &ExecutorStats::blocks_cached)
      .def_readonly("blocks_in_use", &ExecutorStats::blocks_in_use)
      .def_readonly("block_size", &ExecutorStats::block_size)
      .def_readonly("queue_s", &ExecutorStats::queue_s)
      .def_readonly("compute_s", &ExecutorStats::compute_s)
      .def_readonly("attention_s", &ExecutorStats::attention_s);
}

}  // namespace

void bind_request(py::module_& module) {
  bind_item_kv(module);
  py::class_<RerankGroup>(
      module, "RerankGroup",
      "One user's prefix (token ids by segment) and the candidates' suffixes; in a segmented layout also "
      "their items, seen by no user, with their keys and values where these are stored.")
      .def(py::init(&make_group), py::kw_only(), py::arg("prefix"), py::arg("suffixes"), py::arg("label_tokens"),
           py::arg("answer_tokens"), py::arg("max_reasoning_tokens") = 0, py::arg("end_tokens") = TokenIds(),
           py::arg("timeout_s") = 0.0, py::arg("reuse_suffixes") = false, py::arg("cache_salt") = "",
           py::arg("items") = std::vector<TokenIds>(), py::arg("stored") = std::vector<std::shared_ptr<ItemKv>>(),
           py::arg("item_position") = 0, py::arg("suffix_position") = 0)
      .def_readonly("prefix", &RerankGroup::prefix)
      .def_readonly("suffixes", &RerankGroup::suffixes)
      .def_readonly("label_tokens", &RerankGroup::label_tokens)
      .def_readonly("answer_tokens", &RerankGroup::answer_tokens)
      .def_readonly("max_reasoning_tokens", &RerankGroup::max_reasoning_tokens)
      .def_readonly("end_tokens", &RerankGroup::end_tokens)
      .def_readonly("timeout_s", &RerankGroup::timeout_s)
      .def_readonly("reuse_suffixes", &RerankGroup::reuse_suffixes)
      .def_readonly("cache_salt", &RerankGroup::cache_salt)
      .def_readonly("items", &RerankGroup::items)
      .def_property_readonly(
          "stored",
          [](const RerankGroup& group) {
            std::vector<std::shared_ptr<ItemKv>> stored;
            for (const ItemKvPtr& item : group.stored) stored.push_back(std::const_pointer_cast<ItemKv>(item));
            return stored;
          },
          "Keys and values of each item, None for those to be computed; empty if there are none.")
      .def_readonly("item_position", &RerankGroup::item_position)
      .def_readonly("suffix_position", &RerankGroup::suffix_position);
  bind_results(module);
  bind_stats(module);
}

}  // namespace exp3rt
