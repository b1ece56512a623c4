/* Run a piece of Xe2 machine code by itself: what the emulator's own tests do. Plain C, so that ctypes can call it. */
#pragma once

#include <stdint.h>

#pragma GCC visibility push(default) /* the rest of the library is hidden */

#ifdef __cplusplus
extern "C" {
#endif

enum { EMULATOR_SPECIAL_BYTES = 19 * 64 }; /* acc0 … acc15, a0, f0 … f3, cr0: each at a multiple of 64 */

struct Region {
    uint64_t address, bytes;
    uint8_t *data; /* in and out */
};

struct EmulatorCall {
    const uint8_t *code;
    uint64_t code_bytes;
    uint32_t groups;
    uint32_t threads; /* hardware threads of a work-group */
    uint32_t slm_bytes;
    uint32_t registers_per_thread;
    uint8_t *registers;         /* [groups][threads][registers_per_thread][64], in and out; r0 is set by the emulator */
    uint8_t *registers_defined; /* the same shape, in and out: 1 where a byte holds a value; or null: all do */
    uint8_t *special;           /* [groups][threads][EMULATOR_SPECIAL_BYTES], in and out */
    const struct Region *regions;
    uint32_t region_count;
    uint32_t checks; /* bit 0: poison, bit 1: races, bit 2: lines, and with them cycles */
    uint64_t seed;
    uint64_t instructions; /* out */
    /* out: best, expected and worst; of all threads together, and of the one that takes the longest */
    double thread_cycles[3], longest_cycles[3];
};

/* 0; or 1, and one line in `message` that says what was wrong. */
int emulator_call(struct EmulatorCall *call, char *message, uint64_t message_bytes);

/* What the kernels of this process have done since the last reset, as JSON in a file; 0, or 1 where it cannot be
 * written. */
int emulator_write_counts(const char *path);
void emulator_reset_counts(void);

#ifdef __cplusplus
}
#endif

#pragma GCC visibility pop
