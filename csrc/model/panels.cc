#include "model/panels.h"

#include <algorithm>

#include "core/types.h"
#include "ops/matmul.h"

namespace exp3rt {
namespace {

constexpr int kMinPanelRows = 32;  // of a thread by itself: fewer waste the product kernels, and memory's bandwidth

std::int64_t part(std::int64_t count, int index, int num_parts) { return count * index / num_parts; }

}  // namespace

// Activations stay in the L2 cache. Tiles multiply faster than weights come from memory: more rows must share them.
int max_panel_rows() { return takes_tiles(DataType::kBFloat16) ? 512 : 64; }

// Twice as many rows of a product, which go through it together.
int max_precise_panel_rows() { return std::min(max_panel_rows(), 128); }

bool few_rows(int num_rows, int num_threads) { return num_threads > 1 && num_rows < num_threads * kMinPanelRows; }

std::vector<Panel> cut_panels(int num_precise_rows, int num_rows, int num_threads) {
  const std::int64_t fewest =
      std::max(ceil_div(num_rows, max_panel_rows()), ceil_div(num_precise_rows, max_precise_panel_rows()));
  const std::int64_t most = std::max(1, num_rows / kMinPanelRows);
  const bool alone = !few_rows(num_rows, num_threads);
  const auto count = static_cast<int>(alone ? std::max(fewest, std::min(most, round_up(fewest, num_threads))) : fewest);
  const std::int64_t num_plain = num_rows - num_precise_rows;
  std::vector<Panel> panels;
  for (int i = 0; i < count; ++i) {
    panels.push_back(
        {{part(num_precise_rows, i, count), part(num_precise_rows, i + 1, count)},
         {num_precise_rows + part(num_plain, i, count), num_precise_rows + part(num_plain, i + 1, count)}});
  }
  return panels;
}

}  // namespace exp3rt
