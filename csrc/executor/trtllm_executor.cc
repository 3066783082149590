// The only file that includes headers of TensorRT-LLM (1.2.x).
#include "executor/trtllm_executor.h"

#include <tensorrt_llm/executor/executor.h>
#include <tensorrt_llm/plugins/api/tllmPlugin.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>

namespace exp3rt {
namespace {

namespace trt = tensorrt_llm::executor;

// Label ids are usually neighbours (digits): one copy then takes them all, and little else.
constexpr TokenId kMaxSpan = 1024;

float to_float(const void* data, trt::DataType type, std::size_t index) {
  switch (type) {
    case trt::DataType::kFP32: return static_cast<const float*>(data)[index];
    case trt::DataType::kFP16: return __half2float(static_cast<const half*>(data)[index]);
    case trt::DataType::kBF16: {
      const std::uint32_t bits = std::uint32_t{static_cast<const std::uint16_t*>(data)[index]} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
    default: throw std::runtime_error("the engine's logits are of an unknown type");
  }
}

std::size_t size_of(trt::DataType type) {
  switch (type) {
    case trt::DataType::kFP32: return 4;
    case trt::DataType::kFP16:
    case trt::DataType::kBF16: return 2;
    default: throw std::runtime_error("the engine's logits are of an unknown type");
  }
}

// Takes the labels' logits where they arise: a batched logits post-processor, which the engine calls once a step with
// views of the logits on the GPU. It only puts copies of some bytes on the engine's stream, to pinned memory. The engine
// waits for that stream before it tells anybody the token that was sampled from these logits, so that the copies are
// there when a response is.
class LabelTap {
 public:
  void expect(trt::IdType client, TokenIds labels) {
    const std::lock_guard lock(mutex_);
    wanted_[client].labels = std::move(labels);
  }

  // From the engine's thread, which an exception would end: without copies, the candidate fails.
  void copy(std::vector<trt::Tensor>& logits, const trt::StreamPtr& stream,
            const std::vector<std::optional<trt::IdType>>& clients) noexcept {
    for (std::size_t i = 0; i < clients.size(); ++i) {
      try {
        if (clients[i]) copy(logits[i], stream, *clients[i]);
      } catch (const std::exception&) {
        const std::lock_guard lock(mutex_);
        if (const auto found = wanted_.find(*clients[i]); found != wanted_.end()) found->second.pieces.clear();
      }
    }
  }

  // Empty if there are none.
  std::vector<float> take(trt::IdType client) {
    Wanted wanted;
    {
      const std::lock_guard lock(mutex_);
      auto node = wanted_.extract(client);
      if (node.empty()) return {};
      wanted = std::move(node.mapped());
    }
    std::vector<float> values;
    if (wanted.pieces.empty()) return values;
    for (const TokenId label : wanted.labels) {
      const auto piece = std::find_if(wanted.pieces.begin(), wanted.pieces.end(), [label](const Piece& p) {
        return label >= p.first && label < p.first + static_cast<TokenId>(p.values.getSize());
      });
      if (piece == wanted.pieces.end()) return {};
      const trt::Tensor& tensor = piece->values;
      values.push_back(
          to_float(tensor.getData(), tensor.getDataType(), static_cast<std::size_t>(label - piece->first)));
    }
    return values;
  }

 private:
  struct Piece {
    TokenId first;
    trt::Tensor values;  // on the host
  };
  struct Wanted {
    TokenIds labels;
    std::vector<Piece> pieces;
  };

  void copy(trt::Tensor& logits, const trt::StreamPtr& stream, trt::IdType client) {
    const std::lock_guard lock(mutex_);
    const auto found = wanted_.find(client);
    if (found == wanted_.end() || !found->second.pieces.empty()) return;
    const TokenIds& labels = found->second.labels;
    const auto [low, high] = std::minmax_element(labels.begin(), labels.end());
    std::vector<Piece>& pieces = found->second.pieces;
    if (*high - *low < kMaxSpan) {
      pieces.push_back(piece(logits, stream, *low, *high - *low + 1));
    } else {
      for (const TokenId label : labels) pieces.push_back(piece(logits, stream, label, 1));
    }
  }

  static Piece piece(trt::Tensor& logits, const trt::StreamPtr& stream, TokenId first, TokenId count) {
    const trt::DataType type = logits.getDataType();
    auto* begin = static_cast<std::uint8_t*>(logits.getData()) + static_cast<std::size_t>(first) * size_of(type);
    return {first, trt::Tensor::of(type, begin, {count}).copyToPooledPinned(stream)};
  }

  std::mutex mutex_;
  std::unordered_map<trt::IdType, Wanted> wanted_;
};

trt::ExecutorConfig make_config(const TrtLlmOptions& options, LabelTap& tap) {
  trt::KvCacheConfig kv(/*enableBlockReuse=*/true);
  kv.setEnablePartialReuse(false);  // whole blocks only, as the prompts are cut
  kv.setFreeGpuMemoryFraction(static_cast<float>(options.kv_memory_fraction));
  trt::ParallelConfig parallel(trt::CommunicationType::kMPI, trt::CommunicationMode::kLEADER);
  parallel.setDeviceIds({options.device});
  trt::LogitsPostProcessorConfig post_processor;
  post_processor.setProcessorBatched(
      [&tap](const std::vector<trt::IdType>&, std::vector<trt::Tensor>& logits,
             const std::vector<std::reference_wrapper<const trt::BeamTokens>>&, const trt::StreamPtr& stream,
             const std::vector<std::optional<trt::IdType>>& clients) { tap.copy(logits, stream, clients); });
  trt::ExecutorConfig config;
  config.setSchedulerConfig(trt::SchedulerConfig(trt::CapacitySchedulerPolicy::kGUARANTEED_NO_EVICT));
  config.setKvCacheConfig(kv);
  config.setEnableChunkedContext(true);
  if (options.max_batch_size > 0) config.setMaxBatchSize(options.max_batch_size);
  if (options.max_num_tokens > 0) config.setMaxNumTokens(options.max_num_tokens);
  config.setParallelConfig(parallel);
  config.setLogitsPostProcessorConfig(post_processor);
  return config;
}

class TrtLlmEngine final : public TokenEngine {
 public:
  explicit TrtLlmEngine(const TrtLlmOptions& options)
      : executor_(options.engine_dir, trt::ModelType::kDECODER_ONLY, make_config(options, tap_)) {}

  std::uint64_t enqueue(TokenRequest request) override {
    const trt::IdType client = next_client_++;
    const bool labelled = !request.label_tokens.empty();
    if (labelled) tap_.expect(client, request.label_tokens);
    try {
      const trt::IdType id = executor_.enqueueRequest(translate(std::move(request), client));
      if (labelled) clients_[id] = client;
      return id;
    } catch (...) {
      tap_.take(client);
      throw;
    }
  }

  std::vector<TokenResponse> await(std::chrono::milliseconds timeout) override {
    std::vector<TokenResponse> out;
    for (const trt::Response& response : executor_.awaitResponses(timeout)) {
      if (!response.hasError() && !response.getResult().isFinal) continue;
      out.push_back(translate(response));
    }
    return out;
  }

  void cancel(std::uint64_t id) override { executor_.cancelRequest(id); }

  TokenEngineStats stats() override {
    for (const trt::IterationStats& step : executor_.getLatestIterationStats()) {
      ++stats_.steps;
      stats_.compute_s += step.iterLatencyMS / 1e3;
      stats_.queued_requests = step.numQueuedRequests;
      if (!step.kvCacheStats) continue;
      stats_.blocks_total = step.kvCacheStats->maxNumBlocks;
      stats_.blocks_free = step.kvCacheStats->freeNumBlocks;
      stats_.blocks_in_use = step.kvCacheStats->usedNumBlocks;
    }
    return stats_;
  }

  void shutdown() override { executor_.shutdown(); }

 private:
  static trt::Request translate(TokenRequest request, trt::IdType client) {
    trt::SamplingConfig greedy;
    greedy.setTopK(1);
    trt::OutputConfig output;
    output.excludeInputFromOutput = true;
    output.returnPerfMetrics = true;  // they tell how many blocks were reused
    trt::Request out(std::move(request.tokens), request.max_new_tokens, /*streaming=*/false, greedy, output);
    out.setClientId(client);
    if (!request.end_tokens.empty()) {
      out.setEndId(request.end_tokens.front());
      std::list<trt::VecTokens> stop_words;
      for (const TokenId token : request.end_tokens) stop_words.push_back({token});
      out.setStopWords(stop_words);
    }
    std::vector<trt::KvCacheRetentionConfig::TokenRangeRetentionConfig> ranges;
    for (const Retention& part : request.retention) {
      ranges.emplace_back(part.first_token, part.end_token, part.priority);
    }
    out.setKvCacheRetentionConfig(trt::KvCacheRetentionConfig(ranges, request.new_token_priority));
    if (!request.label_tokens.empty()) out.setLogitsPostProcessorName(trt::Request::kBatchedPostProcessorName);
    if (request.cache_salt) out.setCacheSaltID(*request.cache_salt);
    return out;
  }

  TokenResponse translate(const trt::Response& response) {
    TokenResponse out;
    out.id = response.getRequestId();
    if (auto node = clients_.extract(out.id); !node.empty()) out.label_logits = tap_.take(node.mapped());
    if (response.hasError()) {
      out.error = response.getErrorMsg();
      if (out.error.empty()) out.error = "the engine gave no reason";
      return out;
    }
    const trt::Result& result = response.getResult();
    if (!result.outputTokenIds.empty()) out.new_tokens = result.outputTokenIds.front();
    if (result.requestPerfMetrics) out.reused_blocks = result.requestPerfMetrics->kvCacheMetrics.numReusedBlocks;
    const auto ended = [&result](trt::FinishReason reason) {
      return std::find(result.finishReasons.begin(), result.finishReasons.end(), reason) != result.finishReasons.end();
    };
    if (ended(trt::FinishReason::kCANCELLED)) out.error = "the request was cancelled";
    if (ended(trt::FinishReason::kTIMED_OUT)) out.error = "the request timed out";
    return out;
  }

  LabelTap tap_;  // outlives the executor, whose thread calls it
  trt::Executor executor_;
  std::unordered_map<trt::IdType, trt::IdType> clients_;  // of requests with labels
  trt::IdType next_client_ = 1;
  TokenEngineStats stats_;
};

GroupDriverOptions driver_options(const TrtLlmOptions& options) {
  GroupDriverOptions out;
  out.vocab_size = options.vocab_size;
  out.max_context = options.max_context;
  out.tokens_per_block = options.tokens_per_block;
  return out;
}

}  // namespace

std::unique_ptr<TokenEngine> load_trtllm_engine(const TrtLlmOptions& options) {
  // Before anything is loaded: an engine's plugins are looked up by name. Once a process.
  static const bool initialized = initTrtLlmPlugins();
  if (!initialized) throw std::runtime_error("TensorRT-LLM's plugins could not be initialized");
  return std::make_unique<TrtLlmEngine>(options);
}

TrtLlmExecutor::TrtLlmExecutor(const TrtLlmOptions& options)
    : GroupDriver(load_trtllm_engine(options), driver_options(options)) {}

}  // namespace exp3rt
