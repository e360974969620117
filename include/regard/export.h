// Symbol visibility: libregard hides everything that is not marked REGARD_API.
#pragma once

#if defined(__GNUC__)
#define REGARD_API __attribute__((visibility("default")))
#else
#define REGARD_API
#endif
