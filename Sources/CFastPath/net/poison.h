/* poison — under AddressSanitizer a receive buffer can be read only where received bytes lie, and only as long as
 * they may be kept: who reads past their end, or later than loop_recycle, is stopped. Otherwise nothing. */
#ifndef FERRITE_NET_POISON_H
#define FERRITE_NET_POISON_H

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#endif
