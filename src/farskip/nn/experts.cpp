#include "farskip/nn/experts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/expert_order.h"
#include "farskip/cuda/expert_product.h"
#include "farskip/nn/check.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/mlp.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

// The rows of one expert from one source rank.
struct Block {
  int64_t first = 0, rows = 0;
};

struct ExpertBlocks {
  std::vector<Block> blocks;  // without empty ones
  int64_t rows = 0;
};

// Where each expert's rows lie. Throws Error if counts can not describe `row_count` rows.
std::vector<ExpertBlocks> locate(const at::Tensor& counts, int64_t row_count) {
  const at::Tensor dense = counts.contiguous();
  const int64_t* count = dense.const_data_ptr<int64_t>();
  std::vector<ExpertBlocks> experts(counts.size(1));
  int64_t next = 0;
  for (int64_t rank = 0; rank < counts.size(0); ++rank) {
    for (ExpertBlocks& expert : experts) {
      const int64_t rows = *count++;
      if (rows < 0 || rows > row_count - next) {
        throw Error("row counts do not fit the rows",
                    {.where = "experts counts",
                     .expected = "0 to " + std::to_string(row_count - next) + " in this place",
                     .found = std::to_string(rows),
                     .hint = {}});
      }
      if (rows > 0) expert.blocks.push_back({next, rows});
      expert.rows += rows;
      next += rows;
    }
  }
  if (next != row_count) {
    throw Error("row counts do not fit the rows",
                {.where = "experts counts",
                 .expected = "a sum of " + std::to_string(row_count),
                 .found = std::to_string(next),
                 .hint = {}});
  }
  return experts;
}

// Rows that the busiest expert has, and the busiest of those whose rows lie apart.
struct Most {
  int64_t rows = 0, scattered = 0;
};

Most most_of(const std::vector<ExpertBlocks>& experts) {
  Most most;
  for (const ExpertBlocks& expert : experts) {
    most.rows = std::max(most.rows, expert.rows);
    if (expert.blocks.size() > 1) most.scattered = std::max(most.scattered, expert.rows);
  }
  return most;
}

// The rows of an expert, together: where they lie, or brought to the start of `scratch`.
at::Tensor gathered(const at::Tensor& rows, const ExpertBlocks& expert, const at::Tensor& scratch) {
  if (expert.blocks.size() == 1) return rows.narrow(0, expert.blocks[0].first, expert.rows);
  int64_t next = 0;
  for (const Block& block : expert.blocks) {
    scratch.narrow(0, next, block.rows).copy_(rows.narrow(0, block.first, block.rows));
    next += block.rows;
  }
  return scratch.narrow(0, 0, expert.rows);
}

// Scratch tensors, made once for the busiest expert; products of all of them where they are kept.
struct Scratch {
  at::Tensor rows, product, activated, result;
  bool keeps_products = false;
};

Scratch make_scratch(const std::vector<ExpertBlocks>& experts, const at::Tensor& rows,
                     int64_t width, bool keep_products) {
  const Most most = most_of(experts);
  return {at::empty({most.scattered, rows.size(1)}, rows.options()),
          at::empty({keep_products ? rows.size(0) : most.rows, 2 * width}, rows.options()),
          at::empty({most.rows, width}, rows.options()),
          at::empty({most.scattered, rows.size(1)}, rows.options()), keep_products};
}

// One expert on all its rows. Those of several source ranks are brought together first; those of
// one rank are read and written where they lie. `before`: rows of the experts before this one.
void compute_expert(const at::Tensor& out, const at::Tensor& rows, const ExpertBlocks& expert,
                    int64_t before, const Scratch& scratch, const at::Tensor& gate_up,
                    const at::Tensor& down) {
  const bool scattered = expert.blocks.size() > 1;
  const int64_t count = expert.rows;
  const at::Tensor input = gathered(rows, expert, scratch.rows);
  const at::Tensor result =
      (scattered ? scratch.result : out).narrow(0, scattered ? 0 : expert.blocks[0].first, count);
  const at::Tensor product = scratch.product.narrow(0, scratch.keeps_products ? before : 0, count);
  const at::Tensor activated = scratch.activated.narrow(0, 0, count);
  linear_out(product, input, gate_up);
  silu_multiply_out(activated, product);
  linear_out(result, activated, down);
  if (scattered) {
    int64_t next = 0;
    for (const Block& block : expert.blocks) {
      out.narrow(0, block.first, block.rows).copy_(result.narrow(0, next, block.rows));
      next += block.rows;
    }
  }
}

ExpertsOutput compute(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                      const at::Tensor& down, bool keep_products) {
  const std::vector<ExpertBlocks> located = locate(counts, rows.size(0));
  const Scratch scratch = make_scratch(located, rows, down.size(2), keep_products);
  const at::Tensor out = at::empty({rows.size(0), rows.size(1)}, rows.options());
  int64_t before = 0;
  for (size_t e = 0; e < located.size(); ++e) {
    if (located[e].rows == 0) continue;
    compute_expert(out, rows, located[e], before, scratch, gate_up.select(0, e), down.select(0, e));
    before += located[e].rows;
  }
  return {out, scratch.product};
}

at::Tensor compute_products(const at::Tensor& rows, const at::Tensor& counts,
                            const at::Tensor& gate_up) {
  const std::vector<ExpertBlocks> located = locate(counts, rows.size(0));
  const at::Tensor scratch = at::empty({most_of(located).scattered, rows.size(1)}, rows.options());
  const at::Tensor products = at::empty({rows.size(0), gate_up.size(1)}, rows.options());
  int64_t before = 0;
  for (size_t e = 0; e < located.size(); ++e) {
    const int64_t count = located[e].rows;
    if (count == 0) continue;
    linear_out(products.narrow(0, before, count), gathered(rows, located[e], scratch),
               gate_up.select(0, static_cast<int64_t>(e)));
    before += count;
  }
  return products;
}

void check(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
           const at::Tensor& down) {
  require_shape(rows, {-1, -1}, "experts rows");
  require_shape(down, {-1, rows.size(1), -1}, "experts down");
  require_shape(gate_up, {down.size(0), 2 * down.size(2), rows.size(1)}, "experts gate_up");
  require_shape(counts, {-1, -1}, "experts counts");
  require_dtype(counts, at::kLong, "experts counts");
}

bool has_fused(const at::Tensor& rows, const at::Tensor& gate_up, const at::Tensor& down) {
  return cuda::has_expert_product(rows, gate_up) && cuda::has_expert_product(rows, down);
}

// In two products that read rows where they lie and write them back there.
at::Tensor fused(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                 const at::Tensor& down) {
  const cuda::ExpertOrder by = cuda::order_by_expert(counts, rows.size(0));
  const at::Tensor activated = at::empty({rows.size(0), down.size(2)}, rows.options());
  cuda::expert_swiglu_out(activated, rows, gate_up, by.ends, by.order);
  const at::Tensor out = at::empty_like(rows);
  cuda::expert_product_out(out, activated, down, by.ends, by.order);
  return out;
}

at::Tensor fused_of_tokens(const at::Tensor& x, const at::Tensor& order, int64_t top_k,
                           const at::Tensor& counts, const at::Tensor& gate_up,
                           const at::Tensor& down) {
  const at::Tensor ends = cuda::order_by_expert(counts, order.size(0)).ends;
  const at::Tensor activated = at::empty({order.size(0), down.size(2)}, x.options());
  cuda::expert_swiglu_out(activated, x, gate_up, ends, order, top_k);
  const at::Tensor out = at::empty({order.size(0), x.size(1)}, x.options());
  cuda::expert_product_out(out, activated, down, ends);
  return out;
}

ExpertsOutput run(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                  const at::Tensor& down, bool keep_products) {
  if (!keep_products && rows.size(0) > 0 && has_fused(rows, gate_up, down)) {
    return {fused(rows, counts, gate_up, down), {}};
  }
  if (rows.is_cpu()) return compute(rows, counts, gate_up, down, keep_products);
  if (rows.size(0) > 0) return tensor_ops::experts(rows, counts, gate_up, down);
  return {at::empty_like(rows), at::empty({0, gate_up.size(1)}, rows.options())};
}

}  // namespace

at::Tensor experts(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                   const at::Tensor& down, int64_t first_expert) {
  check(rows, counts, gate_up, down);
  if (first_expert < 0 || counts.size(1) > down.size(0) - first_expert) {
    throw Error("experts lie outside of the weights",
                {.where = "experts first_expert",
                 .expected = "a range within 0 to " + std::to_string(down.size(0)),
                 .found = std::to_string(first_expert) + " to " +
                          std::to_string(first_expert + counts.size(1)),
                 .hint = {}});
  }
  const auto part = [&](const at::Tensor& weights) {
    return weights.narrow(0, first_expert, counts.size(1));
  };
  return run(rows, counts, part(gate_up), part(down), false).rows;
}

at::Tensor experts_of_tokens(const at::Tensor& x, const at::Tensor& order, int64_t top_k,
                             const at::Tensor& counts, const at::Tensor& gate_up,
                             const at::Tensor& down) {
  if (x.size(0) == 0 || !has_fused(x, gate_up, down)) {
    return experts(permute(x, order, top_k), counts, gate_up, down);
  }
  check(x, counts, gate_up, down);
  require_shape(counts, {1, down.size(0)}, "experts counts");
  return fused_of_tokens(x, order, top_k, counts, gate_up, down);
}

ExpertsOutput experts_saving(const at::Tensor& rows, const at::Tensor& counts,
                             const at::Tensor& gate_up, const at::Tensor& down) {
  check(rows, counts, gate_up, down);
  require_shape(counts, {-1, down.size(0)}, "experts counts");
  return run(rows, counts, gate_up, down, true);
}

at::Tensor experts_products(const at::Tensor& rows, const at::Tensor& counts,
                            const at::Tensor& gate_up) {
  require_shape(rows, {-1, -1}, "experts rows");
  require_shape(gate_up, {-1, -1, rows.size(1)}, "experts gate_up");
  require_shape(counts, {-1, gate_up.size(0)}, "experts counts");
  require_dtype(counts, at::kLong, "experts counts");
  if (rows.is_cpu()) return compute_products(rows, counts, gate_up);
  if (rows.size(0) > 0) return tensor_ops::experts_products(rows, counts, gate_up);
  return at::empty({0, gate_up.size(1)}, rows.options());
}

}  // namespace farskip
