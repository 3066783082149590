#include "ops/matmul.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "operand.h"
#include "ops/parallel.h"

namespace exp3rt {
namespace {

struct Shape {
  int k, n;
};

// y[rows, n], computed with rows that lie `gap` numbers farther apart
std::vector<float> multiply(const RandomMatrix& x, int first, const PackedMatrix& b, int rows, std::int64_t gap = 0) {
  const std::int64_t stride = b.n + gap;
  AlignedBuffer operand;
  auto* in = operand.get<std::byte>(operand_bytes(b.dtype, rows, b.k));
  for (int row = 0; row < rows; ++row) place_row(b.dtype, x.row(first + row), row, 0, b.k, b.k, in);
  std::vector<float> y(static_cast<std::size_t>(padded_row_count(b.dtype, rows) * stride), -1.0f);
  matmul(in, b, y.data(), stride, rows);
  std::vector<float> out;
  for (int row = 0; row < rows; ++row)
    out.insert(out.end(), &y[static_cast<std::size_t>(row * stride)], &y[static_cast<std::size_t>(row * stride + b.n)]);
  return out;
}

// Memory that ends where no more may be read.
class Fenced {
 public:
  explicit Fenced(std::size_t size) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t room = (size + page - 1) / page * page;
    size_ = room + page;
    start_ = static_cast<std::byte*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(start_ != MAP_FAILED);
    REQUIRE(mprotect(start_ + room, page, PROT_NONE) == 0);
    at_ = start_ + room - size;
  }
  ~Fenced() { munmap(start_, size_); }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;
  std::byte* get() const { return at_; }

 private:
  std::byte *start_, *at_;
  std::size_t size_;
};

}  // namespace

TEST_CASE("matmul: equals the sum of products") {
  for (const DataType dtype : product_types()) {
    for (const auto& [k, n] : {Shape{64, 64}, {16, 64}, {64, 16}, {48, 100}, {176, 128}, {576, 960}}) {
      const RandomMatrix x(1, 9, k, dtype), w(2, n, k, dtype);
      const PackedOperand b(w);
      const std::vector<float> y = multiply(x, 0, b.matrix, 9);
      for (int row = 0; row < 9; ++row) {
        for (int column = 0; column < n; ++column) {
          double sum = 0;
          for (int i = 0; i < k; ++i) sum += static_cast<double>(x.at(row, i)) * static_cast<double>(w.at(column, i));
          CHECK(static_cast<double>(y[static_cast<std::size_t>(row * n + column)]) ==
                doctest::Approx(sum).epsilon(1e-4).scale(10));
        }
      }
    }
  }
}

// What makes batched equal alone.
TEST_CASE("matmul: a row has the same bits among any number of rows, at any place, on any thread") {
  for (const DataType dtype : product_types()) {
    for (const auto& [k, n] : {Shape{64, 64}, {25, 20}, {48, 100}, {576, 960}, {1536, 576}}) {
      const RandomMatrix x(3, 256, k, dtype), w(4, n, k, dtype);
      const PackedOperand b(w);
      const std::vector<float> all = multiply(x, 0, b.matrix, 256);
      parallel_for(2, 40, [&](std::int64_t i) {
        const int rows = static_cast<int>(1 + i * 6), first = static_cast<int>(i % (257 - rows));
        const std::vector<float> some = multiply(x, first, b.matrix, rows);
        const float* same = all.data() + static_cast<std::size_t>(first * n);
        if (std::memcmp(some.data(), same, some.size() * sizeof(float)) != 0)
          throw std::runtime_error("a row has other bits among " + std::to_string(rows));
      });
    }
  }
}

TEST_CASE("matmul: a column has the same bits among any number of panels") {
  for (const DataType dtype : product_types()) {
    for (const auto& [k, n] : {Shape{25, 100}, {48, 576}, {576, 960}, {1536, 576}}) {
      const RandomMatrix x(5, 64, k, dtype), w(6, n, k, dtype);
      const PackedOperand b(w);
      for (const int rows : {1, 3, 16, 40, 64}) {
        const std::vector<float> all = multiply(x, 0, b.matrix, rows);
        CHECK(multiply(x, 0, b.matrix, rows, 64) == all);
        for (std::int64_t p = 0, count = 1; p < b.matrix.num_panels(); p += count++) {
          const PackedMatrix part = b.matrix.panels(p, count);
          const std::vector<float> some = multiply(x, 0, part, rows);
          for (int row = 0; row < rows; ++row) {
            const float* same = all.data() + static_cast<std::size_t>(row * n + p * kPanelColumns);
            const float* found = some.data() + static_cast<std::size_t>(row * part.n);
            CHECK(std::memcmp(found, same, static_cast<std::size_t>(part.n) * sizeof(float)) == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("matmul: reads no more than an operand takes") {
  for (const DataType dtype : product_types()) {
    for (const int k : {25, 64, 176}) {
      const RandomMatrix x(1, kMaxProductRows, k, dtype), w(2, 100, k, dtype);
      const PackedOperand b(w);
      for (const int rows : {1, 3, 33, 65, 130, 257, 385, 400, 513, kMaxProductRows}) {
        const Fenced operand(operand_bytes(dtype, rows, k));
        for (int row = 0; row < rows; ++row) place_row(dtype, x.row(row), row, 0, k, k, operand.get());
        std::vector<float> y(static_cast<std::size_t>(padded_row_count(dtype, rows) * 100));
        matmul(operand.get(), b.matrix, y.data(), 100, rows);
        const std::vector<float> last = multiply(x, rows - 1, b.matrix, 1);
        CHECK(std::memcmp(&y[static_cast<std::size_t>((rows - 1) * 100)], last.data(), 100 * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("matmul: refuses what it was not made for") {
  const RandomMatrix x(1, 4, 32, DataType::kFloat32), w(2, 64, 32, DataType::kFloat32);
  const PackedOperand b(w);
  std::vector<float> y(4 * 128);
  CHECK_THROWS_AS(matmul(x.row(0), b.matrix, y.data(), 64, kMaxProductRows + 1), std::invalid_argument);
  for (const DataType dtype : product_types()) {
    CHECK_THROWS_AS(padded_row_count(dtype, kMaxProductRows + 1), std::invalid_argument);
    CHECK_THROWS_AS(padded_row_count(dtype, 0), std::invalid_argument);
  }
}

TEST_CASE("in_team: what a member wrote is there after a meeting, and a failure frees those who wait") {
  std::vector<std::int64_t> seen(100, 0), sums(3, 0);
  in_team(3, [&](Team team) {
    const Range mine = team.share(100);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) seen[static_cast<std::size_t>(i)] += i;
    team.meet();
    sums[static_cast<std::size_t>(mine.begin / 33)] = std::accumulate(seen.begin(), seen.end(), std::int64_t{0});
  });
  CHECK(sums == std::vector<std::int64_t>(3, 4950));
  CHECK_THROWS_WITH_AS(in_team(2,
                               [](Team team) {
                                 if (team.share(2).begin == 1) throw std::runtime_error("the second");
                                 team.meet();
                               }),
                       "the second", std::runtime_error);
}

TEST_CASE("parallel_for: covers every index once, and hands an exception to the caller") {
  std::vector<int> seen(1000, 0);
  parallel_for(3, 1000, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
  CHECK(seen == std::vector<int>(1000, 1));
  CHECK_THROWS_WITH_AS(parallel_for(2, 10,
                                    [](std::int64_t i) {
                                      if (i == 7) throw std::runtime_error("seven");
                                    }),
                       "seven", std::runtime_error);
}

TEST_CASE("parallel_for, in_team: denormal numbers are zero inside, and what they were outside") {
  volatile float tiny = 1e-40f;
  std::vector<float> seen(2, -1.0f), in_a_team(2, -1.0f);
  parallel_for(2, 2, [&](std::int64_t i) { seen[static_cast<std::size_t>(i)] = tiny * 0.5f; });
  in_team(2, [&](Team team) { in_a_team[static_cast<std::size_t>(team.share(2).begin)] = tiny * 0.5f; });
  CHECK(seen == std::vector<float>(2, 0.0f));
  CHECK(in_a_team == std::vector<float>(2, 0.0f));
  CHECK(tiny * 0.5f > 0.0f);
}

}  // namespace exp3rt
