#include "model/panels.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "core/types.h"
#include "ops/matmul.h"
#include "ops/tiles.h"

namespace exp3rt {
namespace {

constexpr int kTilePanelRows = 512;
constexpr int kMinPanelRows = 32;  // of a thread by itself: fewer waste the product kernels, and memory's bandwidth

// Activations stay in the L2 cache. Tiles multiply faster than weights come from memory: more rows must share them.
int usual_panel_rows() { return takes_tiles(DataType::kBFloat16) ? kTilePanelRows : 64; }

std::span<const int> part(std::span<const int> rows, int index, int num_parts) {
  const auto at = [&](int i) {
    return rows.size() * static_cast<std::size_t>(i) / static_cast<std::size_t>(num_parts);
  };
  return rows.subspan(at(index), at(index + 1) - at(index));
}

std::vector<int> others(std::span<const int> rows, int num_rows) {
  std::vector<int> all(static_cast<std::size_t>(num_rows)), kept;
  std::iota(all.begin(), all.end(), 0);
  std::set_difference(all.begin(), all.end(), rows.begin(), rows.end(), std::back_inserter(kept));
  return kept;
}

int num_panels(int num_precise, int num_rows, int num_threads) {
  const std::int64_t fewest =
      std::max(ceil_div(num_rows, usual_panel_rows()), ceil_div(num_precise, max_precise_panel_rows()));
  if (few_rows(num_rows, num_threads)) return static_cast<int>(fewest);
  const std::int64_t most = std::max(1, num_rows / kMinPanelRows);
  return static_cast<int>(std::max(fewest, std::min(most, round_up(fewest, num_threads))));
}

}  // namespace

// Precise rows and others are divided by themselves, which may leave a panel with one row more than usual.
int max_panel_rows() { return usual_panel_rows() + 1; }

// A precise row is two of the product, which takes all of a panel's.
int max_precise_panel_rows() { return std::min(usual_panel_rows(), kMaxProductRows - kTilePanelRows - kTileRows); }

bool few_rows(int num_rows, int num_threads) { return num_threads > 1 && num_rows < num_threads * kMinPanelRows; }

Panels::Panels(std::span<const int> precise_rows, int num_rows, int num_threads) {
  const auto num_precise = static_cast<int>(precise_rows.size());
  const std::vector<int> plain_rows = others(precise_rows, num_rows);
  const int count = num_panels(num_precise, num_rows, num_threads);
  rows_.reserve(static_cast<std::size_t>(num_rows));  // panels point into it
  for (int i = 0; i < count; ++i) {
    const auto precise = part(precise_rows, i, count), plain = part(std::span(plain_rows), i, count);
    const int* first = rows_.data() + rows_.size();
    rows_.insert(rows_.end(), precise.begin(), precise.end());
    rows_.insert(rows_.end(), plain.begin(), plain.end());
    panels_.push_back({{first, precise.size() + plain.size()}, static_cast<int>(precise.size())});
  }
}

}  // namespace exp3rt
