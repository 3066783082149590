#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/model_config.h"
#include "executor/executor.h"
#include "kvcache/block_pool.h"
#include "kvcache/item_cache.h"
#include "kvcache/prefix_cache.h"
#include "model/kv_storage.h"
#include "model/llama.h"
#include "model/sampler.h"
#include "model/weights.h"
#include "scheduler/scheduler.h"

namespace exp3rt {

struct ExecutorOptions {
  int num_threads = 0;       // 0: the cores this process may run on
  int max_batch_tokens = 0;  // rows of one forward pass; 0: a panel for each thread, at most 2048
  std::size_t kv_cache_bytes = std::size_t{1} << 30;
  std::size_t item_cache_bytes = std::size_t{1} << 30;  // items of segmented students; taken as they come
  std::string item_kv_dtype;                            // "int8", or empty for what the engine computes in
};

// Runs groups on the CPU: one thread that schedules, batches and computes (with a team of num_threads), fed by an
// inbox.
class CpuExecutor final : public Executor {
 public:
  CpuExecutor(const std::string& weights_path, const std::vector<TensorEntry>& tensors, const ModelConfig& config,
              const ExecutorOptions& options);
  ~CpuExecutor() override;

  Id submit(RerankGroup group, OnDone on_done) override;
  void cancel(Id id) override;
  ExecutorStats stats() const override;
  void close() override;

  int num_threads() const { return num_threads_; }
  const ItemFormat& item_format() const { return model_.item_format(); }

 private:
  void loop();
  void take_inbox();
  void step();
  void deliver();

  int num_threads_;
  ModelConfig config_;
  Weights weights_;
  Llama model_;
  Sampler sampler_;
  KvStorage kv_;
  BlockPool pool_;
  PrefixCache cache_;
  ItemCache items_;
  Scheduler scheduler_;  // with all above: of the thread below
  std::vector<float> hidden_;
  std::int64_t steps_ = 0;
  double compute_s_ = 0;

  mutable std::mutex mutex_;  // of all below
  std::condition_variable wake_;
  std::vector<std::unique_ptr<GroupState>> inbox_;
  std::vector<Id> cancelled_;
  ExecutorStats stats_;  // as of the last step
  Id next_id_ = 1;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace exp3rt
