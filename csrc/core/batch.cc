#include "core/batch.h"

#include <algorithm>

namespace exp3rt {

Batch Batch::outputs_only() const {
  Batch kept;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const int row = outputs[i].row;
    const auto slice = std::partition_point(slices.begin(), slices.end(),
                                            [row](const BatchSlice& s) { return s.first_row + s.num_rows <= row; });
    kept.tokens.push_back(tokens[static_cast<std::size_t>(row)]);
    kept.positions.push_back(positions[static_cast<std::size_t>(row)]);
    kept.slices.push_back(*slice);
    kept.slices.back().first_row = static_cast<int>(i);
    kept.slices.back().num_rows = 1;
    kept.slices.back().first_own_token += row - slice->first_row;
    kept.outputs.push_back({static_cast<int>(i), outputs[i].labels});
    if (std::binary_search(precise_rows.begin(), precise_rows.end(), row))
      kept.precise_rows.push_back(static_cast<int>(i));
  }
  return kept;
}

}  // namespace exp3rt
