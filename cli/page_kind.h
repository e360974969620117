// Which kind of memory pages really lie under a buffer, as the kernel reports it: huge pages change what reading costs.
#pragma once

#include <cstddef>
#include <string>

namespace regard::cli {

// "huge pages", "4 KiB pages", "63 % on huge pages", or "page kind unknown" where the system does not tell.
std::string PageKind(const void* data, std::size_t bytes);

}  // namespace regard::cli
