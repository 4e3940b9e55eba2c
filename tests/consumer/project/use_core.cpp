#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "farskip/base/json.h"
#include "farskip/version.h"

int main() {
  const farskip::Json config = farskip::parse_json(R"({"hidden_size": 2048})", "built-in");
  const int width = farskip::require<int>(config, "hidden_size", "built-in");
  std::printf("farskip %s: hidden_size %d\n", std::string(farskip::version).c_str(), width);
}
