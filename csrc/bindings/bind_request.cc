#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings/bindings.h"
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
                       bool reuse_suffixes, std::string cache_salt) {
  return {std::move(prefix),
          std::move(suffixes),
          std::move(label_tokens),
          std::move(answer_tokens),
          max_reasoning_tokens,
          std::move(end_tokens),
          timeout_s,
          reuse_suffixes,
          std::move(cache_salt)};
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
      .def_readonly("reasoning_tokens", &CandidateResult::reasoning_tokens);
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
      .def_readonly("candidates_done", &ExecutorStats::candidates_done)
      .def_readonly("groups_done", &ExecutorStats::groups_done)
      .def_readonly("steps", &ExecutorStats::steps)
      .def_readonly("blocks_total", &ExecutorStats::blocks_total)
      .def_readonly("blocks_free", &ExecutorStats::blocks_free)
      .def_readonly("blocks_cached", &ExecutorStats::blocks_cached)
      .def_readonly("blocks_in_use", &ExecutorStats::blocks_in_use)
      .def_readonly("block_size", &ExecutorStats::block_size)
      .def_readonly("queue_s", &ExecutorStats::queue_s)
      .def_readonly("compute_s", &ExecutorStats::compute_s);
}

}  // namespace

void bind_request(py::module_& module) {
  py::class_<RerankGroup>(module, "RerankGroup",
                          "One user's prefix (token ids by segment) and the candidates' suffixes.")
      .def(py::init(&make_group), py::kw_only(), py::arg("prefix"), py::arg("suffixes"), py::arg("label_tokens"),
           py::arg("answer_tokens"), py::arg("max_reasoning_tokens") = 0, py::arg("end_tokens") = TokenIds(),
           py::arg("timeout_s") = 0.0, py::arg("reuse_suffixes") = false, py::arg("cache_salt") = "")
      .def_readonly("prefix", &RerankGroup::prefix)
      .def_readonly("suffixes", &RerankGroup::suffixes)
      .def_readonly("label_tokens", &RerankGroup::label_tokens)
      .def_readonly("answer_tokens", &RerankGroup::answer_tokens)
      .def_readonly("max_reasoning_tokens", &RerankGroup::max_reasoning_tokens)
      .def_readonly("end_tokens", &RerankGroup::end_tokens)
      .def_readonly("timeout_s", &RerankGroup::timeout_s)
      .def_readonly("reuse_suffixes", &RerankGroup::reuse_suffixes)
      .def_readonly("cache_salt", &RerankGroup::cache_salt);
  bind_results(module);
  bind_stats(module);
}

}  // namespace exp3rt
