# Flags of every translation unit. Floating point is strict: only fusions that are written as such
# (docs/semantics.md, "Floating point"), so no contraction and no fast-math anywhere.
add_library(regard_flags INTERFACE)
target_compile_options(regard_flags INTERFACE
  -Wall -Wextra -ffp-contract=off -fno-math-errno
  $<$<CONFIG:Release>:-O3>)
if(REGARD_SANITIZE)
  add_compile_options(-fsanitize=${REGARD_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${REGARD_SANITIZE})
endif()
