#include "farskip/model/family.h"

#include <array>
#include <utility>

namespace farskip {
namespace {

constexpr std::array table = {
    Family{"deepseek_v2", "deepseek_v2", "DeepseekV2ForCausalLM", read_deepseek_v2},
    Family{"deepseek_v3", "deepseek_v3", "DeepseekV3ForCausalLM", read_deepseek_v3},
    Family{"kimi_k2", "deepseek_v3", "", read_deepseek_v3},
    Family{"instella_moe", "instella_moe", "InstellaMoEForCausalLM", read_deepseek_v3},
    Family{"qwen2_moe", "qwen2_moe", "Qwen2MoeForCausalLM", read_qwen2_moe},
    Family{"qwen3_moe", "qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe},
    Family{"mixtral", "mixtral", "MixtralForCausalLM", read_mixtral},
    Family{"olmoe", "olmoe", "OlmoeForCausalLM", read_olmoe},
    Family{"llama4", "llama4", "Llama4ForConditionalGeneration", read_llama4},
    Family{"llama4_text", "llama4", "Llama4ForCausalLM", read_llama4},
    Family{"glm4_moe", "glm4_moe", "Glm4MoeForCausalLM", read_glm4_moe},
    Family{"minimax_m2", "minimax_m2", "MiniMaxM2ForCausalLM", read_minimax_m2},
    Family{"gpt_oss", "gpt_oss", "GptOssForCausalLM", read_gpt_oss},
    Family{"longcat_flash", "longcat_flash", "LongcatFlashForCausalLM", read_longcat_flash},
};

constexpr std::array<std::pair<std::string_view, std::string_view>, 7> without_kernels = {{
    {"instella_moe", "gated attention output"},
    {"qwen2_moe", "gated shared experts and q/k/v bias"},
    {"llama4", "input-scaled experts and chunked attention"},
    {"glm4_moe", "q/k/v bias and partly rotated heads"},
    {"minimax_m2", "partly rotated heads under a sigmoid router"},
    {"gpt_oss", "attention sinks, sliding windows and clamped experts with biases"},
    {"longcat_flash", "zero experts and two attention blocks a layer"},
}};

}  // namespace

std::span<const Family> families() { return table; }

const Family* find_family(std::string_view model_type) {
  for (const Family& family : table) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

const Family* find_family_by_architecture(std::string_view architecture) {
  for (const Family& family : table) {
    if (!architecture.empty() && family.architecture == architecture) return &family;
  }
  return nullptr;
}

std::string_view missing_kernels(std::string_view family) {
  for (const auto& [name, missing] : without_kernels) {
    if (name == family) return missing;
  }
  return {};
}

}  // namespace farskip
