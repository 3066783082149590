#pragma once

#include <vector>

#include "ops/parallel.h"

namespace exp3rt {

// Rows of a batch that go through a layer's products together: some of its precise rows, which come first, and some of the
// others.
struct Panel {
  Range precise, plain;

  int num_precise() const { return static_cast<int>(precise.size()); }
  int num_rows() const { return static_cast<int>(precise.size() + plain.size()); }
  // Row of the batch that row `index` of the panel is.
  std::int64_t row(std::int64_t index) const {
    return index < precise.size() ? precise.begin + index : plain.begin + index - precise.size();
  }
};

// How many threads work on a batch: each by itself on panels of its own, or all as a team on the same.
bool few_rows(int num_rows, int num_threads);

// A batch's rows in panels of nearly the same size and as many precise rows each, so that threads finish together.
std::vector<Panel> cut_panels(int num_precise_rows, int num_rows, int num_threads);

// The most that a panel may have.
int max_panel_rows();
int max_precise_panel_rows();

}  // namespace exp3rt
