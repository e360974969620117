// Version of the library. The macros are those of the headers, the function that of the linked library.
#pragma once

#include "regard/export.h"

#define REGARD_VERSION_MAJOR 0
#define REGARD_VERSION_MINOR 1
#define REGARD_VERSION_PATCH 0
#define REGARD_VERSION_STRING "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif
// "0.1.0", static storage.
REGARD_API const char* regard_version(void);
#ifdef __cplusplus
}
#endif
