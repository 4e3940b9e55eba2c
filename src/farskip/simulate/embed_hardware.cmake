# cmake -DOUTPUT=x.cpp "-DPROFILES=a.json|b.json" -P embed_hardware.cmake
# Writes a source that holds each profile as a raw string literal, in parts of at most 16 KB, which
# every compiler takes; neighbouring literals join.
string(REPLACE "|" ";" profiles "${PROFILES}")
set(entries "")
foreach(path ${profiles})
  get_filename_component(name ${path} NAME_WLE)
  file(READ ${path} rest)
  set(literals "")
  while(NOT rest STREQUAL "")
    string(SUBSTRING "${rest}" 0 16000 part)
    string(APPEND literals "\n     R\"farskip(${part})farskip\"")
    string(LENGTH "${part}" taken)
    string(SUBSTRING "${rest}" ${taken} -1 rest)
  endwhile()
  string(APPEND entries "    {\"${name}\",${literals}},\n")
endforeach()
file(WRITE ${OUTPUT} "#include \"farskip/simulate/builtin_hardware.h\"

namespace farskip {
namespace {

constexpr BuiltinHardware profiles[] = {
${entries}};

}  // namespace

std::span<const BuiltinHardware> builtin_hardware() { return profiles; }

}  // namespace farskip
")
