// Intel's Level Zero driver with two calls answered here.
//
// Without hardware the driver refuses to make memory resident. The SYCL runtime tries that on every new context and
// gives up when it fails, so the two calls succeed without doing anything; all others reach the driver unchanged.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*TableGetter)(uint32_t version, void **table);

// Places in Level Zero's ze_context_dditable_t, the same in every version of it.
enum { MAKE_MEMORY_RESIDENT = 4, EVICT_MEMORY = 5 };

static uint32_t succeed(void *context, void *device, void *memory, size_t bytes) {
    (void)context, (void)device, (void)memory, (void)bytes;
    return 0;
}

uint32_t zeGetContextProcAddrTable(uint32_t version, void **table) {
    TableGetter driver = (TableGetter)dlsym(RTLD_NEXT, "zeGetContextProcAddrTable");
    uint32_t result = driver(version, table);
    if (result == 0 && table != NULL) {
        table[MAKE_MEMORY_RESIDENT] = (void *)succeed;
        table[EVICT_MEMORY] = (void *)succeed;
    }
    return result;
}
