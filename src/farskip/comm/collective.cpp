#include "farskip/comm/collective.h"

#include <sstream>

#include "farskip/comm/ordered_sum.h"

namespace farskip {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

std::string rows_text(const std::vector<int64_t>& rows) { return shape_text(rows); }

[[noreturn]] void reject(const Collective& collective, const std::string& summary,
                         std::string expected, std::string found) {
  throw CommError(
      summary,
      {.where = collective.name(), .expected = std::move(expected), .found = std::move(found)});
}

void check_tensor(const Collective& collective, const at::Tensor& tensor, const char* name) {
  const std::string label = name;
  if (!tensor.defined()) reject(collective, label + " is undefined", "a tensor", "none");
  if (tensor.layout() != at::kStrided || tensor.device() != collective.device) {
    reject(collective, label + " is out of reach", "a dense tensor on " + collective.device.str(),
           tensor.toString() + " on " + tensor.device().str());
  }
  if (!tensor.is_contiguous()) {
    reject(collective, label + " is not contiguous", "row-major strides",
           "strides " + shape_text(tensor.strides()));
  }
}

bool overlap(const at::Tensor& a, const at::Tensor& b) {
  if (a.nbytes() == 0 || b.nbytes() == 0) return false;
  const auto* const a_begin = static_cast<const char*>(a.const_data_ptr());
  const auto* const b_begin = static_cast<const char*>(b.const_data_ptr());
  return std::less<>()(a_begin, b_begin + b.nbytes()) &&
         std::less<>()(b_begin, a_begin + a.nbytes());
}

void check_rows(const Collective& collective, const std::vector<int64_t>& rows,
                const at::Tensor& tensor, const char* name) {
  const std::string label = name;
  if (static_cast<int64_t>(rows.size()) != collective.size) {
    reject(collective, label + "_rows has the wrong length",
           std::to_string(collective.size) + " counts, one a rank", rows_text(rows));
  }
  int64_t total = 0;
  for (const int64_t count : rows) {
    if (count < 0 || __builtin_add_overflow(total, count, &total)) {
      reject(collective, label + "_rows is no list of row counts", "counts of 0 and more",
             rows_text(rows));
    }
  }
  if (tensor.dim() == 0 || tensor.size(0) != total) {
    reject(collective, label + " does not hold " + label + "_rows",
           std::to_string(total) + " rows for " + rows_text(rows),
           "shape " + shape_text(tensor.sizes()));
  }
}

// `whole` must be `part` with `size` times as many rows.
void check_multiple(const Collective& collective, const at::Tensor& whole, const at::Tensor& part,
                    const char* part_name) {
  if (part.dim() == 0) {
    reject(collective, std::string(part_name) + " has no rows", "at least one dimension", "[]");
  }
  std::vector<int64_t> expected = part.sizes().vec();
  expected[0] *= collective.size;
  if (whole.sizes() != at::IntArrayRef(expected)) {
    reject(collective, "in and out do not fit each other",
           shape_text(expected) + " against " + part_name + " " + shape_text(part.sizes()),
           shape_text(whole.sizes()));
  }
}

void check_shapes(const Collective& collective) {
  const at::Tensor& out = collective.out;
  const at::Tensor& in = collective.in;
  switch (collective.kind) {
    case CollectiveKind::all_to_all:
      check_rows(collective, collective.out_rows, out, "out");
      check_rows(collective, collective.in_rows, in, "in");
      if (out.sizes().slice(1) != in.sizes().slice(1)) {
        reject(collective, "rows of in and out differ",
               "rows of " + shape_text(in.sizes().slice(1)),
               "rows of " + shape_text(out.sizes().slice(1)));
      }
      return;
    case CollectiveKind::all_gather:
      return check_multiple(collective, out, in, "in");
    case CollectiveKind::reduce_scatter:
      return check_multiple(collective, in, out, "out");
    case CollectiveKind::all_reduce:
      if (out.sizes() != in.sizes()) {
        reject(collective, "in and out differ", "shape " + shape_text(in.sizes()),
               "shape " + shape_text(out.sizes()));
      }
      return;
    case CollectiveKind::broadcast:
    case CollectiveKind::barrier:
    case CollectiveKind::send:
    case CollectiveKind::receive:
      return;
  }
}

CommError disagreement(const Signature& a, const Signature& b, const std::string& summary,
                       const std::string& expected, const std::string& found) {
  const auto rank = [](const Signature& part) { return " on rank " + std::to_string(part.rank); };
  return CommError(summary, {.where = a.name(),
                             .expected = expected + rank(a),
                             .found = found + rank(b),
                             .hint = "all ranks must post the same collectives, and two ranks "
                                     "their messages, in the same order"});
}

std::string layout_text(const Signature& part) {
  const bool by_rows = part.kind == CollectiveKind::all_to_all;
  return std::string(c10::toString(part.dtype)) + (by_rows ? " rows of " : " ") +
         shape_text(part.shape);
}

std::optional<CommError> find_common_disagreement(const Signature& a, const Signature& b) {
  const bool ends_of_message = is_message(a.kind) && is_message(b.kind);
  if (!ends_of_message && a.kind != b.kind) {
    return disagreement(a, b, "ranks disagree on the collective", to_string(a.kind),
                        to_string(b.kind) + ", tag " + std::to_string(b.tag));
  }
  if (a.tag != b.tag) {
    return disagreement(a, b, "tags disagree", "tag " + std::to_string(a.tag),
                        "tag " + std::to_string(b.tag));
  }
  if (!ends_of_message && a.root != b.root) {
    return disagreement(a, b, "roots disagree", "root " + std::to_string(a.root),
                        "root " + std::to_string(b.root));
  }
  if (a.dtype != b.dtype || a.shape != b.shape) {
    return disagreement(a, b, "tensors disagree", layout_text(a), layout_text(b));
  }
  return std::nullopt;
}

std::optional<CommError> find_row_disagreement(const Signature& sender, const Signature& receiver) {
  const int64_t sent = sender.in_rows[static_cast<size_t>(receiver.rank)];
  const int64_t expected = receiver.out_rows[static_cast<size_t>(sender.rank)];
  if (sent == expected) return std::nullopt;
  return disagreement(receiver, sender, "row counts disagree",
                      "out_rows[" + std::to_string(sender.rank) + "] = " + std::to_string(expected),
                      "in_rows[" + std::to_string(receiver.rank) + "] = " + std::to_string(sent));
}

std::string name_of(CollectiveKind kind, Tag tag, int rank) {
  return to_string(kind) + ", tag " + std::to_string(tag) + ", rank " + std::to_string(rank);
}

}  // namespace

std::string to_string(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::all_to_all:
      return "all_to_all";
    case CollectiveKind::all_gather:
      return "all_gather";
    case CollectiveKind::reduce_scatter:
      return "reduce_scatter";
    case CollectiveKind::all_reduce:
      return "all_reduce";
    case CollectiveKind::broadcast:
      return "broadcast";
    case CollectiveKind::barrier:
      return "barrier";
    case CollectiveKind::send:
      return "send";
    case CollectiveKind::receive:
      return "receive";
  }
  return "unknown collective";
}

std::string Collective::name() const { return name_of(kind, tag, rank); }
std::string Signature::name() const { return name_of(kind, tag, rank); }

namespace {

void check_peer(const Collective& collective) {
  if (collective.root >= 0 && collective.root < collective.size &&
      collective.root != collective.rank) {
    return;
  }
  reject(collective, "no such rank to exchange a message with",
         "another rank below " + std::to_string(collective.size), std::to_string(collective.root));
}

}  // namespace

void check_arguments(const Collective& collective) {
  if (collective.kind == CollectiveKind::barrier) return;
  if (is_message(collective.kind)) {
    const bool sends = collective.kind == CollectiveKind::send;
    check_tensor(collective, sends ? collective.in : collective.out, "tensor");
    return check_peer(collective);
  }
  check_tensor(collective, collective.out, "out");
  check_tensor(collective, collective.in, "in");
  const at::Tensor& out = collective.out;
  const at::Tensor& in = collective.in;
  if (out.scalar_type() != in.scalar_type()) {
    reject(collective, "in and out differ in dtype", c10::toString(in.scalar_type()),
           c10::toString(out.scalar_type()));
  }
  check_shapes(collective);
  if (collective.kind == CollectiveKind::broadcast) {
    if (collective.root < 0 || collective.root >= collective.size) {
      reject(collective, "no such root", "a rank below " + std::to_string(collective.size),
             std::to_string(collective.root));
    }
    return;
  }
  const bool in_place =
      collective.kind == CollectiveKind::all_reduce && out.const_data_ptr() == in.const_data_ptr();
  if (!in_place && overlap(out, in)) {
    reject(collective, "out overlaps in", "separate memory", "shared bytes");
  }
  const bool sums = collective.kind == CollectiveKind::all_reduce ||
                    collective.kind == CollectiveKind::reduce_scatter;
  if (sums && !can_sum(in.scalar_type())) {
    throw UnsupportedError("this dtype can not be summed",
                           {.where = collective.name(),
                            .expected = "float, double, bfloat16, half, int or long",
                            .found = c10::toString(in.scalar_type())});
  }
}

Signature signature_of(const Collective& collective) {
  Signature signature{.kind = collective.kind,
                      .tag = collective.tag,
                      .rank = collective.rank,
                      .root = collective.root,
                      .out_rows = collective.out_rows,
                      .in_rows = collective.in_rows};
  const at::Tensor& tensor =
      collective.kind == CollectiveKind::receive ? collective.out : collective.in;
  if (!tensor.defined()) return signature;
  const bool by_rows = collective.kind == CollectiveKind::all_to_all;
  signature.dtype = tensor.scalar_type();
  signature.shape = tensor.sizes().slice(by_rows ? 1 : 0).vec();
  return signature;
}

std::optional<CommError> find_disagreement(std::span<const Signature> parts) {
  for (const Signature& part : parts) {
    if (auto error = find_common_disagreement(parts[0], part)) return error;
  }
  if (parts.empty() || parts[0].kind != CollectiveKind::all_to_all) return std::nullopt;
  for (const Signature& receiver : parts) {
    for (const Signature& sender : parts) {
      if (auto error = find_row_disagreement(sender, receiver)) return error;
    }
  }
  return std::nullopt;
}

std::optional<CommError> find_disagreement(const Signature& sent, const Signature& received) {
  return find_common_disagreement(sent, received);
}

CommError group_failure(const Collective& collective, const std::string& reason) {
  return CommError("the group failed", {.where = collective.name(), .found = reason});
}

CollectiveBytes count_bytes(const Collective& collective) {
  const int64_t n = collective.size;
  const int64_t bytes = collective.in_bytes();
  switch (collective.kind) {
    case CollectiveKind::all_to_all: {
      const auto moved = [&](const at::Tensor& tensor, const std::vector<int64_t>& rows) {
        if (tensor.size(0) == 0) return int64_t{0};
        const int64_t own = rows[static_cast<size_t>(collective.rank)];
        const auto total = static_cast<int64_t>(tensor.nbytes());
        return total / tensor.size(0) * (tensor.size(0) - own);
      };
      return {moved(collective.in, collective.in_rows), moved(collective.out, collective.out_rows)};
    }
    case CollectiveKind::all_gather:
      return {bytes * (n - 1), bytes * (n - 1)};
    case CollectiveKind::reduce_scatter:
      return {bytes / n * (n - 1), bytes / n * (n - 1)};
    case CollectiveKind::all_reduce:
      return {2 * bytes * (n - 1) / n, 2 * bytes * (n - 1) / n};
    case CollectiveKind::broadcast: {
      if (n == 1) return {};
      const bool is_root = collective.rank == collective.root;
      return is_root ? CollectiveBytes{bytes, 0} : CollectiveBytes{0, bytes};
    }
    case CollectiveKind::barrier:
      return {};
    case CollectiveKind::send:
      return {bytes, 0};
    case CollectiveKind::receive:
      return {0, static_cast<int64_t>(collective.out.nbytes())};
  }
  return {};
}

int64_t row_bytes(const at::Tensor& tensor) {
  return tensor.size(0) == 0 ? 0 : static_cast<int64_t>(tensor.nbytes()) / tensor.size(0);
}

int64_t rows_before(const std::vector<int64_t>& rows, int rank) {
  int64_t total = 0;
  for (int r = 0; r < rank; ++r) total += rows[static_cast<size_t>(r)];
  return total;
}

}  // namespace farskip
