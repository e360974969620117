// The version of the linked library.

#include "regard/version.h"

extern "C" const char* regard_version(void) { return REGARD_VERSION_STRING; }
