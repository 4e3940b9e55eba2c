#include "fixture.h"

#include <ATen/ops/cat.h>

#include <numeric>

#include "farskip/comm/local.h"

namespace farskip::testing {

std::filesystem::path fixture_folder(const std::string& family) {
  return std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests" / "fixtures" / family;
}

Fixture::Fixture(const std::string& family)
    : family(family),
      checkpoint(fixture_folder(family)),
      golden(fixture_folder(family) / "golden.safetensors") {}

Session Fixture::session(int ranks, at::ScalarType dtype,
                         std::vector<std::unique_ptr<Group>> groups) const {
  const Placement placement = Placement::contiguous(config().router.experts, ranks);
  std::vector<int> all(ranks);
  std::iota(all.begin(), all.end(), 0);
  if (groups.empty()) {
    groups = make_local_groups(ranks, {.deadline = std::chrono::duration<double>(20)});
  }
  return Session(config(), placement, load_weights(checkpoint, config(), placement, all, dtype),
                 std::move(groups));
}

PlannedStep Fixture::plan(const std::string& connectivity, int ranks, const TokenBatch& tokens,
                          const StepForm& form) const {
  return plan_step(config(), Connectivity::preset(connectivity, config().layers), ranks,
                   tokens.lengths, form);
}

TokenBatch Fixture::golden_tokens() const {
  const int64_t width = golden.view("input_ids").size(1);
  return prefixes({width, width});
}

TokenBatch Fixture::prefixes(const std::vector<int64_t>& lengths) const {
  const at::Tensor ids = golden.view("input_ids");
  TokenBatch batch{.ids = {}, .lengths = lengths, .width = ids.size(1)};
  for (size_t i = 0; i < lengths.size(); ++i) {
    const at::Tensor row = ids.select(0, static_cast<int64_t>(i) % ids.size(0));
    const int64_t* first = row.const_data_ptr<int64_t>();
    batch.ids.insert(batch.ids.end(), first, first + lengths[i]);
  }
  return batch;
}

at::Tensor Fixture::golden_prefixes(const at::Tensor& logits,
                                    const std::vector<int64_t>& lengths) const {
  std::vector<at::Tensor> rows;
  for (size_t i = 0; i < lengths.size(); ++i) {
    rows.push_back(
        logits.select(0, static_cast<int64_t>(i) % logits.size(0)).narrow(0, 0, lengths[i]));
  }
  return at::cat(rows);
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

}  // namespace farskip::testing
