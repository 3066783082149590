#pragma once

#include <memory>
#include <optional>
#include <string>

#include "executor/group_driver.h"

namespace exp3rt {

struct TrtLlmOptions {
  std::string engine_dir;  // config.json and rank0.engine
  int vocab_size = 0;
  int max_context = 0;              // the engine's max_seq_len
  int tokens_per_block = 32;        // as the engine was built
  int max_batch_size = 0;           // 0: the engine's
  int max_num_tokens = 0;           // of a step; 0: the engine's
  double kv_memory_fraction = 0.9;  // of the memory that the weights leave
  int device = 0;
};

// Loads an engine of one GPU and initializes TensorRT-LLM's plugins.
std::unique_ptr<TokenEngine> load_trtllm_engine(const TrtLlmOptions& options);

// Runs groups on a TensorRT-LLM engine, in this process: no worker is started and no orchestrator.
class TrtLlmExecutor final : public GroupDriver {
 public:
  explicit TrtLlmExecutor(const TrtLlmOptions& options);
};

}  // namespace exp3rt
