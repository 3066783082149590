#include "executor/cpu_executor.h"

#include <sched.h>

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

#include "executor/compute_turn.h"
#include "ops/isa.h"
#include "ops/matmul.h"

namespace exp3rt {
namespace {

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return static_cast<int>(std::thread::hardware_concurrency());
  return CPU_COUNT(&set);
}

int thread_count(int asked) {
  if (cpu_isa() < Isa::kAvx2) throw std::runtime_error("the CPU engine needs AVX2, which this machine lacks");
  if (asked < 0) throw std::invalid_argument("threads is negative");
  return asked > 0 ? asked : std::max(1, available_cores());
}

// More rows would only make everyone wait longer, and touch more memory: a thread's panel has no more of them.
int batch_tokens(int asked, int num_threads) {
  constexpr int kMostTokens = 2048, kThreadTokens = 512;
  return asked == 0 ? std::min(kMostTokens, kThreadTokens * num_threads) : asked;
}

DataType item_dtype(const std::string& name, const ModelConfig& config) {
  if (name.empty()) return config.table_dtype();
  const DataType dtype = parse_data_type(name);
  if (dtype != DataType::kInt8) throw std::invalid_argument("item_kv_dtype must be int8 or empty, not " + name);
  return dtype;
}

// Rows of a step up to which it has drafts. By tiles, a row costs little beside what a step reads; else they were seen to pay
// up to here.
int max_drafted_rows(const ModelConfig& config) { return takes_tiles(config.table_dtype()) ? 512 : 32; }

const ModelConfig& checked(const ModelConfig& config) {
  check(config);
  return config;
}

}  // namespace

CpuExecutor::CpuExecutor(const std::string& weights_path, const std::vector<TensorEntry>& tensors,
                         const ModelConfig& config, const ExecutorOptions& options)
    : num_threads_(thread_count(options.num_threads)),
      config_(checked(config)),
      weights_(weights_path, tensors),
      model_(weights_, config, num_threads_, item_dtype(options.item_kv_dtype, config)),
      sampler_(weights_, config, num_threads_),
      kv_(config, compute_type(config.table_dtype()), options.kv_cache_bytes),
      pool_(kv_.num_blocks()),
      cache_(pool_),
      items_(options.item_cache_bytes, [this](int tokens) { return model_.item_format().num_bytes(tokens); }),
      scheduler_(pool_, cache_, items_, batch_tokens(options.max_batch_tokens, num_threads_), max_drafted_rows(config)),
      stats_(scheduler_.stats()),
      thread_([this] { loop(); }) {}

CpuExecutor::~CpuExecutor() { close(); }

void CpuExecutor::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Executor::Id CpuExecutor::submit(RerankGroup request, OnDone on_done) {
  scheduler_.check(request);
  check_tokens(request, config_.vocab_size, config_.max_context);
  auto group = std::make_unique<GroupState>();
  group->request = std::move(request);
  group->on_done = std::move(on_done);
  group->submitted = Clock::now();
  Id id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) throw std::runtime_error("the executor is closed");
    id = group->id = next_id_++;
    inbox_.push_back(std::move(group));
  }
  wake_.notify_all();
  return id;
}

void CpuExecutor::cancel(Id id) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(id);  // seen before the next step; a sleeping executor has nothing to cancel
}

ExecutorStats CpuExecutor::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void CpuExecutor::loop() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return closing_ || !inbox_.empty() || !scheduler_.idle(); });
      take_inbox();
      if (closing_) break;
    }
    try {
      step();
    } catch (const std::exception& error) {
      scheduler_.fail_all(std::string("the step failed: ") + error.what());
    }
    deliver();
  }
  scheduler_.fail_all("the executor was closed");
  deliver();
}

void CpuExecutor::take_inbox() {
  for (auto& group : inbox_) scheduler_.add(std::move(group));
  inbox_.clear();
  for (const Id id : cancelled_) scheduler_.cancel(id);
  cancelled_.clear();
}

void CpuExecutor::step() {
  const Batch& batch = scheduler_.next_batch();
  if (batch.empty()) return;
  const auto begin = Clock::now();
  std::vector<OutputValue> values;
  {
    const ComputeTurn turn;
    hidden_.resize(batch.outputs.size() * static_cast<std::size_t>(config_.hidden_size));
    model_.forward(batch, kv_, hidden_.data());
    values = sampler_.sample(batch.outputs, hidden_.data());
  }
  scheduler_.complete(std::move(values));
  ++steps_;
  compute_s_ += std::chrono::duration<double>(Clock::now() - begin).count();
}

// Statistics first, so that whoever is told can read them.
void CpuExecutor::deliver() {
  std::vector<FinishedGroup> finished = scheduler_.take_finished();
  {
    const std::lock_guard lock(mutex_);
    stats_ = scheduler_.stats();
    stats_.steps = steps_;
    stats_.compute_s = compute_s_;
    stats_.attention_s = model_.attention_s();
  }
  for (FinishedGroup& group : finished) group.on_done(std::move(group.result));
}

}  // namespace exp3rt
