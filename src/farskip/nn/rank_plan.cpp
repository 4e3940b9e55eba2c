#include "farskip/nn/rank_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "farskip/nn/check.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

// Where rows of each key begin, from how many there are.
std::vector<int64_t> begins_of(const std::vector<int64_t>& counts) {
  std::vector<int64_t> begins(counts.size(), 0);
  std::partial_sum(counts.begin(), counts.end() - 1, begins.begin() + 1);
  return begins;
}

// make_rank_plan on the CPU: rows token by token, then two counting sorts.
class RankPlanner {
 public:
  RankPlanner(const at::Tensor& experts, const ExpertHomes& homes, int64_t ranks, int64_t chunks)
      : experts_(experts.contiguous()),
        homes_(homes),
        ranks_(ranks),
        chunks_(chunks),
        out_(ranks * chunks, 0),
        back_(ranks * chunks, 0),
        computed_(ranks * chunks, 0) {}

  RankPlan run() {
    collect();
    const int64_t slots = experts_.numel();
    RankPlan plan{.order = at::empty({slots}, at::kLong),
                  .inverse = at::full({slots}, -1, at::kLong),
                  .counts = at::empty({ranks_, 3 * chunks_}, at::kLong)};
    fill_order(plan.order.mutable_data_ptr<int64_t>());
    fill_inverse(plan.inverse.mutable_data_ptr<int64_t>());
    int64_t* counts = plan.counts.mutable_data_ptr<int64_t>();
    for (int64_t rank = 0; rank < ranks_; ++rank) {
      for (const auto* each : {&out_, &back_, &computed_}) {
        for (int64_t chunk = 0; chunk < chunks_; ++chunk)
          *counts++ = (*each)[chunk * ranks_ + rank];
      }
    }
    return plan;
  }

 private:
  struct Row {
    int64_t slot, rank, first, last;  // chunks
  };

  // Rows of all tokens, those of one by ascending rank.
  void collect() {
    const int64_t tokens = experts_.size(0), top_k = experts_.size(1);
    const int64_t* id = experts_.const_data_ptr<int64_t>();
    const int64_t* rank_of = homes_.rank.const_data_ptr<int64_t>();
    const int64_t* chunk_of = homes_.chunk.const_data_ptr<int64_t>();
    for (int64_t token = 0; token < tokens; ++token) {
      const size_t first = rows_.size();
      for (int64_t slot = token * top_k; slot < (token + 1) * top_k; ++slot) {
        require_index(id[slot], homes_.rank.size(0), "expert ids");
        add(first, {slot, rank_of[id[slot]], chunk_of[id[slot]], chunk_of[id[slot]]});
      }
      std::sort(rows_.begin() + first, rows_.end(),
                [](const Row& a, const Row& b) { return a.rank < b.rank; });
      for (size_t i = first; i < rows_.size(); ++i) {
        ++out_[rows_[i].first * ranks_ + rows_[i].rank];
        ++back_[rows_[i].last * ranks_ + rows_[i].rank];
      }
    }
  }

  // One more choice of the token whose rows begin at `first`.
  void add(size_t first, const Row& choice) {
    ++computed_[choice.first * ranks_ + choice.rank];
    for (size_t i = first; i < rows_.size(); ++i) {
      if (rows_[i].rank != choice.rank) continue;
      rows_[i].first = std::min(rows_[i].first, choice.first);
      rows_[i].last = std::max(rows_[i].last, choice.last);
      return;
    }
    rows_.push_back(choice);
  }

  // Rows as they go out, then the slots that need none.
  void fill_order(int64_t* order) {
    std::vector<int64_t> next = begins_of(out_);
    std::vector<bool> leads(experts_.numel());
    sent_.resize(rows_.size());
    for (size_t i = 0; i < rows_.size(); ++i) {
      const int64_t place = next[rows_[i].first * ranks_ + rows_[i].rank]++;
      order[place] = rows_[i].slot;
      sent_[place] = i;
      leads[rows_[i].slot] = true;
    }
    int64_t* rest = order + rows_.size();
    for (size_t slot = 0; slot < leads.size(); ++slot) {
      if (!leads[slot]) *rest++ = static_cast<int64_t>(slot);
    }
  }

  void fill_inverse(int64_t* inverse) {
    std::vector<int64_t> next = begins_of(back_), home(rows_.size());
    for (const size_t i : sent_) home[i] = next[rows_[i].last * ranks_ + rows_[i].rank]++;
    const int64_t top_k = experts_.size(1);
    int64_t token = -1, place = 0;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const int64_t own = rows_[i].slot / top_k;
      place = own == token ? place + 1 : 0;
      token = own;
      inverse[token * top_k + place] = home[i];
    }
  }

  const at::Tensor experts_;
  const ExpertHomes& homes_;
  const int64_t ranks_, chunks_;
  std::vector<int64_t> out_, back_, computed_;  // rows by chunk * ranks + rank
  std::vector<Row> rows_;
  std::vector<size_t> sent_;  // rows as they go out
};

}  // namespace

RankPlan make_rank_plan(const at::Tensor& experts, const ExpertHomes& homes, int64_t ranks,
                        int64_t chunks) {
  require_shape(experts, {-1, -1}, "expert ids");
  require_dtype(experts, at::kLong, "expert ids");
  if (!experts.is_cpu()) return tensor_ops::make_rank_plan(experts, homes, ranks, chunks);
  return RankPlanner(experts, homes, ranks, chunks).run();
}

RowChoices row_choices(const at::Tensor& experts, const at::Tensor& weights,
                       const at::Tensor& slots, const ExpertHomes& homes) {
  const at::Tensor token = slots.floor_divide(experts.size(1));
  const at::Tensor chosen = experts.index_select(0, token);
  const at::Tensor goes_to = homes.rank.index_select(0, experts.flatten().index_select(0, slots));
  const at::Tensor there = tensor_ops::look_up(homes.rank, chosen) == goes_to.unsqueeze(1);
  return {.experts = at::where(there, tensor_ops::look_up(homes.local, chosen), -1),
          .weights = weights.index_select(0, token)};
}

SlotPlaces place_slots(const at::Tensor& experts, int64_t local_experts) {
  require_shape(experts, {-1, -1}, "received experts");
  require_dtype(experts, at::kLong, "received experts");
  // Choices on other ranks sort before the first expert.
  const DispatchPlan plan = sort_by_key(experts + 1, local_experts + 1);
  const at::Tensor places = plan.inverse - plan.counts.narrow(0, 0, 1);
  return {.places = places.masked_fill(experts.flatten() == -1, -1),
          .counts = plan.counts.narrow(0, 1, local_experts)};
}

at::Tensor return_order(const at::Tensor& experts, const at::Tensor& sources, int64_t local_experts,
                        int64_t ranks, int64_t chunks) {
  // Of expert e the one c with c n / chunks <= e < (c + 1) n / chunks, rounded down, as even_cut
  // has it; -1 of none.
  const at::Tensor chunk = ((experts + 1) * chunks - 1).floor_divide(local_experts);
  return sort_by_key(chunk.amax(1) * ranks + sources, chunks * ranks).order;
}

}  // namespace farskip
