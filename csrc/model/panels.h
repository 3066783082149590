#pragma once

#include <span>
#include <vector>

#include "ops/parallel.h"

namespace exp3rt {

// Rows of a batch that go through a layer's products together: some of its precise rows, which come first, and some of the
// others.
struct Panel {
  std::span<const int> rows;
  int num_precise;

  int num_rows() const { return static_cast<int>(rows.size()); }
  // Row of the batch that row `index` of the panel is.
  std::int64_t row(std::int64_t index) const { return rows[static_cast<std::size_t>(index)]; }
};

// A batch's rows in panels of nearly the same size and as many precise rows each, so that threads finish together.
class Panels {
 public:
  Panels() = default;
  Panels(Panels&&) = default;  // and no copy: panels point into rows_
  Panels& operator=(Panels&&) = default;
  // precise_rows: in order.
  Panels(std::span<const int> precise_rows, int num_rows, int num_threads);

  std::span<const Panel> all() const { return panels_; }

 private:
  std::vector<int> rows_;  // panel by panel
  std::vector<Panel> panels_;
};

// How many threads work on a batch: each by itself on panels of its own, or all as a team on the same.
bool few_rows(int num_rows, int num_threads);

// The most that a panel may have.
int max_panel_rows();
int max_precise_panel_rows();

}  // namespace exp3rt
