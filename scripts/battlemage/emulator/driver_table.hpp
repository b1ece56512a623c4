// The tables of functions that the loader asks Intel's driver for: the driver's own, some of them replaced.
#pragma once

#include "call.h"

#include <level_zero/ze_ddi.h>

#include <string>

#include <dlfcn.h>

namespace xe2 {

/// A function that ends the process, naming the call: work of a kind that is not emulated must not be lost in silence.
template <class TAG, class R, class... A> auto refusal(R (*)(A...), const char *name) {
    static const char *called;
    called = name;
    return +[](A...) -> R { stop(std::string(called) + " is not emulated"); };
}
#define REFUSE(table, member)                                                                                          \
    do {                                                                                                               \
        struct Tag;                                                                                                    \
        (table)->member = refusal<Tag>((table)->member, #table "'s " #member);                                         \
    } while (false)

/// The driver's table, of which a copy is kept, then changed.
template <class TABLE, class CHANGE>
ze_result_t table(const char *getter, ze_api_version_t version, TABLE *entries, TABLE *kept, CHANGE change) {
    using Getter = ze_result_t (*)(ze_api_version_t, TABLE *);
    const auto driver = reinterpret_cast<Getter>(dlsym(RTLD_NEXT, getter));
    const ze_result_t result = driver ? driver(version, entries) : ZE_RESULT_ERROR_UNSUPPORTED_FEATURE;
    if (result == ZE_RESULT_SUCCESS && entries) {
        if (kept)
            *kept = *entries;
        change();
    }
    return result;
}

} // namespace xe2
