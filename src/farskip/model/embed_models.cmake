# cmake -DOUTPUT=x.cpp "-DMODELS=a.json|b.json" -P embed_models.cmake
# Writes a source that holds each file as raw string literals of at most 16 KB, which every compiler
# takes; neighbouring literals join.
string(REPLACE "|" ";" models "${MODELS}")
set(entries "")
foreach(path ${models})
  get_filename_component(name ${path} NAME_WLE)
  file(READ ${path} text)
  string(LENGTH "${text}" length)
  set(literals "")
  set(start 0)
  while(start LESS length)
    string(SUBSTRING "${text}" ${start} 16000 part)
    string(APPEND literals "\n     R\"farskip(${part})farskip\"")
    math(EXPR start "${start} + 16000")
  endwhile()
  string(APPEND entries "    {\"${name}\",${literals}},\n")
endforeach()
file(WRITE ${OUTPUT} "#include \"farskip/model/builtin.h\"

namespace farskip {
namespace {

constexpr BuiltinModel models[] = {
${entries}};

}  // namespace

std::span<const BuiltinModel> builtin_models() { return models; }

}  // namespace farskip
")
