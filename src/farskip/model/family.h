#pragma once

#include <span>
#include <string_view>

#include "farskip/model/config.h"
#include "farskip/model/fields.h"

namespace farskip {

// Reads all of one family's fields into `model` (name and model_type are set already).
// Throws ConfigError.
using FamilyReader = void (*)(const Fields& fields, ModelConfig& model);

// One model_type that config.json may state.
struct Family {
  std::string_view model_type;
  std::string_view family;        // ModelConfig::family; several types may share one
  std::string_view architecture;  // stands in where a file states no model_type
  FamilyReader read;
};

std::span<const Family> families();
const Family* find_family(std::string_view model_type);
const Family* find_family_by_architecture(std::string_view architecture);

// What the kernels of this version lack for a whole family; empty if they have all of it.
std::string_view missing_kernels(std::string_view family);

void read_deepseek_v2(const Fields& fields, ModelConfig& model);
void read_deepseek_v3(const Fields& fields, ModelConfig& model);
void read_longcat_flash(const Fields& fields, ModelConfig& model);
void read_qwen2_moe(const Fields& fields, ModelConfig& model);
void read_qwen3_moe(const Fields& fields, ModelConfig& model);
void read_mixtral(const Fields& fields, ModelConfig& model);
void read_olmoe(const Fields& fields, ModelConfig& model);
void read_llama4(const Fields& fields, ModelConfig& model);
void read_glm4_moe(const Fields& fields, ModelConfig& model);
void read_minimax_m2(const Fields& fields, ModelConfig& model);
void read_gpt_oss(const Fields& fields, ModelConfig& model);

}  // namespace farskip
