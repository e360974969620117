# Puts text files into the program: regard_embed(OUTPUT FOLDER FUNCTION) makes the source OUTPUT, which defines
# regard::cuda::EmbeddedSet regard::cuda::FUNCTION() with every .h and .cuh file below FOLDER (src/cuda/sources.h). It
# is made anew when a file changes, comes or goes. The same file is the script that does it (cmake -P) at build time.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(REGARD_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
  function(regard_embed output folder function)
    file(GLOB_RECURSE files CONFIGURE_DEPENDS ${folder}/*.h ${folder}/*.cuh)
    list(SORT files)
    # The names are part of what the output depends on: a file that goes changes this list, and with it the output.
    string(REPLACE ";" "\n" names "${files}")
    file(GENERATE OUTPUT ${output}.files CONTENT "${names}\n")
    add_custom_command(OUTPUT ${output}
      COMMAND ${CMAKE_COMMAND} -DOUTPUT=${output} -DFOLDER=${folder} -DFUNCTION=${function} -P ${REGARD_EMBED_SCRIPT}
      DEPENDS ${files} ${output}.files ${REGARD_EMBED_SCRIPT}
      COMMENT "Embedding ${folder}" VERBATIM)
  endfunction()
  return()
endif()

file(STRINGS ${OUTPUT}.files files ENCODING UTF-8)
set(entries "")
set(digests "")
set(count 0)
file(WRITE ${OUTPUT}.new
  "// Made by cmake/embed_cuda.cmake.\n#include \"src/cuda/sources.h\"\n\nnamespace regard::cuda {\nnamespace {\n")
set(four "0x..,0x..,0x..,0x..,")
foreach(file IN LISTS files)
  file(RELATIVE_PATH name ${FOLDER} ${file})
  file(SHA256 ${file} digest)
  string(APPEND digests "${name} ${digest}\n")
  # As numbers: no text can end a list of numbers early, whatever it holds.
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(${four}${four}${four}${four})" "\\1\n" bytes "${bytes}")
  file(APPEND ${OUTPUT}.new "constexpr unsigned char kText${count}[] = {\n${bytes}0};\n")
  string(APPEND entries "    {\"${name}\", reinterpret_cast<const char*>(kText${count})},\n")
  math(EXPR count "${count} + 1")
endforeach()
string(SHA256 hash "${digests}")
if(count EQUAL 0)
  set(span "{}")
else()
  set(span "kFiles")
  file(APPEND ${OUTPUT}.new "const EmbeddedFile kFiles[] = {\n${entries}};\n")
endif()
file(APPEND ${OUTPUT}.new
  "}  // namespace\n\nEmbeddedSet ${FUNCTION}() { return {${span}, \"${hash}\"}; }\n\n}  // namespace regard::cuda\n")
file(RENAME ${OUTPUT}.new ${OUTPUT})
