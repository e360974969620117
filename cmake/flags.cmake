# Flags of every translation unit. Floating point is strict: only fusions that are written as such
# (docs/semantics.md, "Floating point"), so no contraction and no fast-math anywhere.
add_library(regard_flags INTERFACE)
target_compile_options(regard_flags INTERFACE
  -Wall -Wextra -ffp-contract=off -fno-math-errno
  $<$<CONFIG:Release>:-O3>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 sees overlapping copies in every "text" + std::string (GCC bug 105651, fixed in 13).
  target_compile_options(regard_flags INTERFACE -Wno-restrict)
endif()
if(REGARD_SANITIZE)
  add_compile_options(-fsanitize=${REGARD_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${REGARD_SANITIZE})
endif()

# ccache, where it is installed and the caller named no launcher.
find_program(REGARD_CCACHE ccache)
mark_as_advanced(REGARD_CCACHE)
if(REGARD_CCACHE AND PROJECT_IS_TOP_LEVEL)
  foreach(language C CXX)
    if(NOT DEFINED CMAKE_${language}_COMPILER_LAUNCHER)
      set(CMAKE_${language}_COMPILER_LAUNCHER ${REGARD_CCACHE})
    endif()
  endforeach()
endif()
