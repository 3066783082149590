#pragma once

#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "executor/executor.h"
#include "executor/group_plan.h"
#include "executor/token_engine.h"

namespace exp3rt {

struct GroupDriverOptions {
  int vocab_size = 0;
  int max_context = 0;  // tokens of a sequence, the one that the engine always adds too
  int tokens_per_block = 32;
  int max_requests = 512;     // in the engine at once
  int max_queued = 256;       // of them, those that the engine has not started
  int max_warm_ups = 4;       // prefixes computed at once
  int known_prefixes = 4096;  // how many are taken for cached; a wrong guess costs time only
};

// Runs groups on an engine that knows only sequences. One thread talks to it: a prefix is computed by one request,
// then the candidates go in, as many as the engine has blocks and places for. Groups are served first come, first
// served, but the next users' prefixes are computed meanwhile.
class GroupDriver : public Executor {
 public:
  // Throws std::invalid_argument, naming the option.
  GroupDriver(std::unique_ptr<TokenEngine> engine, const GroupDriverOptions& options);
  ~GroupDriver() override;

  Id submit(RerankGroup group, OnDone on_done) override;
  void cancel(Id id) override;
  ExecutorStats stats() const override;
  void close() override;

 private:
  enum class Kind { kWarmUp, kReasoning, kLabel };
  struct Group;
  // A request in the engine; its group may be gone.
  struct Flight {
    Id group;
    Kind kind;
    std::size_t candidate;
    int num_blocks;
    int num_tokens;
    std::uint64_t prefix_key;
  };
  struct Finished {
    OnDone on_done;
    GroupResult result;
  };

  void check(const RerankGroup& group) const;
  void loop();
  bool take_inbox();
  void stop_cancelled_and_expired();
  void fill();
  bool warm_up(Group& group);
  bool has_room(int num_blocks) const;
  bool send_candidates(Group& group);
  void send(Group& group, Kind kind, std::size_t candidate, int num_blocks, TokenRequest request);
  void take(TokenResponse response);
  void take_warm_up(const Flight& flight, const std::string& error);
  void take_reasoning(Group& group, std::size_t candidate, TokenIds tokens);
  void take_label(Group& group, std::size_t candidate, std::vector<float> logits);
  void remember(std::uint64_t prefix_key);
  void finish(Group& group, std::size_t candidate, Status status);
  void stop(Group& group, Status status);
  void fail(Group& group, const std::string& error);
  void fail_all(const std::string& error);
  void cancel_flights(Id group);
  void finish_group(Group& group);
  void remove_finished();
  void deliver();

  std::unique_ptr<TokenEngine> engine_;  // with all up to the mutex: of the thread below
  GroupDriverOptions options_;
  std::map<Id, std::unique_ptr<Group>> groups_;  // in order of submission
  std::map<std::uint64_t, Flight> flights_;      // by the engine's id
  std::set<std::uint64_t> warming_;              // prefixes that a request is computing
  std::list<std::uint64_t> known_;               // prefixes taken for cached, the last used first
  std::vector<Finished> finished_;
  std::vector<Id> to_cancel_;
  TokenEngineStats engine_stats_;
  ExecutorStats counts_;
  std::int64_t reserved_blocks_ = 0;  // of requests in the engine, and of the started groups' prefixes
  int sent_ = 0;                      // since engine_stats_

  mutable std::mutex mutex_;  // of all below
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Group>> inbox_;
  std::vector<Id> cancelled_;
  ExecutorStats stats_;
  Id next_id_ = 1;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace exp3rt
