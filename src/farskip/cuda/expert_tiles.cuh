#pragma once

#include <cstdint>

#include "farskip/cuda/expert_product_kernels.h"

// How the products of several experts' rows are cut into tiles for the blocks of a kernel.
namespace farskip::cuda {

// Tiles that two blocks of a cluster work on at once have half of what they read in common.
enum class Common { nothing, matrix, rows };

// A tile of a block.
struct Tile {
  // Whether there is a row so many rows further down in the tile.
  __device__ __forceinline__ bool has(int rows_down) const {
    return row + rows_down < end && column < columns;
  }

  int expert = -1;
  int row = 0, column = 0;  // the tile's first row; which column of tiles
  int end = 0;              // behind the expert's last row
  int columns = 0;          // of tiles
  Common common = Common::nothing;
};

// A block's tiles by number: expert by expert. A cluster of two takes two tiles of the same
// columns, one above the other, and an expert's last row of tiles, where it is left over, in
// neighbours.
template <int Blocks>
class ExpertTiles : public Tile {
 public:
  // ends [experts] on the device, or null: all `rows` are of one expert; `columns` of tiles.
  __device__ ExpertTiles(const int32_t* ends, int experts, int64_t rows, int columns, int block)
      : ends_(ends), experts_(experts), rows_(static_cast<int>(rows)), block_(block) {
    this->columns = columns;
  }

  // Goes to tile `number`, no lower than the one before. False: there is none.
  __device__ __forceinline__ bool find(int number) {
    while (number >= first_ + count_) {
      if (++expert >= experts_) return false;
      first_ += count_;
      next_expert();
    }
    const int local = number - first_;
    if (local >= stacks_ * columns) {
      common = Common::rows;
      row = first_row_ + stacks_ * stack_rows;
      column = (local - stacks_ * columns) * Blocks + block_;
      return true;
    }
    // Some stacks at once, through all columns: what they share stays in the cache.
    constexpr int at_once = 8;
    const int above = local / (at_once * columns) * at_once, high = min(at_once, stacks_ - above);
    const int within = local - above * columns;
    common = Blocks > 1 ? Common::matrix : Common::nothing;
    column = within / high;
    row = first_row_ + (above + within % high) * stack_rows + block_ * tile_rows;
    return true;
  }

 private:
  static constexpr int stack_rows = Blocks * tile_rows;

  __device__ __forceinline__ void next_expert() {
    first_row_ = end;
    end = ends_ != nullptr ? ends_[expert] : rows_;
    const int high = (end - first_row_ + tile_rows - 1) / tile_rows;
    stacks_ = high / Blocks;
    count_ = stacks_ * columns;
    if (high % Blocks != 0) count_ += (columns + Blocks - 1) / Blocks;
  }

  const int32_t* ends_;
  int experts_, rows_, block_;
  int first_row_ = 0, first_ = 0, stacks_ = 0, count_ = 0;
};

// Tiles (of a cluster's two: pairs) that `rows` make, were each expert to have as many.
inline int64_t count_tiles(int64_t rows, int64_t experts, int64_t columns, int blocks) {
  const int64_t each = (rows + experts - 1) / experts, high = (each + tile_rows - 1) / tile_rows;
  const int64_t left_over = high % blocks == 0 ? 0 : (columns + blocks - 1) / blocks;
  return experts * (high / blocks * columns + left_over);
}

}  // namespace farskip::cuda
