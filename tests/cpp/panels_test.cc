#include "model/panels.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "ops/matmul.h"

namespace exp3rt {

TEST_CASE("panels: every row is in one of them, precise ones first, and no panel is more than a product takes") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const int num_rows = 1 + static_cast<int>(random() % 2100);
    std::vector<int> rows(static_cast<std::size_t>(num_rows));
    std::iota(rows.begin(), rows.end(), 0);
    std::shuffle(rows.begin(), rows.end(), random);
    std::vector<int> precise(rows.begin(), rows.begin() + static_cast<int>(random() % (num_rows + 1)));
    if (round % 2 == 0) precise.resize(precise.size() / 4);
    std::sort(precise.begin(), precise.end());
    const Panels panels(precise, num_rows, 1 + static_cast<int>(random() % 4));
    std::vector<int> found, found_precise;
    for (const Panel& panel : panels.all()) {
      CHECK(panel.num_rows() <= max_panel_rows());
      CHECK(panel.num_precise <= max_precise_panel_rows());
      CHECK(panel.num_rows() + panel.num_precise <= kMaxProductRows);
      found.insert(found.end(), panel.rows.begin(), panel.rows.end());
      found_precise.insert(found_precise.end(), panel.rows.begin(), panel.rows.begin() + panel.num_precise);
    }
    CHECK(found_precise == precise);
    std::sort(found.begin(), found.end());
    std::sort(rows.begin(), rows.end());
    CHECK(found == rows);
  }
}

TEST_CASE("panels: 255 precise rows of 1,024") {
  std::vector<int> precise(255);
  std::iota(precise.begin(), precise.end(), 0);
  const Panels panels(precise, 1024, 2);
  for (const Panel& panel : panels.all()) CHECK(panel.num_rows() + panel.num_precise <= kMaxProductRows);
}

}  // namespace exp3rt
